"""Multi-task fine-tuning in one process: the order of data sets, heads that stay untouched, folders, and the head a stage starts with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.tiny import CLASSES, write_bert, write_tsv
from tests.support.training import make_run

paddle = pytest.importorskip("paddle", reason="needs Paddle")

from configs.errors import ConfigError, DataError  # noqa: E402
from configs.loader import load_resolved  # noqa: E402
from configs.schema import DataConfig, FinetuneStage, MultitaskStage  # noqa: E402
from trainers.data.vocabulary import load_vocabulary  # noqa: E402
from trainers.engine.ranks import Ranks  # noqa: E402
from trainers.engine.window import Window  # noqa: E402
from trainers.exporting.source import open_trained, write_one_head  # noqa: E402
from trainers.model.batch import make_token_batch  # noqa: E402
from trainers.model.folder import (  # noqa: E402
    Head,
    ModelSource,
    build_model,
    build_multitask,
    load_folder,
    read_bert_config,
    read_head_file,
    save_folder,
)
from trainers.model.heads import OneHead  # noqa: E402
from trainers.optim.adamw import adamw_state, load_adamw_state, make_adamw  # noqa: E402
from trainers.optim.groups import make_groups  # noqa: E402
from trainers.stages.labelled import LabelledData  # noqa: E402
from trainers.stages.starting_head import choose_head  # noqa: E402
from trainers.tasks.multitask import MultitaskTask  # noqa: E402
from trainers.trained import load_classifier  # noqa: E402
from trainers.worker import read_prepared  # noqa: E402

ROWS = {"a": 40, "b": 17, "c": 5}
LABELS = {"a": CLASSES, "b": CLASSES[:2], "c": CLASSES[:2]}
HELD_OUT = 3
STEPS = {"a": 7, "b": 3, "c": 1}  # ceil of 37/6, 14/6 and 2/6
IDS = np.array([2, 7, 8, 9, 3])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("multitask")
    write_bert(path / "bert")
    for name, rows in ROWS.items():
        write_tsv(path / name / "train.tsv", rows, seed=1, classes=LABELS[name])
    data_sets = {name: {"dataset": "tsv", "path": str(path / name), "validation": HELD_OUT} for name in ROWS}
    stage = {"data_sets": data_sets, "epochs": 1, "batch": 6, "max_length": 16, "dropout": 0.0}
    make_run(path / "run", {"model": str(path / "bert"), "stages": {"multitask": stage}}, path / "cache")
    return path


def stage_of(folder: Path) -> MultitaskStage:
    stage = load_resolved(folder / "run" / "config.yaml").stages["multitask"]
    assert isinstance(stage, MultitaskStage)
    return stage


def make_task(folder: Path, seed: int = 3, draws: dict[str, int] = STEPS) -> MultitaskTask:
    facts, stage = read_prepared(folder / "run")["stages"]["multitask"]["data_sets"], stage_of(folder)
    vocabulary = load_vocabulary(folder / "bert" / "vocab.txt")
    data = {name: LabelledData(facts[name], stage.data_sets[name], stage, vocabulary, seed) for name in ROWS}
    return MultitaskTask({name: each.training_task(True) for name, each in data.items()}, draws, seed)


def owner(ids: np.ndarray) -> str:
    """The data set of a batch by hand: a has ids 0 to 39, b 40 to 56, c 57 to 61."""
    (found,) = {"a" if each < 40 else "b" if each < 57 else "c" for each in ids.tolist()}
    return found


def epoch_of(task: MultitaskTask, epoch: int) -> list[np.ndarray]:
    return [task.batch_ids(epoch, index) for index in range(task.steps_per_epoch)]


def test_a_proportional_epoch_has_every_row_once(folder: Path) -> None:
    task = make_task(folder)
    assert (task.terms, task.num_examples, task.steps_per_epoch) == (("a", "b", "c"), 37 + 14 + 2, 11)
    seen = []
    for epoch in range(3):
        batches = epoch_of(task, epoch)
        owners = [owner(batch) for batch in batches]
        assert {name: owners.count(name) for name in ROWS} == STEPS
        rows = np.concatenate(batches)
        assert len(rows) == len(set(rows.tolist())) == 53
        seen.append((owners, rows.tolist()))
    assert len({tuple(owners) for owners, _ in seen}) == 3, "each epoch has an order of its own"
    assert len({tuple(sorted(rows)) for _, rows in seen}) == 1, "validation rows are never trained on"
    assert [owner(batch) for batch in epoch_of(make_task(folder, seed=4), 0)] != seen[0][0]


def test_any_step_is_reached_without_the_others(folder: Path) -> None:
    draws = {"a": 2, "b": 4, "c": 5}
    straight = make_task(folder, draws=draws)
    expected = {(epoch, index): batch for epoch in range(4) for index, batch in enumerate(epoch_of(straight, epoch))}
    for (epoch, index), batch in reversed(expected.items()):
        np.testing.assert_array_equal(make_task(folder, draws=draws).batch_ids(epoch, index), batch)


def test_by_weight_every_data_set_goes_round_in_epochs_of_its_own(folder: Path) -> None:
    """b is drawn 4 times an epoch and has 3 batches: its own epochs end in the middle of others, and none loses a row."""
    task = make_task(folder, draws={"a": 2, "b": 4, "c": 5})
    assert task.steps_per_epoch == 11
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in ROWS}
    for epoch in range(6):
        batches = epoch_of(task, epoch)
        assert [sum(owner(batch) == name for batch in batches) for name in ROWS] == [2, 4, 5]
        for batch in batches:
            drawn[owner(batch)].append(batch)
    for name, steps in STEPS.items():
        rounds = [drawn[name][start : start + steps] for start in range(0, len(drawn[name]) - steps + 1, steps)]
        orders = [tuple(np.concatenate(each).tolist()) for each in rounds]
        assert len({tuple(sorted(order)) for order in orders}) == 1
        assert all(len(order) == len(set(order)) == ROWS[name] - HELD_OUT for order in orders)
        if name != "c":  # 2 rows have only 2 orders
            assert len(set(orders)) == len(orders) > 0


def test_batches_carry_the_labels_and_lengths_of_their_data_set(folder: Path) -> None:
    task = make_task(folder)
    for index, ids in enumerate(epoch_of(task, 1)):
        name = owner(ids)
        lines = (folder / name / "train.tsv").read_text().splitlines()[1:]
        rows = ids - {"a": 0, "b": 40, "c": 57}[name]
        batch = task.micro_batch(1, 11 + index, ids)
        assert batch.batch.labels_D is not None
        found = [CLASSES[label] for label in batch.batch.labels_D.tolist()]
        assert found == [lines[row].split("\t")[1] for row in rows]
        assert batch.counts == tuple(float(len(ids)) if each == name else 0.0 for each in ROWS)
        words = [min(len(lines[row].split("\t")[0].split()) + 2, 16) for row in rows]
        assert task.lengths(1, ids).tolist() == words
        stand_in = task.micro_batch(1, 11 + index, ids[:0])
        assert (set(stand_in.counts), stand_in.num_cells, stand_in.task) == ({0.0}, 0, batch.task)


def test_only_the_head_of_the_batch_changes(folder: Path) -> None:
    """With weight decay and moments of earlier steps, the other heads and their moments keep every bit."""
    task, stage = make_task(folder), stage_of(folder)
    model = build_multitask(stage, read_bert_config(folder / "bert"), {"a": 3, "b": 2, "c": 2})
    load_folder(model, folder / "bert")
    parameters = dict(model.named_parameters())
    optimizer = make_adamw(parameters, make_groups(parameters, 2, stage), stage, False)
    changes: list[tuple[str, set[str]]] = []
    for index, ids in enumerate(epoch_of(task, 0) * 2):
        before = {name: parameter.numpy().copy() for name, parameter in parameters.items()}
        moments = {name: each.numpy().copy() for name, each in adamw_state(optimizer, parameters).items()}
        batch = task.micro_batch(0, index % 11, ids)
        losses = task.losses(model, batch)
        assert [float(loss) != 0.0 for loss in losses] == [name == owner(ids) for name in ROWS]
        paddle.add_n(losses).backward()
        optimizer.set_lr(1e-3)
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)
        changed = {name for name, parameter in parameters.items() if (before[name] != parameter.numpy()).any()}
        after = {name: each.numpy() for name, each in adamw_state(optimizer, parameters).items()}
        changed |= {name for name, value in moments.items() if (after[name] != value).any()}
        changes.append((owner(ids), {name for name in changed if "classifiers" in name}))
        assert "bert.embeddings.word_embeddings.weight" in changed
    assert {name for name, _ in changes} == set(ROWS)
    for name, changed in changes:
        own = {f"classifiers.{name}.weight", f"classifiers.{name}.bias"}
        assert {each.rpartition("/")[2] for each in changed} == own


def test_moments_of_heads_that_have_not_been_stepped_since_a_resume_are_kept(folder: Path) -> None:
    """Two resumes with a single step of one head between them, and a head that was never stepped before."""
    task, stage = make_task(folder), stage_of(folder)
    by_name = {owner(ids): (index, ids) for index, ids in enumerate(epoch_of(task, 0))}

    def fresh() -> tuple[Any, dict[str, Any], Any]:
        paddle.seed(1)
        model = build_multitask(stage, read_bert_config(folder / "bert"), {"a": 3, "b": 2, "c": 2})
        parameters = dict(model.named_parameters())
        return model, parameters, make_adamw(parameters, make_groups(parameters, 2, stage), stage, False)

    def step(model: Any, optimizer: Any, name: str) -> None:
        index, ids = by_name[name]
        paddle.add_n(task.losses(model, task.micro_batch(0, index, ids))).backward()
        optimizer.set_lr(1e-3)
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)

    model, parameters, optimizer = fresh()
    straight = (model, optimizer)
    story = ["a", "b", "a", "b", "c", "a"]
    for name in story:
        step(*straight, name)
    values: dict[str, np.ndarray] = {}
    state: dict[str, np.ndarray] = {}
    for part in (["a", "b"], ["a"], ["b"], ["c"], ["a"]):
        again, own, optimizer = fresh()
        for name, value in values.items():
            own[name].set_value(value)
        if state:
            load_adamw_state(optimizer, own, state)
        for name in part:
            step(again, optimizer, name)
        values = {name: parameter.numpy() for name, parameter in own.items()}
        state = {name: tensor.numpy() for name, tensor in adamw_state(optimizer, own).items()}
    for name, parameter in parameters.items():
        np.testing.assert_array_equal(values[name], parameter.numpy(), err_msg=name)
    assert {f"moment1/classifiers.{name}.weight" for name in ROWS} <= set(state)


def test_losses_of_a_window_are_means_over_the_steps_of_their_data_set() -> None:
    window = Window(("a", "b", "c"), Ranks(0, 1, "cpu"))
    for share, task in ((4.0, 0), (1.0, 1), (2.0, 0)):
        shares = np.zeros(3, dtype=np.float32)
        shares[task] = share
        window.add(paddle.to_tensor(shares), samples=1, tokens=1, cells=1, present=np.arange(3) == task)
    saved = window.state()
    restored = Window(("a", "b", "c"), Ranks(0, 1, "cpu"))
    restored.restore(saved)
    for each in (window, restored):
        summary = each.summary()
        assert summary["losses"] == {"a": 3.0, "b": 1.0, "c": None}
        assert summary["loss"] == pytest.approx(7 / 3)


# Folders and heads


HEADS = {name: Head(tuple(labels)) for name, labels in LABELS.items()}


def saved_model(folder: Path, target: Path) -> Any:
    """A folder of a multi-task model with random heads, and the model."""
    stage, config = stage_of(folder), read_bert_config(folder / "bert")
    paddle.seed(11)
    model = build_multitask(stage, config, {"a": 3, "b": 2, "c": 2})
    load_folder(model, folder / "bert")
    model.eval()
    arrays = {name: parameter.numpy() for name, parameter in model.named_parameters()}
    save_folder(target, arrays, config, stage, ModelSource(folder / "bert", True), (), HEADS)
    return model


def test_each_head_of_a_saved_folder_is_a_classifier(folder: Path, tmp_path: Path) -> None:
    model = saved_model(folder, tmp_path / "saved")
    batch = make_token_batch([IDS], [IDS * 0])
    logits = {}
    for name, labels in LABELS.items():
        classifier = load_classifier(tmp_path / "saved", name)
        assert (classifier.label_names, classifier.stage.max_length) == (tuple(labels), 16)
        logits[name] = classifier.model(batch).numpy()
        np.testing.assert_array_equal(logits[name], OneHead(model, name)(batch).numpy())
    assert not np.array_equal(logits["b"], logits["c"])
    with pytest.raises(ConfigError, match=r"a classifier per data set \(a, b, c\); which one\?"):
        load_classifier(tmp_path / "saved")
    with pytest.raises(ConfigError, match="'d' is no data set of it"):
        load_classifier(tmp_path / "saved", "d")


def test_one_head_of_a_saved_folder_is_a_model_of_its_own(folder: Path, tmp_path: Path) -> None:
    model = saved_model(folder, tmp_path / "saved")
    batch = make_token_batch([IDS], [IDS * 0])
    with pytest.raises(ConfigError, match="--head NAME"):
        open_trained(tmp_path / "saved")
    write_one_head(tmp_path / "saved", "b", tmp_path / "b")
    alone = open_trained(tmp_path / "b")
    assert (alone.head, alone.label_names, alone.stage.max_length) == ("pooler", tuple(LABELS["b"]), 16)
    np.testing.assert_array_equal(alone.model(batch).numpy(), OneHead(model, "b")(batch).numpy())


def test_a_saved_folder_loads_in_paddlenlp_as_an_encoder(folder: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("paddlenlp.transformers", reason="needs PaddleNLP")
    model = saved_model(folder, tmp_path / "saved")
    theirs = transformers.BertModel.from_pretrained(str(tmp_path / "saved"), convert_from_torch=True)
    theirs.eval()
    sequence, pooled = theirs(paddle.to_tensor(IDS[None]), paddle.to_tensor(IDS[None] * 0))
    batch = make_token_batch([IDS], [IDS * 0])
    np.testing.assert_allclose(sequence.numpy()[0], model.bert(batch)[-1].numpy(), atol=1e-5, rtol=0)
    np.testing.assert_allclose(pooled.numpy(), model.features(batch).numpy(), atol=1e-5, rtol=0)


def test_the_head_that_a_stage_starts_with(folder: Path, tmp_path: Path) -> None:
    model = saved_model(folder, tmp_path / "saved")
    data_sets = stage_of(folder).data_sets
    single = FinetuneStage(task="finetune", epochs=1, max_length=16)

    def chosen(data: DataConfig, labels: Any, **changes: Any) -> str | None:
        return choose_head(tmp_path / "saved", single.model_copy(update=changes), data, labels)

    for name, data in data_sets.items():
        assert chosen(data, LABELS[name]) == name
    assert chosen(data_sets["a"], ("x", "y", "z")) is None, "other labels"
    assert chosen(data_sets["a"].model_copy(update={"dataset": "csv"}), CLASSES) is None, "another data set"
    assert chosen(data_sets["a"].model_copy(update={"path": "/elsewhere"}), CLASSES) == "a", "the only one of its kind"
    assert chosen(data_sets["b"].model_copy(update={"path": "/elsewhere"}), CLASSES[:2]) is None, "b or c?"
    assert chosen(data_sets["a"], CLASSES, layers=(1,)) is None, "a classifier that sees another layer"
    assert chosen(data_sets["a"].model_copy(update={"path": "/x"}), CLASSES[:2], init_head="c") == "c"
    with pytest.raises(
        ConfigError, match=r"the classifier of c has 2 classes \(HUM, LOC\), the stage's data has 2 classes \(x, y\)"
    ):
        chosen(data_sets["a"], ("x", "y"), init_head="c")
    with pytest.raises(
        ConfigError, match=r"the classifier of a has 3 classes \(HUM, LOC, NUM\), the stage's data has 2"
    ):
        chosen(data_sets["b"], CLASSES[:2], init_head="a")
    assert choose_head(folder / "bert", single, data_sets["a"], CLASSES) is None
    taken = build_model(single, read_bert_config(tmp_path / "saved"), 2)
    assert load_folder(taken, tmp_path / "saved", "c").new == ()
    np.testing.assert_array_equal(taken.classifier.weight.numpy(), model.classifiers["c"].weight.numpy())
    fresh = build_model(single, read_bert_config(tmp_path / "saved"), 2)
    assert load_folder(fresh, tmp_path / "saved").new == ("classifier.weight", "classifier.bias")


def test_only_a_head_of_another_size_is_new(folder: Path, tmp_path: Path) -> None:
    saved_model(folder, tmp_path / "saved")
    other = build_multitask(stage_of(folder), read_bert_config(folder / "bert"), {"a": 3, "b": 5, "d": 2})
    report = load_folder(other, tmp_path / "saved")
    assert {name.rpartition(".")[0] for name in report.new} == {"classifiers.b", "classifiers.d"}


def test_a_head_file_that_no_run_has_written(folder: Path, tmp_path: Path) -> None:
    saved_model(folder, tmp_path / "saved")
    assert read_head_file(folder / "bert") is None
    for text in ("{", "[]", '{"stage": {"task": "x"}}', '{"stage": {"task": "finetune"}, "label_names": []}'):
        (tmp_path / "saved" / "bert4doc.json").write_text(text)
        with pytest.raises(DataError, match=r"bert4doc\.json: not written by a run"):
            read_head_file(tmp_path / "saved")
