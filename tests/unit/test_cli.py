"""The command line through real processes: help, mistakes, plan, and what it says about runs."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import Exit
from launcher.cli import app as cli_app
from launcher.cli.app import COMMANDS
from launcher.cli.main import main, normalise
from tests.cli_runs import CONFIG, ROOT, launcher, write_config

NOW = (
    "quickstart",
    "train",
    "plan",
    "prepare",
    "import",
    "runs",
    "status",
    "logs",
    "stop",
    "resume",
    "evaluate",
    "predict",
    "report",
    "export",
    "align",
    "setup",
    "test",
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path / "data")


class TestHelp:
    def test_it_lists_every_command(self, tmp_path):
        done = launcher("--help", runs_dir=tmp_path)
        assert done.returncode == 0
        listed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("│ ") and line[2] != " "]
        assert [name for name in listed if not name.startswith("-")] == list(NOW)

    @pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("setup", "test")])
    def test_every_command_has_its_own(self, tmp_path, command):
        done = launcher(command, "--help", runs_dir=tmp_path)
        assert done.returncode == 0
        assert f"Usage: ./run.sh {command}" in done.stdout

    def test_no_arguments_show_it(self, tmp_path):
        done = launcher(runs_dir=tmp_path)
        assert done.returncode == 0
        assert "Usage: ./run.sh" in done.stdout

    def test_it_loads_neither_the_schema_nor_paddle(self):
        heavy = "{'yaml', 'numpy', 'paddle', 'configs.schema', 'launcher.plan', 'rich.live'}"
        code = f"import sys, launcher.cli.app\nsys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("trian",), "unknown command 'trian'; did you mean 'train'?"),
            (("doctor",), "unknown command 'doctor'"),
            (
                ("train", "--nproc-per-nod", "2", "x"),
                "unknown option '--nproc-per-nod'; did you mean '--nproc-per-node'?",
            ),
            (("train",), "Missing argument"),
            (("plan", "trek"), "did you mean"),
            (("plan", "CONFIG", "--stage", "pretrain"), "--stage pretrain: no such stage; stages: finetune"),
            (("plan", "CONFIG", "--nproc-per-node", "two"), "--nproc-per-node two: must be 'auto' or a whole number"),
            (("plan", "CONFIG", "--devices", "0"), "--devices=0: GPU '0' is not there"),
            (("plan", "CONFIG", "--resume", "nowhere"), "not a checkpoint"),
            (("plan", "CONFIG", "stages.finetune.lrr=1"), "did you mean"),
            (("plan", "CONFIG", "--name", "a/b"), "name"),
            (("plan", "CONFIG", "model=bert-base-uncasd"), "Did you mean bert-base-uncased?"),
            (("plan", "CONFIG", "model=/nowhere"), "model: /nowhere is no folder"),
            (("plan", "CONFIG", "finetune.max_length=513"), "the model all-minilm-l6-v2 has 512 positions"),
            (("plan", "CONFIG", "finetune.layers=[6]"), "the model all-minilm-l6-v2 has blocks 0 to 5"),
            (("status", "nothing"), "run 'nothing': not found"),
            (("status", "../etc"), "run name '../etc'"),
            (("predict", "nothing"), "give exactly one of --text TEXT, a file, or -"),
            (("predict", "nothing", "--text", "x"), "run 'nothing': not found"),
            (("setup",), "setup is done by run.sh"),
            (("test", "fast"), "test is done by run.sh"),
            (("evaluate", "x", "--split", "tset"), "tset"),
            (("align", "--reference-python", "/no/python"), "--reference-python /no/python: there is no such program"),
            (("align", "--fixtures", "/no/folder"), "--fixtures /no/folder: no such folder"),
        ],
    )
    def test_are_named_with_the_next_command_and_no_traceback(self, tmp_path, config, arguments, said):
        done = launcher(
            *(str(config) if part == "CONFIG" else part for part in arguments),
            runs_dir=tmp_path,
            CUDA_VISIBLE_DEVICES="",
        )
        assert done.returncode == Exit.USAGE
        assert done.stderr.startswith("error: ")
        assert said in done.stderr
        assert "\nnext: " in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""

    def test_an_internal_error_is_short_and_keeps_its_traceback_in_a_private_file(self, monkeypatch, capsys):
        def broken(*_arguments: object, **_options: object) -> int:
            raise ZeroDivisionError("oops")

        monkeypatch.setattr(cli_app, "app", broken)
        assert main(["runs"]) == Exit.INTERNAL
        said = capsys.readouterr().err
        assert said.startswith("error: internal error: ZeroDivisionError: oops\nnext: ")
        path = Path(said.split()[-1])
        assert "Traceback" in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.unlink()

    def test_ctrl_c_is_no_traceback(self, monkeypatch, capsys):
        def interrupted(*_arguments: object, **_options: object) -> int:
            raise KeyboardInterrupt

        monkeypatch.setattr(cli_app, "app", interrupted)
        assert main(["runs"]) == Exit.SIGINT
        assert capsys.readouterr().err == "error: interrupted\n"


def test_underscores_in_option_names_are_dashes():
    given = ["train", "a_b.yaml", "--nproc_per_node=2", "data.path=/x_y", "--runs_dir", "r_s", "--", "--text_x"]
    assert normalise(given) == [
        "train",
        "a_b.yaml",
        "--nproc-per-node=2",
        "data.path=/x_y",
        "--runs-dir",
        "r_s",
        "--",
        "--text_x",
    ]


class TestPlan:
    def test_it_prints_the_arithmetic_and_writes_nothing(self, tmp_path, config):
        done = launcher(
            "plan",
            str(config),
            "--nproc_per_node",
            "2",
            "stages.finetune.lr=3e-5",
            runs_dir=tmp_path,
            CUDA_VISIBLE_DEVICES="",
        )
        assert done.returncode == 0, done.stderr
        assert "4 sequences x 2 ranks x 1 accumulation = 8 per step" in done.stdout
        assert "3e-05, linear" in done.stdout
        assert [entry.name for entry in tmp_path.iterdir()] == ["data"]

    def test_overrides_may_stand_anywhere_after_the_config(self, tmp_path, config):
        first = launcher("plan", str(config), "finetune.batch=6", "--name", "n", "--json", "seed=7", runs_dir=tmp_path)
        data = json.loads(first.stdout)
        assert (data["name"], data["seed"], data["stages"][0]["batch"]["batch"]) == ("n", 7, 6)

    def test_paths_in_the_config_are_made_absolute(self, tmp_path, config):
        relative = write_config(tmp_path / "data", CONFIG.replace("DATA", "data"))
        done = launcher("plan", str(relative), "--json", runs_dir=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["run_dir"] == str(tmp_path / "tiny")

    def test_a_bare_name_is_a_config_that_ships(self, tmp_path):
        done = launcher("plan", "quickstart", "--json", runs_dir=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["name"] == "quickstart"

    def test_no_secret_is_shown(self, tmp_path, config):
        secrets = {
            "HF_TOKEN": "canary-a",
            "BERT4DOC_API_KEY": "canary-b",
            "https_proxy": "http://ada:canary-c@proxy.example",
        }
        for form in ((), ("--json",)):
            done = launcher("plan", str(config), *form, runs_dir=tmp_path, **secrets)
            assert "canary" not in done.stdout + done.stderr

    def test_head_does_not_break_it(self, tmp_path, config):
        command = f'"{sys.executable}" -m launcher plan "{config}" | head -1; exit ${{PIPESTATUS[0]}}'
        env = {**os.environ, "PYTHONPATH": str(ROOT), "BERT4DOC_RUNS": str(tmp_path)}
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0
        assert len(done.stdout.splitlines()) == 1
        assert done.stderr == ""
