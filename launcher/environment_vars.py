"""The environment of every process of a run: an allow-list of what the user's shell holds, plus what the config names.

Paddle's launcher writes the whole environment of the ranks into its log folder, and takes its own options from
PADDLE_* variables. So ranks get neither secrets nor anything that is not known to be wanted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from configs.errors import ConfigError
from launcher.secrets import is_secret

ALLOWED_NAMES = frozenset(
    (
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "LD_LIBRARY_PATH",
        "HF_HOME",
        "HF_HUB_OFFLINE",
        "PPNLP_HOME",
        "XDG_CACHE_HOME",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
    )
)
ALLOWED_PREFIXES = ("LC_", "CUDA_", "NCCL_", "GLOO_", "OMP_", "MKL_", "KMP_", "BERT4DOC_")
PROXY_NAMES = (
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
)
"""They may hold a login, so that only the prepare command, which alone uses the network, gets them, and never by a
file."""
RESERVED = re.compile(
    r"PADDLE_.*|MASTER_ADDR|MASTER_PORT|POD_IP|POD_NAME|FLAGS_selected_\w+|DISTRIBUTED_TRAINER_ENDPOINTS|BERT4DOC_ATTEMPT|PYTHONPATH"
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def allowed(base: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that every process of a run may have. An empty CUDA_VISIBLE_DEVICES is left out: it
    makes Paddle's launcher crash."""
    kept = {}
    for name, value in base.items():
        known = name in ALLOWED_NAMES or name.startswith(ALLOWED_PREFIXES)
        if (
            known
            and not is_secret(name)
            and not RESERVED.fullmatch(name)
            and not (name == "CUDA_VISIBLE_DEVICES" and not value)
        ):
            kept[name] = value
    return kept


def check_extra(extra: Mapping[str, str]) -> None:
    """Raises ConfigError for a variable in the config's launch.env that is no name, belongs to the launch itself, or
    looks like a secret."""
    for name, value in extra.items():
        if not _NAME.fullmatch(name) or "\0" in value:
            raise ConfigError(f"launch.env.{name}: not a valid name and value of an environment variable")
        if RESERVED.fullmatch(name):
            raise ConfigError(
                f"launch.env.{name}: set by the launcher itself",
                "remove it; use --devices, --nproc-per-node or --nnodes",
            )
        if is_secret(name):
            raise ConfigError(
                f"launch.env.{name}: looks like a secret, and ranks need none; a config is copied into the run directory",
                "remove it",
            )


def rank_environment(base: Mapping[str, str], extra: Mapping[str, str], root: str, threads: int) -> dict[str, str]:
    """The environment of ranks and of Paddle's launcher, without the attempt's own variables.

    `base` is the user's environment, `extra` the config's launch.env, `threads` the CPU threads per rank. Raises
    ConfigError.
    """
    check_extra(extra)
    return {
        **allowed(base),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        **extra,
        "PYTHONPATH": root,
        "PYTHONUNBUFFERED": "1",
    }


def agent_environment(base: Mapping[str, str], root: str, passed_names: Iterable[str]) -> dict[str, str]:
    """The environment of an agent: the allowed part, and the variables it hands to the prepare command."""
    passed = {name: base[name] for name in passed_names if name in base}
    return {**allowed(base), **passed, "PYTHONPATH": root, "PYTHONUNBUFFERED": "1"}


def prepare_environment(
    base: Mapping[str, str], ranks: Mapping[str, str], passed_names: Iterable[str]
) -> dict[str, str]:
    """The environment of the prepare command: that of the ranks, without their thread limits, plus variables of the
    agent's own environment."""
    own = {name: value for name, value in ranks.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    return {**own, **{name: base[name] for name in passed_names if name in base}}
