"""Writes what both sides read: folders of weights, texts and instances as token ids, settings.

DIR/inputs.json                      everything that is no tensor
DIR/CASE/model/                      config.json, vocab.txt, model.safetensors with the heads of both tasks
DIR/CASE/heads.safetensors           classifiers on chosen blocks, [out, in]
DIR/CASE/entries/                    the same texts and corpus in the form that training reads (this side only)
DIR/reference/                       the other side's answer
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from configs.schema import FinetuneStage, PretrainStage
from trainers.align import settings, texts
from trainers.align.settings import CaseSettings
from trainers.align.weights import encoder_shapes, head_shapes, random_array, write_heads
from trainers.data.building import build_corpus, build_texts
from trainers.data.cache import ensure_entry
from trainers.data.masking import Masking, mask_batch
from trainers.data.readers.base import Row
from trainers.data.store import open_corpus, open_texts
from trainers.data.tokenize import Tokenizer
from trainers.data.vocabulary import Vocabulary, load_vocabulary
from trainers.model.config import BertConfig
from trainers.model.folder import read_bert_config
from trainers.model.names import to_hf
from trainers.model_store import ModelFiles
from trainers.optim.schedule import warmup_steps
from trainers.tasks.finetune import FinetuneTask, TextEncoder
from trainers.tasks.pretrain import PretrainTask

Arrays = dict[str, np.ndarray]
INPUTS = "inputs.json"
NUM_DOCUMENTS = 14


def write_inputs(directory: Path, pretrained: ModelFiles | None, text_vocab: Path, threads: int) -> dict[str, Any]:
    """Write DIR; returns the contents of inputs.json. `pretrained`: the model of the second case, None to leave it out."""
    cases = {settings.RANDOM: _write_random_case(directory)}
    if pretrained is not None:
        cases["pretrained"] = _write_pretrained_case(directory, pretrained)
    inputs = {
        "threads": threads,
        "text": _text_inputs(text_vocab),
        "rates": _rate_inputs(),
        "cases": cases,
    }
    (directory / INPUTS).write_text(json.dumps(inputs), encoding="utf-8")
    return inputs


def _text_inputs(vocab: Path) -> dict[str, Any]:
    rng = np.random.default_rng(settings.SEED)
    words = texts.whole_words(list(load_vocabulary(vocab).ids))
    return {
        "vocab": str(vocab),
        "texts": [*texts.HARD_TEXTS, *(texts.random_words(words, 60, rng).title() for _ in range(6))],
        "long_text": texts.random_words(words, 700, rng),
        "cuts": settings.CUTS,
        "short_lengths": settings.SHORT_LENGTHS,
        "pair_lengths": settings.PAIR_LENGTHS,
        "pairs": texts.PAIRS,
    }


def _rate_inputs() -> dict[str, Any]:
    from trainers.model.heads import BertForClassification

    config = BertConfig(8, 4, 12, 1, 4, 8, 2)
    return {
        "names": [to_hf(name) for name, _ in BertForClassification(config, 2).named_parameters()],
        "num_layers": config.num_layers,
        "settings": {
            label: {
                **settings.BASE_RATES,
                "schedule": stage.schedule,
                "poly_power": stage.poly_power,
                "total_steps": values["max_steps"],
                "warmup_steps": warmup_steps_of(values),
            }
            for label, values in settings.RATE_SETTINGS.items()
            for stage in [settings.rate_stage(values)]
        },
    }


def warmup_steps_of(values: Mapping[str, Any]) -> int:
    """Whole warm-up steps by hand: a proportion is rounded down (paper.md, section 6: 234 of 2,343)."""
    warmup = values["warmup"]
    return warmup if isinstance(warmup, int) else int(warmup * values["max_steps"])


# Weights ----------------------------------------------------------------------------------------------------------------


def _write_random_case(directory: Path) -> dict[str, Any]:
    case = settings.random_case()
    config = BertConfig(
        vocab_size=1000,
        hidden_size=128,
        num_layers=12,
        num_heads=4,
        intermediate_size=512,
        max_positions=512,
        num_token_types=2,
    )
    folder = directory / case.name / "model"
    folder.mkdir(parents=True)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [f"w{number:04d}x" for number in range(config.vocab_size - len(special))]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in [*special, *words]), encoding="utf-8")
    rng = np.random.default_rng(settings.SEED)
    shapes = encoder_shapes(config)
    arrays = {name: random_array(name, shape, rng) for name, shape in shapes.items()}
    return _finish_case(directory, case, "12 random blocks", config, arrays, words, rng)


def _write_pretrained_case(directory: Path, model: ModelFiles) -> dict[str, Any]:
    case, source = settings.pretrained_case("pretrained"), model.dir
    config = read_bert_config(source)
    folder = directory / case.name / "model"
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_bytes((source / "vocab.txt").read_bytes())
    stored = load_file(source / "model.safetensors")
    prefixed = {name if name.startswith("bert.") else f"bert.{name}": array for name, array in stored.items()}
    arrays = {name: prefixed[name].astype(np.float32) for name in encoder_shapes(config)}
    words = texts.whole_words(list(load_vocabulary(folder / "vocab.txt").ids))
    return _finish_case(directory, case, model.name, config, arrays, words, np.random.default_rng(settings.SEED))


def _finish_case(
    directory: Path,
    case: CaseSettings,
    title: str,
    config: BertConfig,
    encoder: Arrays,
    words: list[str],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Add random heads, write the folder, texts and corpus, and describe the case."""
    folder = directory / case.name / "model"
    heads = {name: random_array(name, shape, rng) for name, shape in head_shapes(config).items()}
    save_file({**encoder, **heads}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config.to_json(), indent=1), encoding="utf-8")
    described = write_heads(directory / case.name, config, rng)
    vocabulary = load_vocabulary(folder / "vocab.txt")
    entries = _write_entries(directory / case.name / "entries", case, vocabulary, words, rng)
    return {
        "title": title,
        "num_layers": config.num_layers,
        "cls_id": vocabulary.cls_id,
        "sep_id": vocabulary.sep_id,
        "pad_id": vocabulary.pad_id,
        "heads": described,
        "entries": {name: str(path) for name, path in entries.items()},
        "finetune": {**_stage_inputs(case.finetune), **_finetune_inputs(case.finetune, entries["texts"], vocabulary)},
        "pretrain": {**_stage_inputs(case.pretrain), **_pretrain_inputs(case.pretrain, entries["corpus"], vocabulary)},
    }


