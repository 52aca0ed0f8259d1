"""What tasks give to the loop: batches, counts and loss sums; stand-ins that weigh nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.tiny import CLASSES, write_bert, write_corpus, write_tsv
from tests.support.training import make_run

paddle = pytest.importorskip("paddle", reason="needs Paddle")

from configs.schema import FinetuneStage, PretrainStage, Truncation  # noqa: E402
from trainers.data.pretraining import open_sources  # noqa: E402
from trainers.data.store import open_texts  # noqa: E402
from trainers.data.vocabulary import load_vocabulary  # noqa: E402
from trainers.model.folder import build_model, load_folder, read_bert_config  # noqa: E402
from trainers.tasks.finetune import FinetuneTask, TextEncoder  # noqa: E402
from trainers.tasks.pretrain import PretrainTask  # noqa: E402
from trainers.worker import read_prepared  # noqa: E402

FINETUNE = FinetuneStage(task="finetune", epochs=1, max_length=10, dropout=0.0)
PRETRAIN = PretrainStage(task="pretrain", max_steps=5, max_length=24, batch=6, dropout=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tasks")
    write_bert(path / "bert")
    write_tsv(path / "table" / "train.tsv", 20, seed=1)
    write_corpus(path / "corpus" / "corpus.txt", 25, seed=3)
    make_run(
        path / "run",
        {
            "model": str(path / "bert"),
            "data": {"dataset": "tsv", "path": str(path / "table"), "validation": 0},
            "stages": {
                "pretrain": {
                    **{"max_steps": 5, "batch": 6, "max_length": 24, "splits": ["train"]},
                    "data": {"dataset": "text", "path": str(path / "corpus")},
                },
                "finetune": {"epochs": 1, "max_length": 10},
            },
        },
        path / "cache",
    )
    return path


def finetune_task(folder: Path, batch: int = 6) -> FinetuneTask:
    texts = open_texts(Path(read_prepared(folder / "run")["stages"]["finetune"]["splits"]["train"]))
    encoder = TextEncoder(texts, load_vocabulary(folder / "bert" / "vocab.txt"), FINETUNE)
    return FinetuneTask(encoder, np.arange(1, 18), batch, seed=3, per_sequence_noise=True)


def pretrain_task(folder: Path, stage: PretrainStage = PRETRAIN) -> PretrainTask:
    corpora = read_prepared(folder / "run")["stages"]["pretrain"]["corpora"]
    sources = open_sources("pretrain", stage, corpora, load_vocabulary(folder / "bert" / "vocab.txt"), 3)
    return PretrainTask(sources.training, stage.nsp, stage.batch, 3, per_sequence_noise=True)


def loaded(folder: Path, stage: Any) -> Any:
    model = build_model(stage, read_bert_config(folder / "bert"), 3)
    load_folder(model, folder / "bert")
    model.train()
    return model


def test_an_epoch_of_fine_tuning(folder: Path) -> None:
    task = finetune_task(folder)
    assert (task.num_examples, task.steps_per_epoch) == (17, 3)
    batches = [task.batch_ids(0, index) for index in range(3)]
    assert [len(batch) for batch in batches] == [6, 6, 5]
    assert sorted(np.concatenate(batches)) == list(range(1, 18))
    again = finetune_task(folder)
    np.testing.assert_array_equal(again.batch_ids(0, 2), batches[2])
    assert again.batch_ids(1, 0).tolist() != batches[0].tolist()
    np.testing.assert_array_equal(again.batch_ids(0, 1), batches[1])


def test_lengths_are_those_of_the_sequences(folder: Path) -> None:
    task = finetune_task(folder)
    rows = np.arange(20)
    lengths = task.lengths(0, rows)
    assert lengths.tolist() == [len(task.encoder(int(row))[0][0]) for row in rows]
    assert (lengths.min(), lengths.max()) >= (5, 10)
    assert lengths.max() == 10
    texts = task.encoder.texts
    row = int(np.argmax(texts.lengths))
    words = texts.tokens(row)
    assert len(words) > 8
    for truncation, expected in (
        (Truncation(), words[:8]),
        (Truncation(head=3), np.concatenate([words[:3], words[-5:]])),
        (Truncation(tail=3), np.concatenate([words[:5], words[-3:]])),
    ):
        stage = FINETUNE.model_copy(update={"truncation": truncation})
        ((ids, types),) = TextEncoder(texts, load_vocabulary(folder / "bert" / "vocab.txt"), stage)(row)
        assert ids.tolist() == [2, *expected.tolist(), 3]
        assert types.tolist() == [0] * 10


def test_the_loss_of_a_classifier_is_a_sum_over_its_texts(folder: Path) -> None:
    task, model = finetune_task(folder), loaded(folder, FINETUNE)
    whole = task.micro_batch(0, 1, np.array([3, 7, 8]))
    assert whole.counts == (3.0,)
    logits = model(whole.tokens).numpy().astype(np.float64)
    labels = [
        CLASSES.index(line.split("\t")[1]) for line in (folder / "table" / "train.tsv").read_text().splitlines()[1:]
    ]
    chosen = [labels[row] for row in (3, 7, 8)]
    expected = sum(math.log(np.exp(row).sum()) - row[label] for row, label in zip(logits, chosen, strict=True))
    (total,) = task.losses(model, whole)
    assert math.isclose(float(total), expected, rel_tol=1e-5)
    parts = [float(task.losses(model, task.micro_batch(0, 1, np.array(ids)))[0]) for ids in ([3], [7, 8])]
    assert math.isclose(sum(parts), expected, rel_tol=1e-5)


def test_a_hierarchical_batch_counts_texts_and_computes_all_fractions(folder: Path) -> None:
    stage = FINETUNE.model_copy(update={"max_length": 8, "hierarchical": "attention"})
    texts = open_texts(Path(read_prepared(folder / "run")["stages"]["finetune"]["splits"]["train"]))
    encoder = TextEncoder(texts, load_vocabulary(folder / "bert" / "vocab.txt"), stage)
    task = FinetuneTask(encoder, np.arange(20), 6, seed=3, per_sequence_noise=True)
    model = loaded(folder, stage)
    rows = np.array([int(np.argmax(texts.lengths)), int(np.argmin(texts.lengths)), 7])
    whole = task.micro_batch(0, 1, rows)
    counts = [-(-int(texts.lengths[row]) // 6) for row in rows]
    assert sorted(counts)[-1] > min(counts)
    assert whole.counts == (3.0,)
    assert whole.tokens.fractions is not None
    assert (whole.tokens.fractions.lengths, whole.tokens.num_texts) == (tuple(counts), 3)
    assert whole.num_cells == sum(counts) * 8
    assert task.lengths(0, rows).tolist() == [
        int(texts.lengths[row]) + 2 * n for row, n in zip(rows, counts, strict=True)
    ]
    assert task.lengths(0, rows).sum() == whole.tokens.num_tokens
    (total,) = task.losses(model, whole)
    parts = [float(task.losses(model, task.micro_batch(0, 1, rows[[k]]))[0]) for k in range(3)]
    assert math.isclose(float(total), sum(parts), rel_tol=1e-5)


@pytest.mark.parametrize("nsp", [True, False])
def test_the_losses_of_pretraining_are_sums(folder: Path, nsp: bool) -> None:
    stage = PRETRAIN.model_copy(update={"nsp": nsp})
    task, model = pretrain_task(folder, stage), loaded(folder, stage)
    assert task.terms == (("mlm", "nsp") if nsp else ("mlm",))
    by_length = np.argsort(task.lengths(0, np.arange(task.num_examples)), kind="stable")
    ids = by_length[[0, 1, -1, -2, -3]]
    whole = task.micro_batch(0, 0, ids)
    parts = [task.micro_batch(0, 0, ids[:2]), task.micro_batch(0, 0, ids[2:])]
    assert whole.counts == tuple(np.sum([part.counts for part in parts], axis=0))
    assert whole.counts[0] == len(whole.labels_M) >= len(ids)
    assert len({part.counts[0] / part.tokens.layout.num_sequences for part in parts}) == 2, (
        "a mean of means would differ"
    )
    for term, total in enumerate(task.losses(model, whole)):
        summed = sum(float(task.losses(model, part)[term]) for part in parts)
        assert math.isclose(float(total), summed, rel_tol=1e-5)
    mlm, _ = model(whole.tokens, whole.positions_M)
    logits = mlm.numpy().astype(np.float64)
    expected = sum(
        math.log(np.exp(row).sum()) - row[label] for row, label in zip(logits, whole.labels_M.tolist(), strict=True)
    )
    assert math.isclose(float(task.losses(model, whole)[0]), expected, rel_tol=1e-5)
    assert task.lengths(0, ids).sum() == whole.tokens.num_tokens


def test_masks_change_with_the_epoch_and_predict_the_original(folder: Path) -> None:
    task = pretrain_task(folder, PRETRAIN.model_copy(update={"nsp": False}))
    first, again, later = (task.micro_batch(epoch, 0, np.arange(6)) for epoch in (0, 0, 1))
    assert first.positions_M.tolist() == again.positions_M.tolist()
    assert first.tokens.ids_T.tolist() == again.tokens.ids_T.tolist()
    assert first.positions_M.tolist() != later.positions_M.tolist()
    ids = first.tokens.ids_T.numpy().copy()
    assert (ids[first.positions_M.numpy()] == 4).sum() > len(first.labels_M) / 2, "[MASK]"
    ids[first.positions_M.numpy()] = first.labels_M.numpy()
    assert 4 not in ids, "with the labels put back the text is whole"


def test_pretraining_epochs_have_the_same_number_of_steps(folder: Path) -> None:
    task = pretrain_task(folder)
    assert task.steps_per_epoch == task.num_examples // 6
    for epoch in range(4):
        batches = [task.batch_ids(epoch, index) for index in range(task.steps_per_epoch)]
        assert all(len(batch) == 6 for batch in batches)
        assert len(np.unique(np.concatenate(batches))) >= 6 * (task.steps_per_epoch - 2)


@pytest.mark.parametrize("kind", ["finetune", "pretrain"])
def test_a_stand_in_weighs_nothing_but_takes_part(folder: Path, kind: str) -> None:
    task: Any = finetune_task(folder) if kind == "finetune" else pretrain_task(folder)
    model = loaded(folder, FINETUNE if kind == "finetune" else PRETRAIN)
    batch = task.micro_batch(0, 5, np.zeros(0, dtype=np.int64))
    assert set(batch.counts) == {0.0}
    assert batch.num_cells == 0
    losses = task.losses(model, batch)
    assert [float(loss) for loss in losses] == [0.0] * len(task.terms)
    paddle.add_n(losses).backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and float(gradient.abs().max()) == 0.0 for gradient in gradients)
