"""run.sh as people call it: real processes, real environments from tiny packages built here, no network."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.environment.interpreter import base_python

ROOT = Path(__file__).resolve().parents[2]
MAIN = """
import json, os, sys
wanted = ("PYTHONPATH", "PYTHONHOME", "MKL_DEBUG_CPU_TYPE", "PPNLP_HOME")
print(json.dumps({"argv": sys.argv[1:], "prefix": sys.prefix, "cwd": os.getcwd(),
                  "environment": {name: os.environ.get(name) for name in wanted}}))
"""
PADDLE = """
import os, time
if os.environ.get("TEST_IMPORT_FAILS"):
    raise OSError("libcuda.so.1: cannot open shared object file")
time.sleep(float(os.environ.get("TEST_IMPORT_SECONDS", "0")))
"""


def make_wheel(directory: Path, name: str, version: str, module: str, source: str = "", requires: str = "") -> str:
    """Build a pure wheel with one module; returns its lock entry."""
    directory.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}"
    files = {
        f"{module}/__init__.py": source,
        f"{stem}.dist-info/METADATA": metadata,
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in files.items())
    wheel = directory / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in (files | {f"{stem}.dist-info/RECORD": record}).items():
            archive.writestr(path, text)
    return f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


class Project:
    """A copy of the door with a tiny lock, in a directory with a space in its name."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "my project"
        self.wheels = directory / "wheels"
        self.bin = directory / "bin"
        self.home = directory / "home"
        source = ROOT / "launcher" / "environment"
        target = self.root / "launcher" / "environment"
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "requirements"))
        shutil.copy(ROOT / "run.sh", self.root)
        shutil.copy(ROOT / "launcher" / "__init__.py", self.root / "launcher")
        (self.root / "launcher" / "__main__.py").write_text(MAIN)
        self.requirements = target / "requirements"
        self.requirements.mkdir()
        self.home.mkdir()
        self.bin.mkdir()
        for program in ("bash", "dirname", "readlink", "sha256sum", "env", "rm", "sleep"):
            (self.bin / program).symlink_to(shutil.which(program) or pytest.skip(f"{program} is missing"))
        (self.bin / "python3").symlink_to(base_python())
        self.write_locks()

    def write_locks(self, paddlenlp: str = "3.0.0b4") -> None:
        lines = make_wheel(self.wheels, "paddlepaddle", "3.3.1", "paddle", PADDLE)
        lines += make_wheel(self.wheels, "paddlenlp", paddlenlp, "paddlenlp")
        (self.requirements / "base.lock").write_text(lines)
        (self.requirements / "base.in").write_text("paddlepaddle>=3.3,<3.4\npaddlenlp>=3.0.0b4\n")
        for extra, name in (("quickstart", "tiny-encoder"), ("test", "tiny-tool")):
            lock = make_wheel(self.wheels, name, "1.0", name.replace("-", "_"))
            (self.requirements / f"{extra}.lock").write_text(lock)
            (self.requirements / f"{extra}.in").write_text(f"{name}>=1\n")

    def environment(self, **extra: str) -> dict[str, str]:
        return {
            "PATH": str(self.bin),
            "HOME": str(self.home),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "PIP_NO_CACHE_DIR": "1",
            **extra,
        }

    def start(self, *arguments: str, cwd: Path | None = None, **extra: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.root / "run.sh"), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=self.environment(**extra),
        )

    def run(self, *arguments: str, cwd: Path | None = None, **extra: str) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments, cwd=cwd, **extra) as process:
            stdout, stderr = process.communicate(timeout=120)
        assert "Traceback" not in stderr
        return subprocess.CompletedProcess([], process.returncode, stdout, stderr)

    def seen(self, *arguments: str, cwd: Path | None = None, **extra: str) -> Any:
        """Run a command that must succeed; returns what the command saw."""
        done = self.run(*arguments, cwd=cwd, **extra)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def environments(self) -> list[Path]:
        return sorted((self.root / ".venv.d").glob("env-*"))


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """A project whose environment has been made by its first command."""
    project = Project(tmp_path_factory.mktemp("ready"))
    done = project.run("first")
    assert done.returncode == 0, done.stderr
    assert "making it, once" in done.stderr
    assert "4 of 4 packages" in done.stderr or "trying the environment" in done.stderr
    assert "The environment is ready: device cpu" in done.stderr
    assert json.loads(done.stdout)["argv"] == ["first"]
    return project


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def test_second_command_starts_at_once_and_says_nothing(ready):
    before = (ready.root / ".venv.d" / "setup.log").stat().st_mtime_ns
    done = ready.run("train", "a b", "--x", "key=value", "")
    assert done.stderr == ""
    seen = json.loads(done.stdout)
    assert seen["argv"] == ["train", "a b", "--x", "key=value", ""]
    assert seen["prefix"] == os.path.realpath(ready.root / ".venv")
    assert (ready.root / ".venv.d" / "setup.log").stat().st_mtime_ns == before
    assert stat.S_IMODE((ready.root / ".venv.d" / "setup.log").stat().st_mode) == 0o600


