"""Which stages a changed config trains anew, which it refuses to change, and that nothing is lost, on run directories made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.schema import Config
from launcher import continuation, settings
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


def test_a_removed_stage_does_not_come_back_with_a_start_that_has_changed(tmp_path: Path) -> None:
    """Seeds leave the config, then pre-training changes, then the seeds return: what started from the old weights is gone."""
    run = finished(tmp_path, *STAGES)
    only = config({name: STAGES[name] for name in ("pretrain", "plain")})
    remember_removed(run, config(), only)
    new = config({**only.model_dump()["stages"], "pretrain": {**STAGES["pretrain"], "lr": 1e-4}})
    found = find_anew(run, only, new)
    assert [(each.stage, each.removed, each.reasons[-1]) for each in found] == [
        ("pretrain", False, "stages.pretrain.lr: 2e-05 -> 0.0001"),
        ("finetune", True, "starts from pretrain"),
        ("more", True, "starts from finetune"),
    ]
    assert (
        "stage 'more': no longer counts (starts from finetune); the old result is kept"
        in describe(found, ["pretrain"])[-1]
    )
    set_aside(run, found)
    finished(run, "pretrain")
    assert sorted(path.parent.name for path in run.glob("*/done.json")) == ["plain", "pretrain", "zero"]


def test_a_stage_that_leaves_the_config_together_with_the_change(tmp_path: Path) -> None:
    run = finished(tmp_path, *STAGES)
    new = config({"pretrain": {**STAGES["pretrain"], "lr": 1e-4}, "plain": STAGES["plain"]})
    assert set(anew(run, new)) == {"pretrain", "finetune", "more"}


def test_no_stage_alone_whose_start_is_trained_anew(tmp_path: Path) -> None:
    run = finished(tmp_path, "pretrain")
    assert continuation.find_starts(config(), run, ("finetune",), ()) == {}
    with pytest.raises(
        ConfigError, match="--stage finetune: it starts from stage 'pretrain', which would be trained anew"
    ) as refused:
        continuation.find_starts(config(), run, ("finetune",), (), {"pretrain"})
    assert "--stage pretrain first" in refused.value.hint
    assert continuation.find_starts(config(), run, ("pretrain", "finetune"), (), {"pretrain", "finetune"}) == {}


LEAVING_OUT: dict[str, Any] = {
    "pretrain": {"task": "pretrain", "max_steps": 9, "leave_out_tests": True},
    "f": {"task": "finetune", "epochs": 1, "data": {"dataset": "tsv", "path": "/d"}},
}


@pytest.mark.parametrize(
    ("data", "counts"),
    [
        ({"validation": 0.2}, False),
        ({"near_duplicates": "drop"}, False),
        ({"subset": {"per_class": 5}}, False),
        ({"folds": 5, "fold": 1}, False),
        ({"overlap": "drop"}, False),
        ({"path": "/e"}, True),
        ({"files": {"test": "t.tsv"}}, True),
        ({"columns": {"text": "body"}}, True),
        ({"columns": {"text_pair": "title"}}, True),
        ({"encoding": "latin-1"}, True),
        ({"on_bad_row": "skip", "max_bad_rows": 0.5}, True),
    ],
)
def test_only_what_decides_a_test_split_counts_for_what_leaves_it_out(data: dict[str, Any], counts: bool) -> None:
    new = config({**LEAVING_OUT, "f": {**LEAVING_OUT["f"], "data": {**LEAVING_OUT["f"]["data"], **data}}})
    found = settings.changes(settings.stage_settings(config(LEAVING_OUT), "pretrain"), new, "pretrain")
    assert [key for key, _, _ in found] == (["stages.pretrain.left_out_tests"] if counts else [])


def test_a_repeated_or_reordered_test_split_is_the_same() -> None:
    more = {**LEAVING_OUT, "g": {"task": "finetune", "epochs": 2}, "h": LEAVING_OUT["f"]}
    turned = {name: more[name] for name in ("pretrain", "h", "g", "f")}
    old = settings.stage_settings(config(more), "pretrain")
    assert settings.changes(old, config(turned), "pretrain") == []
    other = {**more, "i": {**LEAVING_OUT["f"], "data": {"dataset": "tsv", "path": "/x", "files": {"test": "t.tsv"}}}}
    (change,) = settings.changes(old, config(other), "pretrain")
    assert settings.shown(change) == "stages.pretrain.left_out_tests: (none) -> tsv /x files.test=t.tsv"


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        ({"folds": 5, "fold": 1}, []),
        ({"labels": "fine"}, []),
        ({"subset": {"test": 5}}, []),
        ({"subset": {"train": 5}, "labels": "fine"}, ["data.subset.train", "data.labels"]),
        ({"subset": {"per_class": 5}, "folds": 5, "fold": 1}, ["data.subset.per_class", "data.folds", "data.fold"]),
    ],
)
def test_what_pretraining_sees_of_its_data(data: dict[str, Any], keys: list[str]) -> None:
    old = settings.stage_settings(config(), "pretrain")
    found = settings.changes(old, config(data={"dataset": "trec", **data}), "pretrain")
    assert {key for key, _, _ in found} == set(keys)


def repetitions(*seeds: int, second: dict[str, Any] | None = None, **changes: Any) -> tuple[str, ...]:
    """The repeated groups of m-seed* and f-seed*, each f from the m of its seed; the last m with changes."""
    stages: dict[str, Any] = {
        f"m-seed{seed}": {"task": "pretrain", "max_steps": 9, "seed": seed, "group": "m", "init": "model"}
        for seed in seeds
    }
    stages[f"m-seed{seeds[-1]}"] |= changes
    for seed in seeds:
        stages[f"f-seed{seed}"] = {"task": "finetune", "epochs": 1, "seed": seed, "group": "f", "init": f"m-seed{seed}"}
    stages[f"f-seed{seeds[-1]}"] |= second or {}
    return settings.repeated_groups(config(stages))


def test_chains_of_repetitions_are_repetitions() -> None:
    assert repetitions(1, 2) == ("m", "f")
    assert repetitions(1, 2, lr=1e-3) == (), "the second chain starts from other weights"
    assert repetitions(1, 2, second={"init": "model"}) == ("m",)
    assert repetitions(1, 2, second={"init": "m-seed2@0"}) == ("m",)
    assert repetitions(1, 2, second={"lr": 1e-3}) == ("m",)


def test_a_swept_stage_is_named_without_others_that_begin_like_it() -> None:
    ours = {f"f-seed{n}": {"task": "finetune", "epochs": 1, "group": "f", "swept_from": "f"} for n in (1, 2)}
    theirs = {f"f-x-seed{n}": {"task": "finetune", "epochs": 1, "group": "f-x", "swept_from": "f-x"} for n in (1, 2)}
    lrs = {f"g-lr{n}-seed1": {"task": "finetune", "epochs": 1, "group": f"g-lr{n}", "swept_from": "g"} for n in (1, 2)}
    every = config({**ours, **theirs, **lrs})
    assert continuation.choose_stages(every, "f") == tuple(ours)
    assert continuation.choose_stages(every, "f-x") == tuple(theirs)
    assert continuation.choose_stages(every, "g") == tuple(lrs)
    assert continuation.choose_stages(every, "g-lr2") == ("g-lr2-seed1",)
    with pytest.raises(ConfigError, match="--rerun g-lr: no such stage"):
        continuation.choose_stages(every, "g-lr", "--rerun")
