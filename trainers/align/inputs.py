"""Writes what both sides read: folders of weights, texts and instances as token ids, settings.

DIR/inputs.json                      everything that is no tensor
DIR/CASE/model/                      config.json, vocab.txt, model.safetensors with the heads of both tasks
DIR/CASE/heads.safetensors           classifiers on chosen blocks, [out, in]
DIR/CASE/entries/                    the same texts and corpus in the form that training reads (this side only)
DIR/reference/                       the other side's answer
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from configs.schema import FinetuneStage, PretrainStage
from trainers.align import settings, texts
from trainers.align.entries import check_lengths, describe_finetuning, describe_pretraining, write_entries
from trainers.align.settings import CaseSettings
from trainers.align.weights import encoder_shapes, head_shapes, random_array, write_heads
from trainers.data.vocabulary import load_vocabulary
from trainers.model.config import BertConfig
from trainers.model.folder import read_bert_config
from trainers.model.heads import BertForClassification
from trainers.model.names import to_hf
from trainers.model_store import ModelFiles

Arrays = dict[str, np.ndarray]
INPUTS = "inputs.json"


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
    config = settings.rate_model()
    return {
        "names": [to_hf(name) for name, _ in BertForClassification(config, 2).named_parameters()],
        "num_layers": config.num_layers,
        "settings": {
            label: _rate_numbers(settings.rate_stage(values), values["max_steps"])
            for label, values in settings.RATE_SETTINGS.items()
        },
    }


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
    entries = write_entries(directory / case.name / "entries", case, vocabulary, words, rng)
    check_lengths(case.finetune, entries["texts"], vocabulary)

    def describe(stage: FinetuneStage) -> dict[str, Any]:
        return {**_stage_inputs(stage), **describe_finetuning(stage, entries["texts"], vocabulary)}

    return {
        "title": title,
        "num_layers": config.num_layers,
        "cls_id": vocabulary.cls_id,
        "sep_id": vocabulary.sep_id,
        "pad_id": vocabulary.pad_id,
        "heads": described,
        "entries": {name: str(path) for name, path in entries.items()},
        "finetune": describe(case.finetune),
        "pretrain": {
            **_stage_inputs(case.pretrain),
            **describe_pretraining(case.pretrain, entries["corpus"], vocabulary),
        },
        "variants": {name: describe(stage) for name, stage in case.variants.items()},
    }


# Stages -----------------------------------------------------------------------------------------------------------------


def _stage_inputs(stage: FinetuneStage | PretrainStage) -> dict[str, Any]:
    """The optimisation of a stage in plain numbers."""
    return {
        **_rate_numbers(stage, settings.TOTAL_STEPS),
        "adam_beta1": stage.adam_beta1,
        "adam_beta2": stage.adam_beta2,
        "adam_eps": stage.adam_eps,
        "clip": stage.clip,
        "original_optimizer": stage.clip_per_parameter and not stage.bias_correction,
        "compared_steps": settings.compared_steps(stage),
    }


def _rate_numbers(stage: FinetuneStage | PretrainStage, total_steps: int) -> dict[str, Any]:
    """Everything that learning rates and weight decay depend on. Whole warm-up steps are rounded down (paper.md, section 6: 234 of
    2,343)."""
    warmup = stage.warmup
    whole, share = (warmup, warmup / total_steps) if isinstance(warmup, int) else (int(warmup * total_steps), warmup)
    of_layers = ("layer_decay", "decay_embeddings", "layer_rates", "rate_bands", "plain_rate")
    # a pre-training stage has no layer-wise rates: as a fine-tuning stage that leaves them out
    classifier = stage if isinstance(stage, FinetuneStage) else settings.rate_stage({"max_steps": total_steps})
    return {
        "lr": stage.lr,
        **{key: getattr(classifier, key) for key in of_layers},
        "weight_decay": stage.weight_decay,
        "schedule": stage.schedule,
        "poly_power": stage.poly_power,
        "warmup_steps": whole,
        "warmup_share": share,
        "total_steps": total_steps,
    }
