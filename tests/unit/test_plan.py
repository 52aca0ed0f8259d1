"""The plan: what it decides from a config, a topology and facts, how it is printed, and that it shows no secret."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cluster.inventory import NodeShape
from configs.errors import ConfigError
from configs.schema import AmpConfig, Config
from launcher import secrets
from launcher.console import plan_view
from launcher.facts import Facts, Gpu, ModelFacts, StageFacts, list_gpus, parse_gpus
from launcher.plan import Plan, Task, amp_policy, make_plan
from launcher.topology import Topology, local_topology
from tests.goldens import check_golden

A100 = Gpu(0, "NVIDIA A100-SXM4-40GB", 42_949_672_960, "8.0")
V100 = Gpu(1, "Tesla V100", 16 * 2**30, "7.0")
MINILM = ModelFacts("all-minilm-l6-v2", 6, 384, 1536, 12, 30522, 22_713_216, "config.json")
CONFIG = {
    "name": "trec",
    "model": "all-minilm-l6-v2",
    "data": {"dataset": "trec"},
    "stages": {
        "pretrain": {"task": "pretrain", "max_steps": 40, "batch": 25, "micro_batch": 5, "lr": 5e-5},
        "finetune": {"task": "finetune", "epochs": 3, "batch": 48, "layer_decay": 0.95, "max_length": 64},
    },
}
TASK = Task("/project", "/env/bin/python", "/runs/trec", "configs/trec.yaml", ("pretrain", "finetune"))


def plan_of(config: dict = CONFIG, task: Task = TASK, topology: Topology | None = None, **facts) -> Plan:
    known: dict[str, Any] = {
        "cores": 4,
        "memory_bytes": 16 * 10**9,
        "free_disk_bytes": 100 * 10**9,
        "start_port": 23456,
        "model": MINILM,
        "stages": {"finetune": StageFacts(4907, 545, 500, 6)},
        "environment": {"PATH": "/usr/bin", "HOME": "/home/ada", "HF_TOKEN": "canary-1", "LC_ALL": "C.UTF-8"},
    }
    return make_plan(
        Config.model_validate(config), topology or Topology((NodeShape(nproc=2),)), Facts(**(known | facts)), task
    )


def test_the_same_arguments_give_the_same_plan():
    assert plan_of() == plan_of()


def test_steps_follow_from_the_prepared_examples():
    pretrain, finetune = plan_of().stages
    assert finetune.steps.total_steps == 309
    assert finetune.warmup == "30 steps (10 % of all steps)"
    assert pretrain.steps.num_examples is None
    assert pretrain.warmup == "4 steps (10 % of all steps)"
    assert finetune.init == "pretrain"


def test_argv_ports_and_threads_are_exact():
    plan = plan_of()
    (node,) = plan.processes
    assert node.argv[:3] == ("/env/bin/python", "-m", "paddle.distributed.launch")
    assert node.argv[node.argv.index("--nproc_per_node") + 1] == "2"
    assert node.argv[node.argv.index("--stages") + 1] == "pretrain,finetune"
    assert plan.endpoints() == ("127.0.0.1:23456", "127.0.0.1:23457")
    assert plan.threads_per_rank == 2
    assert plan.launch.env["OMP_NUM_THREADS"] == "2"
    assert plan.launch.prepare_argv == ("/env/bin/python", "-m", "trainers.prepare", "--run-dir", "/runs/trec")


def test_a_checkpoint_to_start_from_reaches_the_ranks():
    task = Task(
        "/project",
        "/env/bin/python",
        "/runs/trec",
        "c",
        ("finetune",),
        resume_from="/runs/a/finetune/checkpoints/step-00000007",
    )
    argv = plan_of(task=task).processes[0].argv
    assert argv[-2:] == ("--resume-from", "/runs/a/finetune/checkpoints/step-00000007")


@pytest.mark.parametrize(("configured", "earlier", "expected"), [("auto", None, 2), ("auto", 3, 3), (1, 3, 1)])
def test_threads_are_kept_from_earlier_launches_unless_configured(configured, earlier, expected):
    config = CONFIG | {"launch": {"threads_per_rank": configured}}
    task = Task("/project", "p", "/runs/trec", "c", ("finetune",), threads=earlier)
    assert plan_of(config, task).threads_per_rank == expected


def test_bounds_come_from_the_config():
    plan = plan_of(CONFIG | {"launch": {"startup_timeout_s": 77, "stop_grace_s": 11}})
    waits = {wait.what: wait.seconds for wait in plan.waits}
    assert waits["first step of the first stage"] == 77
    assert waits["checkpoint after a stop request"] == 11
    assert plan.launch.bounds.startup_timeout_s == 77


def test_amd_processors_get_the_fast_matrix_path_on_cpu_only():
    assert plan_of(cpu_vendor="AuthenticAMD").launch.env["MKL_DEBUG_CPU_TYPE"] == "5"
    assert "MKL_DEBUG_CPU_TYPE" not in plan_of(cpu_vendor="GenuineIntel").launch.env


@pytest.mark.parametrize(
    ("amp", "gpus", "line"),
    [
        (AmpConfig(), (), "off (CPU has no AMP kernels)"),
        (AmpConfig(level="O2"), (), "off (CPU has no AMP kernels)"),
        (AmpConfig(level="off"), (A100,), "off (amp.level: off)"),
        (AmpConfig(), (A100,), "O1 bfloat16"),
        (AmpConfig(), (A100, V100), "O1 float16 with dynamic loss scaling"),
        (AmpConfig(level="O2", dtype="bfloat16"), (A100,), "O2 bfloat16, float32 master weights"),
    ],
)
def test_amp_policy_by_device(amp, gpus, line):
    assert amp_policy(amp, gpus) == line


def test_warnings_name_what_will_not_fit():
    plan = plan_of(CONFIG, memory_bytes=10**9, free_disk_bytes=10**9)
    assert any(warning.startswith("memory: the ranks need about") for warning in plan.warnings)
    assert any(warning.startswith("disk: checkpoints need up to") for warning in plan.warnings)
    assert plan_of().warnings == ()


def test_ranks_without_work_are_said():
    plan = plan_of(topology=Topology((NodeShape(nproc=26),)), memory_bytes=10**12)
    assert plan.warnings == (
        "stages pretrain: the batch is smaller than the number of ranks; some ranks have nothing to do",
    )


class TestTopology:
    def test_auto_takes_half_the_cores_on_cpu_and_at_least_one(self):
        assert [local_topology("auto", None, (), cores, {}, "h").world_size for cores in (1, 2, 3, 8)] == [1, 1, 1, 4]

    def test_auto_takes_every_gpu(self):
        topology = local_topology("auto", None, (A100, V100), 8, {}, "h")
        assert topology.nodes[0].devices == ("0", "1")

    def test_devices_choose_and_order_gpus(self):
        assert local_topology("auto", "1,0", (A100, V100), 8, {}, "h").nodes[0].devices == ("1", "0")
        assert local_topology(1, "1", (A100, V100), 8, {}, "h").gpus == (V100,)

    def test_the_environment_chooses_gpus_too(self):
        assert local_topology("auto", None, (A100, V100), 8, {"CUDA_VISIBLE_DEVICES": "1"}, "h").nodes[0].devices == (
            "1",
        )

    @pytest.mark.parametrize(
        ("nproc", "devices", "message"),
        [
            (3, None, "3 ranks need 3 GPUs, but there are 2"),
            ("auto", "0,7", "GPU '7' is not there; GPUs here: 0, 1"),
            ("auto", "0,0", "a GPU is named twice"),
            ("two", None, "must be 'auto' or a whole number from 1 up"),
            (0, None, "must be 'auto' or a whole number from 1 up"),
        ],
    )
    def test_what_cannot_be_is_refused(self, nproc, devices, message):
        with pytest.raises(ConfigError, match=message):
            local_topology(nproc, devices, (A100, V100), 8, {}, "h")

    def test_more_ranks_than_cores_are_allowed_and_said(self):
        assert "3 ranks share 2 cores" in local_topology(3, None, (), 2, {}, "h").note


class TestGpuQuery:
    def test_rows_are_parsed_and_other_lines_skipped(self):
        text = "0, NVIDIA A100-SXM4-40GB, 40960, 8.0\nNo devices were found\n1, Tesla V100, [N/A], 7.0\n"
        assert parse_gpus(text) == (A100,)

    @pytest.mark.parametrize(
        ("body", "expected"), [("echo '0, NVIDIA A100-SXM4-40GB, 40960, 8.0'", (A100,)), ("exit 9", ())]
    )
    def test_the_real_command_is_asked(self, tmp_path: Path, monkeypatch, body, expected):
        fake = tmp_path / "nvidia-smi"
        fake.write_text(f"#!/bin/sh\n{body}\n")
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        assert list_gpus() == expected


class TestSecrets:
    @pytest.mark.parametrize("name", ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "db_password", "API_KEY", "GCP_CREDENTIALS"])
    def test_names_of_secrets(self, name):
        assert secrets.is_secret(name)

    @pytest.mark.parametrize("name", ["PATH", "TOKENIZERS_PARALLELISM", "OMP_NUM_THREADS"])
    def test_other_names(self, name):
        assert not secrets.is_secret(name)

    def test_values_and_logins_in_urls_are_masked(self):
        shown = secrets.mask({"HF_TOKEN": "canary", "HF_ENDPOINT": "https://ada:canary@mirror.example/x"})
        assert shown == {"HF_TOKEN": secrets.MASK, "HF_ENDPOINT": f"https://{secrets.MASK}@mirror.example/x"}

    def test_no_secret_in_any_form_of_the_plan(self):
        plan = plan_of()
        assert "canary-1" not in json.dumps(plan.to_json())
        assert "canary-1" not in repr(plan)
        assert "HF_TOKEN" in plan.launch.prepare_env_names

    def test_a_login_in_a_url_of_the_config_is_masked_everywhere(self):
        plan = plan_of(CONFIG | {"launch": {"env": {"HF_ENDPOINT": "https://ada:canary-2@mirror.example"}}})
        console = Console(width=200, record=True, file=io.StringIO())
        console.print(plan_view.render(plan))
        page = console.export_text()
        assert "canary-2" not in json.dumps(plan.to_json()) + page
        assert "mirror.example" in page

    def test_a_secret_in_the_config_is_refused(self):
        with pytest.raises(ConfigError, match=r"launch\.env\.HF_TOKEN"):
            plan_of(CONFIG | {"launch": {"env": {"HF_TOKEN": "x"}}})


def test_json_holds_the_arithmetic_and_the_processes():
    data = json.loads(json.dumps(plan_of().to_json()))
    assert data["stages"][1]["batch"]["text"] == "24 sequences x 2 ranks x 1 accumulation = 48 per step"
    assert data["processes"][0]["ranks"] == [0, 1]
    assert data["endpoints"] == ["127.0.0.1:23456", "127.0.0.1:23457"]
    assert data["memory_per_rank_bytes"] == max(stage["memory"]["total"] for stage in data["stages"])


def test_the_page():
    console = Console(width=80, record=True, file=io.StringIO(), markup=False, highlight=False)
    console.print(plan_view.render(plan_of()))
    check_golden("plan.txt", console.export_text())


def test_planning_imports_no_paddle_and_no_numpy():
    root = Path(__file__).resolve().parents[2]
    modules = "cli.app launching request prepare_command log_view trained console.plan_view overview"
    code = (
        f"import sys, {', '.join(f'launcher.{name}' for name in modules.split())}\n"
        "found = {'paddle', 'paddlenlp', 'numpy', 'torch', 'tokenizers'} & set(sys.modules)\n"
        "sys.exit(f'imported: {found}' if found else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()


def page_of_group(key: str, values: list) -> str:
    """The plan of stages member0, member1, ... of one group."""
    stages = {
        f"member{i}": {"task": "finetune", "epochs": 1, "group": "g", key: value} for i, value in enumerate(values)
    }
    plan = plan_of(CONFIG | {"stages": stages}, replace(TASK, stages=tuple(stages)), stages={})
    console = Console(width=80, record=True, file=io.StringIO(), markup=False, highlight=False)
    console.print(plan_view.render(plan))
    return console.export_text()


def test_members_of_a_sweep_show_what_differs_and_their_rates():
    page = page_of_group("layer_decay", [1.0, 0.5])
    lines = [line.split() for line in page.splitlines()]
    assert ["member0", "layer_decay", "1.0"] in lines
    assert ["member1", "layer_decay", "0.5"] in lines
    assert page.count("peak rate") == 2, "a table for each"
    assert [line[:4] for line in lines].count(["classifier", "known", "after", "prepare"]) == 2, (
        "labels are in the data"
    )
    many = page_of_group("freeze", ["none", 1, 2, 3])
    assert "peak rate" not in many
    assert "parts and rates differ between these stages" in many
