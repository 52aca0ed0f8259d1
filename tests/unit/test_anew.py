"""Which stages a changed config trains anew, which it refuses to change, and that nothing is lost, on run directories made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.schema import Config
from launcher import settings
from launcher.anew import Anew, describe, find_anew, remember_removed, set_aside
from tests.cli_runs import write_json

STAGES = {
    "pretrain": {"task": "pretrain", "max_steps": 100},
    "finetune": {"task": "finetune", "epochs": 1},
    "more": {"task": "finetune", "epochs": 2, "init": "finetune"},
    "plain": {"task": "finetune", "epochs": 1, "init": "model", "data": {"dataset": "ag_news"}},
    "zero": {"task": "finetune", "epochs": 1, "init": "pretrain@0"},
}


def config(stages: dict[str, Any] = STAGES, **top: Any) -> Config:
    return Config.model_validate({"name": "x", "model": "m", "data": {"dataset": "trec"}, "stages": stages, **top})


def changed(**stages: dict[str, Any]) -> dict[str, Any]:
    return {name: stage | stages.get(name, {}) for name, stage in STAGES.items()}


def finished(run: Path, *stages: str) -> Path:
    for stage in stages:
        write_json(run / stage / "done.json", {"step": 1, "of": stage})
    return run


def anew(run: Path, new: Config, *rerun: str, old: Config | None = None) -> dict[str, tuple[str, ...]]:
    return {each.stage: each.reasons for each in find_anew(run, old or config(), new, rerun)}


@pytest.mark.parametrize(
    ("stage", "new", "keys"),
    [
        ("finetune", {}, []),
        ("finetune", {"seed": 1}, ["seed"]),
        ("finetune", {"seed": 42, "stages": changed(finetune={"seed": 42})}, []),
        ("finetune", {"stages": changed(finetune={"seed": 7})}, ["stages.finetune.seed"]),
        ("finetune", {"stages": changed(finetune={"group": "g"})}, []),
        ("finetune", {"stages": changed(finetune={"truncation": {"head": 9}})}, ["stages.finetune.truncation.head"]),
        ("finetune", {"stages": changed(finetune={"data": {"dataset": "trec"}})}, []),
        ("finetune", {"train": {"log_every": 1, "checkpoint_every": 7, "keep_checkpoints": 9}}, []),
        ("finetune", {"launch": {"startup_timeout_s": 1, "stop_grace_s": 2}}, []),
        ("finetune", {"data": {"dataset": "trec", "labels": "fine"}}, ["data.labels"]),
        ("finetune", {"amp": {"level": "O2"}}, ["amp.level"]),
        ("finetune", {"model": "n"}, ["model"]),
        ("finetune", {"data": {"dataset": "trec", "validation": 0.2}}, ["data.validation"]),
        ("pretrain", {"data": {"dataset": "trec", "validation": 0.2}}, []),
        ("plain", {"data": {"dataset": "trec", "validation": 0.2}}, []),
        ("zero", {"stages": changed(zero={"init": "model"})}, []),
        ("finetune", {"stages": changed(finetune={"init": "other/pretrain@5"})}, ["stages.finetune.init"]),
    ],
)
def test_which_changes_count_for_a_stage(stage: str, new: dict[str, Any], keys: list[str]) -> None:
    found = settings.changes(settings.stage_settings(config(), stage), config(**new), stage)
    assert [key for key, _, _ in found] == keys


def test_a_finished_stage_with_other_settings_and_all_that_starts_from_it(tmp_path: Path) -> None:
    run = finished(tmp_path, *STAGES)
    assert anew(run, config()) == {}
    new = config(changed(pretrain={"lr": 1e-4}))
    assert anew(run, new) == {
        "pretrain": ("stages.pretrain.lr: 2e-05 -> 0.0001",),
        "finetune": ("starts from pretrain",),
        "more": ("starts from finetune",),
    }
    assert set(anew(run, config(changed(finetune={"lr": 1e-4})))) == {"finetune", "more"}
    assert set(anew(run, config(data={"dataset": "trec", "validation": 0.5}))) == {"finetune", "more", "zero"}


def test_what_has_not_begun_is_nothing_to_train_anew(tmp_path: Path) -> None:
    run = finished(tmp_path, "plain")
    (run / "finetune").mkdir()
    (run / "finetune" / "metrics.jsonl").touch()
    assert anew(run, config(changed(finetune={"lr": 1e-4}))) == {}


def test_an_unfinished_stage_is_never_thrown_away_unasked(tmp_path: Path) -> None:
    run = finished(tmp_path, "pretrain")
    (run / "finetune" / "checkpoints" / "step-00000005").mkdir(parents=True)
    new = config(changed(finetune={"lr": 1e-4, "epochs": 3}))
    with pytest.raises(ConfigError) as refused:
        anew(run, new)
    assert "stages.finetune.epochs: 1 -> 3\n" in str(refused.value)
    assert "stages.finetune.lr: 2e-05 -> 0.0001" in str(refused.value)
    assert "--rerun finetune" in refused.value.hint
    assert set(anew(run, new, "finetune")) == {"finetune"}
    assert set(anew(run, config(changed(pretrain={"lr": 1e-4})))) == {"pretrain", "finetune"}


@pytest.mark.parametrize("launch", [{"threads_per_rank": 2}, {"env": {"OMP_DYNAMIC": "x"}}])
def test_what_changes_the_last_bits_is_refused_halfway_only(tmp_path: Path, launch: dict[str, Any]) -> None:
    run = finished(tmp_path, "pretrain")
    assert anew(run, config(launch=launch)) == {}
    (run / "finetune" / "checkpoints" / "step-00000005").mkdir(parents=True)
    with pytest.raises(ConfigError, match=f"launch.{next(iter(launch))}"):
        anew(run, config(launch=launch))


def test_rerun_takes_what_starts_from_it_along(tmp_path: Path) -> None:
    run = finished(tmp_path, *STAGES)
    assert anew(run, config(), "finetune") == {"finetune": ("--rerun",), "more": ("starts from finetune",)}


def test_a_stage_that_left_the_config_counts_again_when_it_comes_back(tmp_path: Path) -> None:
    run = finished(tmp_path, *STAGES)
    without = config({name: stage for name, stage in STAGES.items() if name not in ("plain", "zero")})
    assert anew(run, without) == {}
    remember_removed(run, config(), without)
    assert anew(run, config(), old=without) == {}
    assert anew(run, config(changed(plain={"lr": 1e-4})), old=without) == {
        "plain": ("stages.plain.lr: 2e-05 -> 0.0001",)
    }
    (run / "zero" / "settings.json").unlink()
    assert set(anew(run, config(), old=without)) == {"zero"}


def test_removing_what_a_finished_stage_starts_from_changes_that_stage(tmp_path: Path) -> None:
    run = finished(tmp_path, *STAGES)
    without = config({name: STAGES[name] for name in ("finetune", "more")})
    assert anew(run, without) == {
        "finetune": ("stages.finetune.init: pretrain -> model",),
        "more": ("starts from finetune",),
    }


def test_nothing_is_lost_when_stages_are_set_aside(tmp_path: Path) -> None:
    run = finished(tmp_path, *STAGES)
    for number in ("001", "002"):
        found = find_anew(run, config(), config(), ("finetune",))
        assert [each.kept_in for each in found] == [f"superseded/finetune-{number}", f"superseded/more-{number}"]
        set_aside(run, found)
        assert not (run / "finetune").exists()
        assert '"of": "more"' in (run / "superseded" / f"more-{number}" / "done.json").read_text()
        finished(run, "finetune", "more")
    assert sorted(path.name for path in run.glob("*/done.json")) == ["done.json"] * 5


def test_a_crash_between_two_moves_leaves_no_result_without_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished(tmp_path, *STAGES)
    found = find_anew(run, config(), config(changed(pretrain={"lr": 1e-4})))
    moved: list[str] = []

    def rename(source: Path, target: Path) -> None:
        if len(moved) == 2:
            raise KeyboardInterrupt
        moved.append(source.name)
        source.replace(target)

    monkeypatch.setattr("os.rename", rename)
    with pytest.raises(KeyboardInterrupt):
        set_aside(run, found)
    assert moved == ["more", "finetune"]
    assert set(anew(run, config(changed(pretrain={"lr": 1e-4})))) == {"pretrain"}


def test_stages_with_the_same_reason_share_a_line() -> None:
    found = [Anew(f"s{n}", ("starts from pretrain",), f"superseded/s{n}-001") for n in range(30)]
    (line,) = describe(found, ["s0"])
    assert line.startswith("stages s0, s1, s2, s3 and 26 more: trained anew (starts from pretrain)")
    seeds = [Anew(f"s{n}", (f"stages.s{n}.lr: 1.0 -> 2.0",), f"superseded/s{n}-001") for n in (1, 2)]
    assert describe(seeds, ["s1"])[0].startswith("stages s1, s2: trained anew (lr: 1.0 -> 2.0)")
    assert "(stages.s1.lr: 1.0 -> 2.0)" in describe(seeds[:1], ["s1"])[0]
    assert "but not in this launch" in describe(found[:1], [])[0]