def test_complete_environment_needs_no_python_in_path(ready):
    (ready.bin / "python3").rename(ready.bin / "hidden")
    try:
        assert ready.seen("plan")["argv"] == ["plan"]
    finally:
        (ready.bin / "hidden").rename(ready.bin / "python3")


def test_any_directory_and_a_chain_of_links(ready, tmp_path):
    (tmp_path / "one").symlink_to(ready.root / "run.sh")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "two").symlink_to("../one")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "json.py").write_text("raise SystemExit('the wrong json')")
    (tmp_path / "run" / "launcher").mkdir()
    done = subprocess.run(
        ["../sub/two", "x"], cwd=tmp_path / "run", env=ready.environment(), capture_output=True, text=True, check=True
    )
    seen = json.loads(done.stdout)
    assert seen["cwd"] == str(tmp_path / "run")
    assert seen["environment"]["PYTHONPATH"] == str(ready.root)


def test_python_settings_of_the_user_do_not_reach_the_environment(ready):
    seen = ready.seen("x", PYTHONHOME="/nowhere", PYTHONPATH="/nowhere", CDPATH="/usr")
    assert seen["environment"]["PYTHONPATH"] == str(ready.root)
    assert seen["environment"]["PYTHONHOME"] is None


def test_mkl_switch_is_set_on_amd_only_and_the_users_value_stays(ready):
    amd = "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    assert ready.seen("x")["environment"]["MKL_DEBUG_CPU_TYPE"] == ("5" if amd else None)
    assert ready.seen("x", MKL_DEBUG_CPU_TYPE="4")["environment"]["MKL_DEBUG_CPU_TYPE"] == "4"


def test_paddlenlp_gets_a_place_where_home_cannot_take_it(ready):
    assert ready.seen("x")["environment"]["PPNLP_HOME"] is None
    assert ready.seen("x", PPNLP_HOME="/mine", HOME="/nowhere")["environment"]["PPNLP_HOME"] == "/mine"
    own = str(ready.root / ".venv.d" / "paddlenlp")
    assert ready.seen("x", HOME="/nowhere")["environment"]["PPNLP_HOME"] == own


def test_setup_says_when_there_is_nothing_to_do(ready):
    done = ready.run("setup")
    assert (done.returncode, done.stdout) == (0, "")
    assert "Nothing to do" in done.stderr