# Data -------------------------------------------------------------------------------------------------------------------


def _write_entries(
    directory: Path, case: CaseSettings, vocabulary: Vocabulary, words: list[str], rng: np.random.Generator
) -> dict[str, Path]:
    """Texts with labels and a corpus, as `prepare` leaves them."""
    tokenizer = Tokenizer(vocabulary, lower_case=True)
    rows = [
        Row(
            texts.random_words(words, count, rng),
            None if case.pair_words is None else texts.random_words(words, case.pair_words[number], rng),
            int(rng.integers(0, settings.NUM_CLASSES)),
            "made here",
            number + 1,
        )
        for number, count in enumerate(case.text_words)
    ]
    documents = [
        [texts.random_words(words, int(rng.integers(3, 25)), rng) for _ in range(int(rng.integers(2, 9)))]
        for _ in range(NUM_DOCUMENTS)
    ]
    labels = tuple(f"class {number}" for number in range(settings.NUM_CLASSES))

    def make_texts(target: Path) -> dict[str, Any]:
        return build_texts(target, rows, tokenizer, labels, lambda _: None)

    def make_corpus(target: Path) -> dict[str, Any]:
        return build_corpus(target, documents, tokenizer, lambda _: None)

    key = {"case": case.name}
    return {
        "texts": ensure_entry(directory, "texts", key, make_texts, 1 << 20, lambda _: None),
        "corpus": ensure_entry(directory, "corpus", key, make_corpus, 1 << 20, lambda _: None),
    }


