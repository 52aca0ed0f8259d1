"""Reports on run directories made by hand: figures, mean and spread of groups, validation figures, and the paper's tables."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from configs.errors import Exit
from configs.loader import Resolved, dump_resolved, load_config
from configs.schema import Config
from launcher.console import report_view
from launcher.paper import tables
from launcher.paper.comparison import compare
from launcher.report import RunReport
from launcher.results import StageResult, result_rows
from launcher.rundir import RunDirectory
from launcher.spread import spread
from tests.cli_runs import launcher, make_run, write_json

SEED_ERRORS = (3.0, 4.0, 5.5)
MEAN = (3.0 + 4.0 + 5.5) / 3
DEVIATION = math.sqrt(sum((error - MEAN) ** 2 for error in SEED_ERRORS) / 2)


def finish(run: Path, stage: str, error: float | None, seconds: float = 60.0, validation: float | None = None) -> None:
    """A finished stage with a test error in %, or a validation accuracy."""
    metrics = {} if validation is None else {"validation_accuracy": validation, "validation_macro_f1": 0.5}
    write_json(run / stage / "done.json", {"step": 9, "seconds": seconds, "metrics": metrics})
    if error is not None:
        figures = {"accuracy": 1 - error / 100, "macro_f1": 0.9, "error_rate": error, "loss": 0.1, "n": 500}
        write_json(run / stage / "eval.json", {"split": "test", **figures})


def seeded(runs_dir: Path, name: str = "seeds") -> Path:
    """A run of pre-training and three seeds."""
    run = make_run(runs_dir, name, "finished")
    seeds: dict[str, dict[str, Any]] = {
        f"finetune-seed{n}": {"task": "finetune", "epochs": 1, "seed": n, "group": "finetune"} for n in (1, 2, 3)
    }
    stages: dict[str, dict[str, Any]] = {"pretrain": {"task": "pretrain", "max_steps": 9}, **seeds}
    config = Config.model_validate({"name": name, "model": "m", "data": {"dataset": "trec"}, "stages": stages})
    (run / "config.yaml").write_text(dump_resolved(Resolved(config, {})))
    planned = [{"name": stage, "group": settings.get("group")} for stage, settings in stages.items()]
    write_json(run / "plan.json", {"stages": planned, "repeated": ["finetune"]})
    finish(run, "pretrain", None, 100.0)
    for number, error in enumerate(SEED_ERRORS, start=1):
        finish(run, f"finetune-seed{number}", error)
    return run


def test_spread_is_over_n_minus_1() -> None:
    found = spread(SEED_ERRORS)
    assert found is not None
    assert (found.n, found.least, found.greatest) == (3, 3.0, 5.5)
    assert found.mean == pytest.approx(MEAN)
    assert found.sd == pytest.approx(DEVIATION)
    alone = spread([2.0])
    assert alone is not None
    assert alone.sd is None
    assert spread([]) is None
    assert spread([1.0, math.nan]) is None


def test_a_group_is_summed_up_and_its_members_are_listed(tmp_path: Path) -> None:
    seeded(tmp_path)
    done = launcher("report", "seeds", runs_dir=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.strip()]
    assert rows[2] == ["pretrain", "-", "-", "-", "-", "-", "1m40s"]
    assert rows[3] == ["finetune", "(3)", "3m00s"]
    assert [row[0] for row in rows[4:7]] == ["seed1", "seed2", "seed3"]
    assert rows[5] == ["seed2", "test", "500", "96.00", "90.00", "4.00", "0.1000", "1m00s"]
    assert rows[7:11] == [
        ["mean", f"{100 - MEAN:.2f}", "90.00", f"{MEAN:.2f}", "0.1000"],
        ["sd", f"{DEVIATION:.2f}", "0.00", f"{DEVIATION:.2f}", "0.0000"],
        ["min", "94.50", "90.00", "3.00", "0.1000"],
        ["max", "97.00", "90.00", "5.50", "0.1000"],
    ]
    assert "standard deviation (n - 1)" in done.stdout


def test_json_holds_every_figure(tmp_path: Path) -> None:
    seeded(tmp_path)
    (report,) = json.loads(launcher("report", "--json", runs_dir=tmp_path).stdout)
    assert [stage["stage"] for stage in report["stages"]] == ["pretrain", *(f"finetune-seed{n}" for n in (1, 2, 3))]
    assert [stage["seed"] for stage in report["stages"]] == [42, 1, 2, 3]
    (group,) = report["groups"]
    assert group["error_rate"] == {
        "n": 3, "mean": pytest.approx(MEAN), "sd": pytest.approx(DEVIATION), "min": 3.0, "max": 5.5,
    }  # fmt: skip


def test_status_and_runs_show_the_group(tmp_path: Path) -> None:
    seeded(tmp_path)
    status = launcher("status", "seeds", runs_dir=tmp_path).stdout
    assert f"finetune     3 of 3, accuracy {100 - MEAN:.2f} ± {DEVIATION:.2f} %, macro-F1" in status
    assert "finetune-seed1" not in status
    assert f"{100 - MEAN:.2f} ± {DEVIATION:.2f} %" in launcher("runs", runs_dir=tmp_path, COLUMNS="160").stdout
    (group,) = json.loads(launcher("status", "seeds", "--json", runs_dir=tmp_path).stdout)["groups"]
    assert group["finished"] == [f"finetune-seed{n}" for n in (1, 2, 3)]


def test_members_with_other_settings_have_no_mean(tmp_path: Path) -> None:
    run = seeded(tmp_path)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("epochs: 1", "epochs: 2", 1))
    done = launcher("report", "seeds", runs_dir=tmp_path)
    assert not any(line.split()[:1] in (["mean"], ["sd"]) for line in done.stdout.splitlines())
    assert "min" in done.stdout
    assert "no mean where the members of a group differ" in done.stdout


def test_runs_side_by_side_and_validation_figures(tmp_path: Path) -> None:
    seeded(tmp_path)
    other = make_run(tmp_path, "plain", "finished")
    finish(other, "finetune", None, validation=0.75)
    done = launcher("report", "plain", "seeds", runs_dir=tmp_path)
    row = next(line.split() for line in done.stdout.splitlines() if "plain/finetune" in line)
    assert row == ["plain/finetune", "valid.", "-", "75.00", "50.00", "-", "-", "1m00s"]
    assert "seeds/finetune (3)" in done.stdout


def test_nothing_to_report_and_an_unknown_run(tmp_path: Path) -> None:
    assert "no runs in" in launcher("report", runs_dir=tmp_path).stdout
    assert launcher("report", "x", runs_dir=tmp_path).returncode == Exit.USAGE


def paper_run(runs_dir: Path, config: str, name: str, *overrides: str, seeds: tuple[int, ...] = ()) -> Path:
    """A run of a config of configs/paper/, not yet trained."""
    run = make_run(runs_dir, name, "finished")
    path = tables.CONFIGS / f"{config}.yaml"
    (run / "config.yaml").write_text(dump_resolved(load_config(path, overrides, name, seeds)))
    write_json(run / "versions.json", {"config": f"configs/paper/{config}.yaml"})
    return run


def compared(*runs: Path) -> dict[tuple[int, str, str], Any]:
    found = compare(tables.load(), [RunDirectory(run) for run in runs])
    return {(each.cell.table, each.cell.row, each.cell.column): each for each in found}


class TestPaper:
    def test_seeds_stand_beside_the_papers_figure(self, tmp_path: Path) -> None:
        run = paper_run(tmp_path, "table2-head-imdb", "mine", seeds=(1, 2, 3))
        for number, error in enumerate(SEED_ERRORS, start=1):
            finish(run, f"finetune-seed{number}", error)
        found = compared(run)
        assert list(found) == [(2, "head-only", "IMDb")]
        (cell,) = found.values()
        assert (cell.run, cell.error.n, cell.differences) == ("mine", 3, ())
        done = launcher("report", "--paper", runs_dir=tmp_path)
        row = next(line.split() for line in done.stdout.splitlines() if line.strip().startswith("head-only"))
        assert row == [
            "head-only",
            "IMDb",
            "5.63",
            f"{MEAN:.2f}",
            "±",
            f"{DEVIATION:.2f}",
            f"{MEAN - 5.63:+.2f}",
            "3",
            "mine",
        ]
        assert "table 2: 1 of 12 figures" in done.stdout
        cells = json.loads(launcher("report", "--paper", "--json", runs_dir=tmp_path).stdout)
        assert len(cells) == len(tables.load().cells)
        assert [cell["ours"]["mean"] for cell in cells if cell["ours"]] == [pytest.approx(MEAN)]

    def test_one_stage_of_a_sweep(self, tmp_path: Path) -> None:
        run = paper_run(tmp_path, "table4-lr2e-5", "table4-lr2e-5")
        finish(run, "finetune-layer_decay0-95", 5.5)
        assert list(compared(run)) == [(4, "lr 2.0e-5", "decay 0.95")]

    def test_what_is_not_the_papers_is_said(self, tmp_path: Path) -> None:
        run = paper_run(
            tmp_path, "table2-head-imdb", "try", "model=all-minilm-l6-v2", "data.subset.train=100", "data.path=/x"
        )
        finish(run, "finetune", 20.0)
        (cell,) = compared(run).values()
        assert set(cell.differences) == {
            "data.subset.train: (not set) -> 100",
            "model: bert-base-uncased -> all-minilm-l6-v2",
        }
        shown = " ".join(launcher("report", "--paper", runs_dir=tmp_path).stdout.split())
        assert "20.00*" in shown
        assert "* try: data.subset.train: (not set) -> 100; model: bert-base-uncased -> all-minilm-l6-v2" in shown

    def test_the_newest_run_counts_and_others_are_no_business_of_the_paper(self, tmp_path: Path) -> None:
        old, new = (paper_run(tmp_path, "table2-head-imdb", name) for name in ("old", "new"))
        finish(old, "finetune", 6.0)
        finish(new, "finetune", 5.0)
        (cell,) = compared(new, old, seeded(tmp_path)).values()
        assert cell.run == "new"


def test_a_run_of_pretraining_shows_its_figures(tmp_path: Path) -> None:
    found = StageResult(
        "pretrain", {}, {"split": "validation", "perplexity": 8.5, "mlm_accuracy": 0.5, "nsp_accuracy": 0.75}
    )
    rows = [row[1:3] for row in result_rows([found])]
    assert rows == [
        ("validation perplexity", "8.50"),
        ("validation MLM accuracy", "50.00 %"),
        ("validation NSP accuracy", "75.00 %"),
    ]
    (said,) = report_view.notes([RunReport("r", None, (found,), ())])
    assert said == "pretrain, validation: perplexity 8.50, MLM accuracy 50.00 %, NSP accuracy 75.00 %"
