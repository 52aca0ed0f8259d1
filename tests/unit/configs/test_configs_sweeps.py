"""`sweep`, `--seeds` and `--folds`: the stages that they stand for, their names and groups, and errors at the user's own lines."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.data import DEFAULT_VALIDATION
from configs.errors import ConfigError
from configs.inits import Init, parse_init
from configs.loader import SHIPPED, dump_resolved, load_config, load_resolved
from configs.schema import Config
from configs.section import STAGE_PATTERN
from launcher.settings import changes, repeated_groups, stage_settings

HEAD = "name: x\nmodel: m\ndata: {dataset: trec, validation: 0.1}\nstages:\n"
Load = Callable[..., Config]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.delenv("BERT4DOC_OVERRIDES", raising=False)
    monkeypatch.chdir(tmp_path)

    def load(stages: str, *overrides: str, **options: object) -> Config:
        path = Path("x.yaml")
        path.write_text(HEAD + stages)
        resolved = load_config(path, overrides, **options)  # type: ignore[arg-type]
        Path("config.yaml").write_text(dump_resolved(resolved))
        assert load_resolved(Path("config.yaml")) == resolved.config
        return resolved.config

    return load


def test_one_stage_per_combination_in_its_place(load: Load) -> None:
    stages = load(
        "  finetune: {epochs: 1, sweep: {lr: [2e-5, 3e-5], seed: [1, 2]}}\n  last: {task: finetune, epochs: 1}\n"
    ).stages
    assert list(stages) == [
        *("finetune-lr2e-5-seed1", "finetune-lr2e-5-seed2", "finetune-lr3e-5-seed1", "finetune-lr3e-5-seed2", "last")
    ]
    assert [stage.lr for stage in stages.values()] == [2e-5, 2e-5, 3e-5, 3e-5, 2e-5]
    assert [stage.seed for stage in stages.values()] == [1, 2, 1, 2, None]


@pytest.mark.parametrize(
    ("sweep", "names", "groups"),
    [
        ("seed: [1, 2]", ["f-seed1", "f-seed2"], ["f", "f"]),
        ("lr: [1.0, 1.5e-05, 3e2, 0.0002]", ["f-lr1", "f-lr1-5e-5", "f-lr300", "f-lr2e-4"], ["f"] * 4),
        ("layer_decay: [0.95]", ["f-layer_decay0-95"], ["f"]),
        ("init: [model, pretrain@20]", ["f-init-model", "f-init-pretrain-20"], ["f", "f"]),
        ("truncation.head: [8, 9]", ["f-head8", "f-head9"], ["f", "f"]),
        ("truncation: {head: [8, 9]}", ["f-head8", "f-head9"], ["f", "f"]),
        ("layers: [all, [0, 1]]", ["f-layers-all", "f-layers0-1"], ["f", "f"]),
        ("dropout: [null, 0.1]", ["f-dropout-none", "f-dropout0-1"], ["f", "f"]),
        ("seed: [7], lr: [1, 2]", ["f-lr1-seed7", "f-lr2-seed7"], ["f-lr1", "f-lr2"]),
    ],
)
def test_names_and_groups(load: Load, sweep: str, names: list[str], groups: list[str]) -> None:
    pretrain = "  pretrain: {max_steps: 40, save_model_every: 20}\n"
    sweep = sweep.replace("lr: [1, 2]", "lr: [1.0, 2.0]").replace("3e2", "300.0")
    stages = load(f"{pretrain}  f: {{task: finetune, epochs: 1, sweep: {{{sweep}}}}}\n").stages
    assert list(stages)[1:] == names
    assert [stage.group for stage in stages.values()][1:] == groups


def test_long_and_equal_names_are_valid_and_different(load: Load) -> None:
    corpora = ", ".join(
        f"{{dataset: trec, path: /a/very/long/path/to/a/copy/of/the/data/set/number/{n}}}" for n in range(3)
    )
    stages = load(f"  finetune: {{epochs: 1, sweep: {{data: [{corpora}], seed: [1, 2]}}}}\n").stages
    assert len(stages) == 6
    config = load("  finetune: {epochs: 1, sweep: {init: ['other/a', 'other-a/b', 'other/a@0']}}\n")
    assert len(config.stages) == 3
    assert all(re.fullmatch(STAGE_PATTERN, name) for name in [*stages, *config.stages])


def test_a_key_of_the_data_takes_the_top_level_data_along(load: Load) -> None:
    config = load("  finetune: {epochs: 1, sweep: {data.validation: [0.2, 0.3]}}\n", "data.labels=fine")
    found = [config.stage_data(name) for name in config.stages]
    assert [(data.validation, data.labels) for data in found] == [(0.2, "fine"), (0.3, "fine")]


def test_command_line_reaches_the_stage_before_it_is_expanded(load: Load) -> None:
    config = load("  finetune: {epochs: 1}\n", "finetune.lr=1e-4", "finetune.sweep.truncation.head=[7, 9]")
    assert [(stage.lr, stage.truncation.head) for stage in config.stages.values()] == [(1e-4, 7), (1e-4, 9)]  # type: ignore[union-attr]


def test_seeds_repeat_every_classifier_and_no_pretraining(load: Load) -> None:
    config = load("  pretrain: {max_steps: 40}\n  finetune: {epochs: 1, sweep: {seed: [9]}}\n", seeds=(1, 2))
    assert list(config.stages) == ["pretrain", "finetune-seed1", "finetune-seed2"]
    assert [config.stage_seed(name) for name in config.stages] == [42, 1, 2]
    assert [config.stage_init(name) for name in config.stages] == ["model", "pretrain", "pretrain"]


def test_a_seed_goes_on_with_the_same_seed(load: Load) -> None:
    stages = "  first: {task: finetune, epochs: 1}\n  second: {task: finetune, epochs: 1, init: first}\n"
    config = load(stages, "second.sweep.lr=[1e-5, 2e-5]", seeds=(1, 2))
    assert {name: config.stage_init(name) for name in list(config.stages)[2:]} == {
        f"second-lr{lr}-seed{seed}": f"first-seed{seed}" for lr in ("1e-5", "2e-5") for seed in (1, 2)
    }


def test_a_group_by_hand_stays(load: Load) -> None:
    config = load("  finetune: {epochs: 1, group: mine, sweep: {lr: [1e-5, 2e-5]}}\n")
    assert config.members("mine") == tuple(config.stages)


@pytest.mark.parametrize(
    ("stage", "line"),
    [
        ("sweep: 3", "stages.finetune.sweep: needs keys of the stage with lists of values, such as {seed: [1, 2, 3]}"),
        ("sweep: {}", "stages.finetune.sweep: needs keys of the stage with lists of values, such as {seed: [1, 2, 3]}"),
        ("sweep: {lr: 1}", "stages.finetune.sweep.lr: needs a list of values, such as [1, 2, 3]"),
        ("sweep: {lr: []}", "stages.finetune.sweep.lr: needs a list of values, such as [1, 2, 3]"),
        ("sweep: {seed: [1, 2, 1]}", "stages.finetune.sweep.seed: names a value twice"),
        ("sweep: {task: [finetune]}", "stages.finetune.sweep.task: cannot be swept; name a key of the stage, such as lr or "
         "truncation.head"),
        ("sweep: {seed: [1, -2]}", "stages.finetune.sweep.seed[1]: -2; allowed: a whole number of at least 0 and below "
         "2147483648, or null"),
        ("sweep: {lrr: [1.0, 2.0]}", "stages.finetune.sweep.lrr[0]: unknown key; did you mean 'lr'?"),
        ("lr: -1.0, sweep: {seed: [1, 2]}", "stages.finetune.lr: -1.0; allowed: a number above 0"),
        ("sweep: {truncation.head: [8, 200]}", "stages.finetune.sweep.truncation.head[1]: 200 must be below max_length - 2 = "
         "126; leave truncation out to keep the first 126"),
        ("early_stopping: {patience: 1}, data: {dataset: trec, validation: 0}, sweep: {seed: [1, 2]}",
         "stages.finetune.early_stopping: needs validation rows, and stages.finetune.data.validation is 0"),
    ],
)  # fmt: skip
def test_an_error_stands_once_at_the_users_own_line(load: Load, stage: str, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(f"  finetune:\n    {{epochs: 1, {stage}}}\n")
    lines = error.value.message.split("\n")
    assert lines[0] == f"x.yaml:6: {line}"
    assert all("lrr[" in each for each in lines[1:])


def test_too_many_members(load: Load) -> None:
    numbers = ", ".join(map(str, range(15)))
    with pytest.raises(ConfigError, match="stands for 225 stages; at most 200 are allowed"):
        load(f"  finetune: {{epochs: 1, sweep: {{seed: [{numbers}], batch: [{numbers.replace('0,', '16,', 1)}]}}}}\n")


@pytest.mark.parametrize(
    ("later", "said"),
    [
        ("init: first", "'first' stands for 2 stages; name one of them: first-lr1-0, first-lr2-0"),
        ("init: frist", "'frist' is no earlier stage; allowed: model, first-lr1-0, first-lr2-0"),
        ("init: x/first", "'x' is this run; name its stage alone: first"),
        ("init: a/b/c", "'a/b/c' names no weights; allowed: model, STAGE"),
        ("init: first@", "'first@' names no weights"),
    ],
)
def test_what_init_may_not_say(load: Load, later: str, said: str) -> None:
    stages = f"  first: {{task: pretrain, max_steps: 9, sweep: {{lr: [1.0, 2.0]}}}}\n  f: {{task: finetune, epochs: 1, {later}}}\n"
    with pytest.raises(ConfigError) as error:
        load(stages)
    assert said.replace("lr1-0", "lr1").replace("lr2-0", "lr2") in error.value.message


@pytest.mark.parametrize(
    ("init", "said"),
    [
        ("p@10", "step 10 lies beyond the end of stage 'p' (9 steps)"),
        ("c@1", "stage 'c' keeps no models of single steps; only pre-training stages do"),
    ],
)
def test_a_step_that_there_will_never_be(load: Load, init: str, said: str) -> None:
    stages = "  p: {task: pretrain, max_steps: 9}\n  c: {task: finetune, epochs: 1}\n"
    with pytest.raises(ConfigError) as error:
        load(f"{stages}  f: {{task: finetune, epochs: 1, init: {init}}}\n")
    assert said in error.value.message


def test_the_nearest_pretraining_must_be_a_single_one(load: Load) -> None:
    stages = "  pretrain: {max_steps: 9, sweep: {lr: [1.0, 2.0]}}\n  finetune: {epochs: 1}\n"
    with pytest.raises(
        ConfigError, match=r"finetune\.init: missing; it could start from any of pretrain-lr1, pretrain-lr2"
    ):
        load(stages)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model", Init()),
        ("pretrain", Init("pretrain")),
        ("pretrain@20000", Init("pretrain", step=20000)),
        ("yahoo.v2/pretrain", Init("pretrain", "yahoo.v2")),
        ("yahoo/pretrain@0", Init("pretrain", "yahoo", 0)),
        ("../pretrain", None),
        ("yahoo/../x", None),
        ("pretrain@-1", None),
        ("", None),
    ],
)
def test_forms_of_init(text: str, expected: Init | None) -> None:
    assert parse_init(text) == expected
    assert expected is None or str(expected) == text


def test_step_0_is_what_the_stage_started_from(load: Load) -> None:
    config = load(
        "  a: {task: pretrain, max_steps: 9, init: other/p@3}\n  b: {task: pretrain, max_steps: 9, init: a@0}\n"
        "  c: {task: finetune, epochs: 1, init: b@0}\n  d: {task: finetune, epochs: 1, init: b}\n"
    )
    assert [str(config.stage_start(name)) for name in "abcd"] == ["other/p@3", "other/p@3", "other/p@3", "b"]


def test_long_groups_stay_apart_and_keep_their_names(load: Load) -> None:
    """Both corpora are the same in the first 64 characters; the group of one does not depend on the others."""
    corpora = [f"{{dataset: trec, path: /a/very/long/path/to/a/copy/of/the/data/set/number/{n}}}" for n in range(3)]

    def groups(chosen: list[str]) -> list[str]:
        stages = load(f"  finetune: {{epochs: 1, sweep: {{data: [{', '.join(chosen)}], seed: [1, 2]}}}}\n").stages
        assert len(stages) == 2 * len(chosen)
        return [str(stage.group) for stage in stages.values()]

    found = groups(corpora)
    assert [found.count(group) for group in found] == [2] * 6
    assert found[::2] == found[1::2]
    assert all(re.fullmatch(STAGE_PATTERN, group) for group in found)
    assert groups(corpora[1:]) == found[2:]
    assert groups(corpora[2:]) == found[4:]


def test_equal_groups_stay_apart(load: Load) -> None:
    stages = load(
        "  f: {task: finetune, epochs: 1, sweep: {init: ['other/a', 'other-a'], seed: [1, 2]}}\n".replace(
            "'other-a'", "'other/a@0'"
        )
    )
    assert len({stage.group for stage in stages.stages.values()}) == 2
    colliding = load("  f: {task: finetune, epochs: 1, sweep: {init: ['a-b/c', 'a/b-c'], seed: [1, 2]}}\n")
    found = [stage.group for stage in colliding.stages.values()]
    assert found[0] == found[1] != found[2] == found[3]


def test_a_member_knows_the_swept_stage(load: Load) -> None:
    config = load(
        "  finetune: {epochs: 1, group: mine, sweep: {lr: [1e-5, 2e-5]}}\n  last: {task: finetune, epochs: 1}\n"
    )
    assert [stage.swept_from for stage in config.stages.values()] == ["finetune", "finetune", None]


MULTITASK = "  multitask: {data_sets: {a: {dataset: trec}, b: {dataset: imdb}}, epochs: 1}\n"


def test_without_init_a_sweep_goes_on_from_the_nearest_one_with_the_same_choices(load: Load) -> None:
    config = load(f"  pretrain: {{max_steps: 9}}\n{MULTITASK}  f: {{task: finetune, epochs: 1}}\n", seeds=(1, 2))
    assert {name: config.stage_init(name) for name in config.stages} == {
        "pretrain": "model",
        **{f"multitask-seed{seed}": "pretrain" for seed in (1, 2)},
        **{f"f-seed{seed}": f"multitask-seed{seed}" for seed in (1, 2)},
    }
    single = load(
        f"{MULTITASK}  p: {{task: pretrain, max_steps: 9}}\n  f: {{task: finetune, epochs: 1}}\n", seeds=(1, 2)
    )
    assert {single.stage_init(f"f-seed{seed}") for seed in (1, 2)} == {"p"}, "a nearer stage that is not swept"


def test_swept_pretraining_starts_from_what_stands_before_it(load: Load) -> None:
    config = load(
        "  p: {task: pretrain, max_steps: 9, sweep: {lr: [1.0, 2.0]}}\n  q: {task: pretrain, max_steps: 9, init: p-lr1}\n"
    )
    assert [config.stage_init(name) for name in config.stages] == ["model", "model", "p-lr1"]
    stages = "  a: {task: pretrain, max_steps: 9}\n  p: {task: pretrain, max_steps: 9, sweep: {seed: [1, 2]}}\n"
    config = load(f"{stages}  f: {{task: finetune, epochs: 1}}\n", seeds=(1, 2))
    assert [config.stage_init(name) for name in config.stages] == ["model", "a", "a", "p-seed1", "p-seed2"]


def test_folds_make_a_stage_of_each_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BERT4DOC_OVERRIDES", raising=False)
    plain, folded = (load_config(SHIPPED / "trec.yaml", folds=folds).config for folds in (None, 5))
    names = [f"finetune-fold{fold}" for fold in range(5)]
    assert [name for name in folded.stages if name != "pretrain"] == names
    assert folded.stages["pretrain"] == plain.stages["pretrain"]
    assert folded.data == plain.data
    assert repeated_groups(folded) == ("finetune",)
    assert changes(stage_settings(plain, "pretrain"), folded, "pretrain") == []
    for fold, name in enumerate(names):
        data = folded.stage_data(name)
        assert (data.folds, data.fold, data.validation) == (5, fold, DEFAULT_VALIDATION)
        assert "validation" not in data.model_fields_set


def test_folds_leave_multitask_alone(load: Load) -> None:
    config = load(f"{MULTITASK}  f: {{task: finetune, epochs: 1}}\n", folds=3)
    assert list(config.stages) == ["multitask", "f-fold0", "f-fold1", "f-fold2"]
    assert [config.stage_init(name) for name in config.stages] == ["model", *["multitask"] * 3]
    assert config.stages["multitask"].data_sets["a"].folds is None  # type: ignore[union-attr]
