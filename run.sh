#!/usr/bin/env bash
# The only door: makes the environment (.venv) from the lock files once, then runs a command in it.
#   ./run.sh COMMAND ...                 ./run.sh --help lists the commands
#   ./run.sh --python PATH COMMAND ...   uses your own interpreter instead (also: BERT4DOC_PYTHON=PATH)
#   ./run.sh setup [--device ...]        makes the environment as asked (launcher/environment)
#   ./run.sh test [fast] [pytest ...]    runs the test suite
set -u
unset CDPATH

self=${BASH_SOURCE[0]}
while [[ -L $self ]]; do
  target=$(readlink -- "$self")
  [[ $target == /* ]] || target=$(dirname -- "$self")/$target
  self=$target
done
root=$(cd -P -- "$(dirname -- "$self")" && pwd) || exit 73
environment=$root/launcher/environment
own=${BERT4DOC_PYTHON:-}

fail() {
  printf 'error: %s\n' "$1" >&2
  exit "$2"
}

# The first interpreter that runs and is of a supported version; version managers' shims may exist and fail.
find_python() {
  local name
  for name in python3.12 python3.11 python3.10 python3; do
    if "$name" -I -S -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1; then
      printf '%s\n' "$name"
      return
    fi
  done
  fail 'No Python 3.10, 3.11 or 3.12 found (tried python3.12, python3.11, python3.10 and python3 in PATH).
  Next: install one (Debian, Ubuntu: apt-get install python3 python3-venv), or name one: ./run.sh --python PATH COMMAND' 69
}

# Complete when the stamp, written last, begins with the checksums of the lock files.
is_complete() {
  [[ -x $root/.venv/bin/python && -r $root/.venv/stamp ]] || return 1
  local locks
  locks=$(cd -- "$environment/requirements" && LC_ALL=C && sha256sum -- *.lock) || return 1
  [[ $(<"$root/.venv/stamp") == "$locks"$'\n'* ]]
}

# The MKL inside Paddle's CPU wheel takes its slow path on AMD processors unless told otherwise.
tune_mkl() {
  local line
  [[ -z ${MKL_DEBUG_CPU_TYPE+set} && -r /proc/cpuinfo ]] || return 0
  while read -r line; do
    [[ $line == vendor_id* ]] || continue
    [[ $line == *AuthenticAMD* ]] && export MKL_DEBUG_CPU_TYPE=5
    return 0
  done </proc/cpuinfo
}

# PaddleNLP makes a directory in HOME when it is imported, and fails where it cannot.
place_paddlenlp() {
  [[ -n ${PPNLP_HOME:-} || (-n ${HOME:-} && -d $HOME && -w $HOME) ]] || export PPNLP_HOME=$root/.venv.d/paddlenlp
}

while [[ ${1:-} == --python || ${1:-} == --python=* ]]; do
  if [[ $1 == --python ]]; then
    (($# >= 2)) || fail '--python needs the path of an interpreter.' 2
    own=$2
    shift 2
  else
    own=${1#--python=}
    shift
  fi
done

if [[ ${1:-} == setup ]]; then
  [[ -z $own ]] || fail "setup makes the project's own environment; it does nothing for --python (or BERT4DOC_PYTHON)." 2
  python=$(find_python) || exit
  exec "$python" -I "$environment/__main__.py" "$@"
fi

if [[ -n $own ]]; then
  python=$(command -v -- "$own") || fail "--python $own: there is no such program." 2
  extras=()
  [[ ${1:-} == test ]] && extras=(test)
  "$python" "$environment/__main__.py" check ${extras[@]+"${extras[@]}"} || exit
  export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
else
  if ! is_complete; then
    python=$(find_python) || exit
    "$python" -I "$environment/__main__.py" ensure || exit
  fi
  python=$(cd -P -- "$root/.venv" && pwd)/bin/python
  export PYTHONPATH=$root
  unset PYTHONHOME
fi
tune_mkl
place_paddlenlp

if [[ ${1:-} == test ]]; then
  shift
  exec "$python" "$environment/start.py" launcher.environment.suites "$@"
fi
exec "$python" "$environment/start.py" launcher "$@"
