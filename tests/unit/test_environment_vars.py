"""What of the user's environment reaches ranks, agents and the prepare command."""

from __future__ import annotations

import pytest

from configs.errors import ConfigError
from launcher.environment_vars import agent_environment, allowed, check_extra, prepare_environment, rank_environment

SHELL = {
    "PATH": "/bin",
    "HOME": "/home/u",
    "LC_ALL": "C",
    "NCCL_DEBUG": "INFO",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "64",
    "MKL_DEBUG_CPU_TYPE": "5",
    "BERT4DOC_CACHE": "/cache",
    "BERT4DOC_TOKEN": "s3cret",
    "HF_TOKEN": "s3cret",
    "https_proxy": "http://user:s3cret@proxy:1",
    "PADDLE_TRAINER_ID": "5",
    "PADDLE_MASTER": "10.0.0.1:1",
    "MASTER_ADDR": "x",
    "POD_IP": "x",
    "FLAGS_selected_gpus": "3",
    "PYTHONPATH": "/elsewhere",
    "PYTHONSTARTUP": "/x",
    "LD_PRELOAD": "/x.so",
    "RANDOM_THING": "x",
}


def test_only_what_is_known_to_be_wanted_is_kept() -> None:
    kept = allowed(SHELL)
    assert set(kept) == {
        "PATH",
        "HOME",
        "LC_ALL",
        "NCCL_DEBUG",
        "OMP_NUM_THREADS",
        "MKL_DEBUG_CPU_TYPE",
        "BERT4DOC_CACHE",
    }
    assert allowed({"CUDA_VISIBLE_DEVICES": "1,2"}) == {"CUDA_VISIBLE_DEVICES": "1,2"}


def test_ranks_get_threads_and_the_configs_variables() -> None:
    env = rank_environment(SHELL, {"NCCL_DEBUG": "WARN", "MY_FLAG": "1"}, "/root-of-tree", 3)
    assert (env["OMP_NUM_THREADS"], env["MKL_NUM_THREADS"], env["NCCL_DEBUG"], env["MY_FLAG"]) == (
        "3",
        "3",
        "WARN",
        "1",
    )
    assert (env["PYTHONPATH"], env["PYTHONUNBUFFERED"]) == ("/root-of-tree", "1")
    assert not any("s3cret" in value for value in env.values())


def test_only_the_prepare_command_gets_what_is_passed_by_name() -> None:
    agent = agent_environment(SHELL, "/root-of-tree", ("https_proxy", "absent"))
    assert agent["https_proxy"] == SHELL["https_proxy"]
    assert "HF_TOKEN" not in agent
    assert "absent" not in agent
    ranks = rank_environment(SHELL, {}, "/root-of-tree", 1)
    env = prepare_environment(agent, ranks, ("https_proxy",))
    assert env["https_proxy"] == SHELL["https_proxy"]
    assert "OMP_NUM_THREADS" not in env
    assert "https_proxy" not in ranks


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("PADDLE_TRAINERS_NUM", "set by the launcher"),
        ("FLAGS_selected_gpus", "set by the launcher"),
        ("BERT4DOC_ATTEMPT", "set by the launcher"),
        ("HF_TOKEN", "looks like a secret"),
        ("A=B", "not a valid name"),
    ],
)
def test_a_config_cannot_set_these(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_extra({name: "x"})