def test_dry_run_prints_the_choice_and_starts_nothing(project):
    (project.bin / "nvidia-smi").write_text("#!/bin/bash\necho 'NVIDIA A100-SXM4-80GB, 560.35.03, 8.0'\n")
    (project.bin / "nvidia-smi").chmod(0o755)
    done = project.run("setup", "--dry-run")
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines["device"].startswith("cu126 (1 x NVIDIA A100-SXM4-80GB (compute capability 8.0), driver 560.35.3")
    assert lines["wheel"] == "paddlepaddle-gpu 3.3.1"
    assert lines["index"].startswith("https://www.paddlepaddle.org.cn/packages/stable/cu126/ ")
    assert lines["python"] == f"{sys.version.split()[0]} ({base_python()})"
    assert lines["packages"] == "4 and its CUDA libraries, from base, quickstart, test"
    assert lines["disk"].startswith("about 12.0 GB needed, ")
    assert not (project.root / ".venv.d").exists()
    cpu = project.run("setup", "--dry-run", "--device=cpu", "--extra", "none").stdout
    assert "cpu (asked for)" in cpu
    assert "packages  2, from base\n" in cpu


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["setup", "--device", "cu999"], "cu999"),
        (["setup", "--extra", "nope"], "nope"),
        (["setup", "--python", "/no/such/python"], "no such program"),
        (["setup", "--extra", "none", "--extra", "test"], "cannot be combined"),
        (["--python"], "needs the path"),
        (["--python", "/no/such/python", "train"], "no such program"),
        (["--python", "/usr/bin/env", "setup"], "makes the project's own environment"),
    ],
)
def test_wrong_use_is_exit_2(project, arguments, words):
    done = project.run(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert not (project.root / ".venv").exists()


def test_no_python_at_all(project):
    (project.bin / "python3").unlink()
    (project.bin / "python3.12").write_text("#!/bin/bash\necho 'pyenv: python3.12: command not found' >&2; exit 127\n")
    (project.bin / "python3.12").chmod(0o755)
    done = project.run("train")
    assert done.returncode == 69
    assert "No Python 3.10, 3.11 or 3.12 found" in done.stderr
    assert "pyenv" not in done.stderr


def test_own_interpreter_is_used_with_its_own_path(project, tmp_path):
    (project.requirements / "base.in").write_text("pytest>=1\n")
    (tmp_path / "modules").mkdir()
    for arguments, extra in (
        (["--python", sys.executable, "train"], {}),
        ([f"--python={sys.executable}", "train"], {}),
        (["train"], {"BERT4DOC_PYTHON": sys.executable}),
    ):
        seen = project.seen(*arguments, PYTHONPATH=str(tmp_path / "modules"), **extra)
        assert seen["prefix"] == sys.prefix
        assert seen["environment"]["PYTHONPATH"] == f"{project.root}:{tmp_path / 'modules'}"
    assert not (project.root / ".venv.d").exists()


def test_own_interpreter_that_lacks_packages(project):
    (project.requirements / "base.in").write_text("pytest>=1\nno-such-package-here>=2\n")
    done = project.run("--python", sys.executable, "train")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no-such-package-here" in done.stderr
    assert "-m pip install 'no-such-package-here>=2'" in done.stderr
    (project.requirements / "base.in").write_text("pytest>=1\n")
    done = project.run("--python", sys.executable, "test")
    assert done.returncode == 2
    assert "tiny-tool" in done.stderr


KILL_POINTS = {
    "set-up started": "started",
    "directory there": "",
    "python there": "/bin/python",
    "package half there": "/lib/python3*/site-packages/paddle*",
    "all installed": "/lib/python3*/site-packages/tiny_tool-*",
}


@pytest.mark.slow
def test_killed_at_any_instant_the_next_call_repairs(project):
    """kill -9 of the set-up at five points, found by watching the new environment on disk."""
    for point, pattern in KILL_POINTS.items():
        assert _kill_set_up(project, pattern) == 128 + signal.SIGKILL, point
        assert not (project.root / ".venv").exists(), point
    assert project.seen("y")["argv"] == ["y"]
    assert [path.name for path in project.environments()] == [os.readlink(project.root / ".venv").rpartition("/")[2]]


def _kill_set_up(project: Project, pattern: str) -> int:
    """Start a command and kill -9 its set-up when the new environment has `pattern`; returns run.sh's exit code."""
    before = set(project.environments())

    def reached() -> list[Path]:
        found = (project.root / ".venv.d").glob(f"env-*{pattern}")
        return [path for path in found if not any(path.is_relative_to(old) for old in before)]

    with project.start("x", TEST_IMPORT_SECONDS="60") as process:
        (set_up,) = _wait_for(lambda: _children(process.pid))
        if pattern != "started":
            _wait_for(reached)
        os.kill(set_up, signal.SIGKILL)
        process.communicate(timeout=60)
    return process.returncode


def _wait_for(find: Callable[[], list[Any]]) -> list[Any]:
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        if found := find():
            return found
        time.sleep(0.002)
    pytest.fail("waited a minute in vain")


def _children(parent: int) -> list[int]:
    """Processes that `parent` started, by now running Python (not the shell's own forks)."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent and b"__main__.py" in (directory / "cmdline").read_bytes():
                found.append(int(directory.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(("rename", "of"), [(1, "stamp.partial"), (2, "link.partial")])
def test_killed_at_the_renames_that_commit(project, tmp_path, rename, of):
    """SIGKILL in place of the rename of the stamp and of the link: never half an environment in use."""
    trace = tmp_path / "trace"
    inject = f"inject=rename:error=EINTR:signal=KILL:when={rename}"
    strace = [str(shutil.which("strace")), "-qq", "-o", str(trace), "-e", "trace=rename", "-e", inject]
    # -B: Python renames the bytecode it writes, too.
    set_up = [base_python(), "-I", "-B", str(project.root / "launcher/environment/__main__.py"), "ensure"]
    done = subprocess.run([*strace, *set_up], env=project.environment(), capture_output=True, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert of in trace.read_text().splitlines()[-2]
    assert not (project.root / ".venv").exists()
    assert project.seen("x")["argv"] == ["x"]
    assert len(project.environments()) == 1


def test_two_at_once_make_one_environment(project):
    with project.start("one", TEST_IMPORT_SECONDS="3") as first:
        while not project.environments():
            time.sleep(0.01)
        second = project.run("two")
        out, said = first.communicate(timeout=120)
    assert (first.returncode, second.returncode) == (0, 0), said + second.stderr
    assert json.loads(out)["argv"] == ["one"]
    assert json.loads(second.stdout)["argv"] == ["two"]
    assert "making it, once" in said
    assert "waiting for the set-up that process" in second.stderr
    assert "making it" not in second.stderr
    assert len(project.environments()) == 1


def test_interrupted_by_ctrl_c(project):
    with project.start("x", TEST_IMPORT_SECONDS="60") as process:
        installed = "env-*/lib/python3*/site-packages/tiny_tool-*"
        _wait_for(lambda: list((project.root / ".venv.d").glob(installed)))
        (set_up,) = _children(process.pid)
        os.kill(set_up, signal.SIGINT)
        out, said = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in said
    assert "the next call starts it again" in said
    assert project.environments() == []


@pytest.mark.slow
def test_changed_lock_makes_it_anew_and_a_failure_keeps_the_old_one(project):
    project.seen("x")
    old = os.readlink(project.root / ".venv")
    project.write_locks(paddlenlp="3.0.1")
    done = project.run("x", PIP_FIND_LINKS="/nowhere")
    assert done.returncode == 69
    assert "The lock files have changed" in done.stderr
    assert "Next:" in done.stderr
    assert os.readlink(project.root / ".venv") == old
    done = project.run("x")
    assert done.returncode == 0, done.stderr
    assert os.readlink(project.root / ".venv") != old
    assert len(project.environments()) == 1
    assert any((project.root / ".venv").glob("lib/python3*/site-packages/paddlenlp-3.0.1.dist-info"))


@pytest.mark.slow
def test_setup_mends_an_environment_damaged_by_hand(project):
    project.seen("x")
    (metadata,) = (project.root / ".venv").glob("lib/python3*/site-packages/paddlenlp-*.dist-info")
    shutil.rmtree(metadata)
    done = project.run("setup")
    assert "The environment is ready" in done.stderr
    assert "Nothing to do" not in done.stderr
    assert "Nothing to do" in project.run("setup").stderr


def test_unreachable_index_is_said_in_plain_words(project):
    shutil.rmtree(project.wheels)
    environment = project.environment(PIP_INDEX_URL="http://me:secret@127.0.0.1:9/simple", PIP_RETRIES="1")
    del environment["PIP_NO_INDEX"], environment["PIP_FIND_LINKS"]
    done = subprocess.run(
        [str(project.root / "run.sh"), "x"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 69
    assert "A package index could not be reached." in done.stderr
    assert "127.0.0.1:9" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr
    log = project.root / ".venv.d" / "setup.log"
    assert str(log) in done.stderr
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert project.environments() == []


def test_a_file_that_is_not_the_locked_one_is_refused(project):
    make_wheel(project.wheels, "paddlepaddle", "3.3.1", "paddle", "print('other')")
    done = project.run("x")
    assert done.returncode == 69
    assert "not the one in the lock file" in done.stderr
    assert not (project.root / ".venv").exists()


def test_paddle_that_does_not_import_is_no_environment(project):
    done = project.run("x", TEST_IMPORT_FAILS="1")
    assert done.returncode == 69
    assert "libcuda.so.1" in done.stderr
    assert not (project.root / ".venv").exists()


@pytest.mark.slow
def test_gpu_wheel_from_paddles_index_and_the_device_is_remembered(project, tmp_path):
    index = tmp_path / "index" / "cu126"
    requires = (
        "Requires-Dist: paddlenlp\nRequires-Dist: nvidia-tiny==1.2; platform_system == 'Linux'\n"
        "Requires-Dist: nvidia-other==9; platform_system == 'Windows'\n"
    )
    make_wheel(index / "paddlepaddle-gpu", "paddlepaddle-gpu", "3.3.1", "paddle", PADDLE, requires)
    make_wheel(index / "nvidia-tiny", "nvidia-tiny", "1.2", "nvidia_tiny")
    for page in index.iterdir():
        page.joinpath("index.html").write_text("".join(f'<a href="{w.name}">{w.name}</a>' for w in page.glob("*.whl")))
    (project.bin / "nvidia-smi").write_text("#!/bin/bash\necho 'NVIDIA A100, 560.35.03, 8.0'\n")
    (project.bin / "nvidia-smi").chmod(0o755)
    extra = {"BERT4DOC_PADDLE_INDEX": (tmp_path / "index").as_uri(), "PIP_NO_INDEX": "0"}
    done = project.run("x", PIP_INDEX_URL=(tmp_path / "nothing").as_uri(), **extra)
    assert done.returncode == 0, done.stderr
    assert "ready: device cu126" in done.stderr
    site_packages = next((project.root / ".venv").glob("lib/python3*/site-packages"))
    installed = {path.name for path in site_packages.glob("*.dist-info")}
    assert {"paddlepaddle_gpu-3.3.1.dist-info", "nvidia_tiny-1.2.dist-info"} < installed
    assert "paddlepaddle-3.3.1.dist-info" not in installed

    (project.bin / "nvidia-smi").unlink()
    project.write_locks(paddlenlp="3.0.1")
    done = project.run("x", PIP_INDEX_URL=(tmp_path / "nothing").as_uri(), **extra)
    assert done.returncode == 0, done.stderr
    assert "ready: device cu126" in done.stderr