def _stage_inputs(stage: FinetuneStage | PretrainStage) -> dict[str, Any]:
    """The optimisation of a stage in plain numbers."""
    return {
        "lr": stage.lr,
        "layer_decay": stage.layer_decay if isinstance(stage, FinetuneStage) else 1.0,
        "weight_decay": stage.weight_decay,
        "adam_beta1": stage.adam_beta1,
        "adam_beta2": stage.adam_beta2,
        "adam_eps": stage.adam_eps,
        "clip": stage.clip,
        "schedule": stage.schedule,
        "poly_power": stage.poly_power,
        "warmup_steps": warmup_steps(stage.warmup, settings.TOTAL_STEPS),
        "total_steps": settings.TOTAL_STEPS,
        "compared_steps": settings.compared_steps(stage),
    }


def _finetune_inputs(stage: FinetuneStage, entry: Path, vocabulary: Vocabulary) -> dict[str, Any]:
    stored = open_texts(entry)
    if stored.labels is None:
        raise AssertionError("the texts were written with labels")
    rows = np.arange(len(stored), dtype=np.int64)
    task = FinetuneTask(TextEncoder(stored, vocabulary, stage), rows, stage.batch, settings.SEED, False)
    longest = [int(task.lengths(0, task.batch_ids(0, index)).max()) for index in (0, 1)]
    if not longest[1] < longest[0] == stage.max_length:
        raise AssertionError(
            "the full length belongs into the first batch, where gradients are compared, and only there"
        )
    pairs = [stored.pair_tokens(number) for number in range(len(stored))]
    steps = (divmod(step, task.steps_per_epoch) for step in range(settings.TRAINED_STEPS))
    return {
        "rows": [
            [stored.tokens(number).tolist(), None if pair is None else pair.tolist()]
            for number, pair in enumerate(pairs)
        ],
        "labels": stored.labels.tolist(),
        "order": [task.batch_ids(epoch, index).tolist() for epoch, index in steps],
        "max_length": stage.max_length,
        "head": stage.truncation.head,
        "num_classes": settings.NUM_CLASSES,
    }


class _OpenPlan(PretrainTask):
    """The pre-training task with a view of what its instances are made of."""

    def describe(self, epoch: int, instances: np.ndarray) -> list[dict[str, Any]]:
        """A, B, whether B is random, predicted positions within the sequence, and what stands there."""
        plan, _ = self._plan(epoch)
        masking: Masking = self._masking
        described = []
        for number in instances.tolist():
            a_start, a_length = int(plan.starts_a[number]), int(plan.lengths_a[number])
            b_start, b_length = int(plan.starts_b[number]), int(plan.lengths_b[number])
            ids, _, _ = plan.instance(number)
            offsets = np.array([0, len(ids)], dtype=np.int64)
            masked, positions, _, _ = mask_batch(ids, offsets, np.array([number]), self._seed, epoch, masking)
            described.append(
                {
                    "a": plan.ids[a_start : a_start + a_length].tolist(),
                    "b": plan.ids[b_start : b_start + b_length].tolist(),
                    "is_random": bool(plan.is_random_next[number]),
                    "positions": positions.tolist(),
                    "replacements": masked[positions].tolist(),
                }
            )
        return described


def _pretrain_inputs(stage: PretrainStage, entry: Path, vocabulary: Vocabulary) -> dict[str, Any]:
    task = _OpenPlan(open_corpus(entry), vocabulary, stage, settings.SEED, False)
    steps = [divmod(step, task.steps_per_epoch) for step in range(settings.TRAINED_STEPS)]
    return {"order": [task.describe(epoch, task.batch_ids(epoch, index)) for epoch, index in steps]}
