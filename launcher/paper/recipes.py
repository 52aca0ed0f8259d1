"""What each config of configs/paper/ trains. Where the paper says nothing, a comment says what was chosen.

Fine-tuning: batch 24, learning rate 2e-5, warm-up over a tenth of the steps, at most 4 epochs (section 5.1); tables 2 and 3 without
layer-wise decay (head+tail of table 2, layer 11 of table 3 and decay 1.00 of table 4 are one figure), later tables with 0.95.
Further pre-training: batch 32, length 128, learning rate 5e-5, 100,000 steps, 10,000 of them warm-up (section 5.4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BASE, LARGE, CHINESE = "bert-base-uncased", "bert-large-uncased", "bert-base-chinese"
SENTIMENT, QUESTION, TOPIC = ("imdb", "yelp_polarity", "yelp_full"), ("trec", "yahoo"), ("ag_news", "dbpedia")
ALL = (*SENTIMENT, *QUESTION, *TOPIC)
LONG = ("imdb", "yelp_polarity", "yelp_full", "sogou")
"""Single texts of which some are longer than 512 tokens: the first 128 and the last 382 are kept."""
VALIDATION = {"imdb": 0.1, "yelp_polarity": 0.02, "yelp_full": 0.02, "trec": 0.1, "yahoo": 0.01, "ag_news": 0.05}
VALIDATION |= {"dbpedia": 0.02, "sogou": 0.05}
"""Part of the training rows that chooses the best epoch; the paper does not give its size."""
LENGTHS = {"trec": 64, "ag_news": 256}
"""Tokens; the longest text of these is shorter, so nothing is cut, as with the paper's 512."""
TITLES = {"imdb": "IMDb", "yelp_polarity": "Yelp P.", "yelp_full": "Yelp F.", "trec": "TREC", "yahoo": "Yahoo! Answers"}
TITLES |= {"ag_news": "AG's News", "dbpedia": "DBPedia", "sogou": "Sogou"}

Stage = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """One config: what it is in a sentence, its model and its stages."""

    about: str
    stages: Mapping[str, Stage]
    model: str = BASE
    data: str = "imdb"


def recipes() -> dict[str, Recipe]:
    """All configs by name."""
    return {**_table2(), **_table3(), **_table4(), **_table5(), **_table6(), **_table7(), **_table8()}


def data_of(dataset: str) -> dict[str, Any]:
    """The data section of a data set."""
    path = {"path": "/data/sogou"} if dataset == "sogou" else {}
    return {"dataset": dataset, **path, "validation": VALIDATION[dataset]}


def finetune(dataset: str, decay: float = 0.95, **more: Any) -> Stage:
    """Fine-tuning as in the paper."""
    stage: Stage = {"epochs": 4, "batch": 24, "lr": 2e-5, "warmup": 0.1}
    if decay < 1:
        stage["layer_decay"] = decay
    stage["max_length"] = LENGTHS.get(dataset, 512)
    if dataset in LONG:
        stage["truncation"] = {"head": 128}
    return stage | more


def pretrain(**more: Any) -> Stage:
    """Further pre-training as in the paper."""
    return {"max_steps": 100_000, "batch": 32, "lr": 5e-5, "warmup": 10_000, "max_length": 128} | more


def corpora(datasets: Sequence[str]) -> Stage:
    """Further pre-training on the training texts of several data sets, without texts that are test texts of another."""
    return pretrain(corpora=[{"dataset": each, "splits": ["train"]} for each in datasets], leave_out_tests=True)


def tasks(datasets: Sequence[str], **more: Any) -> dict[str, Stage]:
    """One fine-tuning stage per data set."""
    return {
        f"finetune-{each}": {"task": "finetune", "data": data_of(each)} | finetune(each, **more) for each in datasets
    }


def _model(dataset: str) -> str:
    return CHINESE if dataset == "sogou" else BASE


def _table2() -> dict[str, Recipe]:
    ways: dict[str, tuple[str, Stage]] = {
        "head": ("the first 510 tokens", {}),
        "tail": ("the last 510 tokens", {"truncation": {"head": 0}}),
        "head_tail": ("the first 128 and the last 382 tokens", {"truncation": {"head": 128}}),
        "hierarchical-mean": ("fractions of 510 tokens, their vectors averaged", {"hierarchical": "mean"}),
        "hierarchical-max": ("fractions of 510 tokens, the greatest of their vectors", {"hierarchical": "max"}),
        "hierarchical-attention": (
            "fractions of 510 tokens, combined by self-attention",
            {"hierarchical": "attention"},
        ),
    }
    found = {}
    for dataset in ("imdb", "sogou"):
        plain = {key: value for key, value in finetune(dataset, decay=1.0).items() if key != "truncation"}
        for key, (about, way) in ways.items():
            sentence = f"{TITLES[dataset]}: {about}. Fine-tuning alone."
            found[f"table2-{key}-{dataset}"] = Recipe(sentence, {"finetune": plain | way}, _model(dataset), dataset)
    return found


def _table3() -> dict[str, Recipe]:
    stage = finetune("imdb", decay=1.0)
    poolings = {"sweep": {"pooling": ["concat", "mean", "max"]}}
    each = {"sweep": {"layers": [[block] for block in range(12)]}}
    return {
        "table3-layers": Recipe(
            "IMDb from the [CLS] state of one block, a stage per block.", {"finetune": stage | each}
        ),
        "table3-first4": Recipe(
            "IMDb from the [CLS] states of the first 4 blocks.",
            {"finetune": stage | {"layers": [0, 1, 2, 3]} | poolings},
        ),
        "table3-last4": Recipe(
            "IMDb from the [CLS] states of the last 4 blocks.",
            {"finetune": stage | {"layers": [8, 9, 10, 11]} | poolings},
        ),
        "table3-all": Recipe(
            "IMDb from the [CLS] states of all 12 blocks.", {"finetune": stage | {"layers": "all", "pooling": "concat"}}
        ),
    }


def _table4() -> dict[str, Recipe]:
    decays = {"sweep": {"layer_decay": [1.0, 0.95, 0.9, 0.85]}}
    about = "IMDb with a learning rate of {} and four layer-wise decays, a stage per decay."
    return {
        f"table4-lr{name}": Recipe(
            about.format(rate), {"finetune": finetune("imdb", decay=1.0) | {"lr": rate} | decays}
        )
        for name, rate in (("2-5e-5", 2.5e-5), ("2e-5", 2e-5))
    }


def _table5() -> dict[str, Recipe]:
    rows: dict[str, tuple[str, Sequence[str]]] = {each: (f"{TITLES[each]} alone", (each,)) for each in ALL}
    rows |= {
        "sentiment": ("the three sentiment data sets", SENTIMENT),
        "question": ("the two question data sets", QUESTION),
        "topic": ("the two topic data sets", TOPIC),
        "all": ("all seven data sets", ALL),
    }
    return {
        f"table5-{key}": Recipe(
            f"Further pre-training on {about}, then each task.", {"pretrain": corpora(datasets)} | tasks(ALL)
        )
        for key, (about, datasets) in rows.items()
    }


def _table6() -> dict[str, Recipe]:
    # A frozen encoder needs a higher rate for the new head, as the paper's 2e-5 is for the encoder; it gives none.
    features: dict[str, Any] = {"classifier": "bilstm", "freeze": "encoder", "lr": 1e-3, "decay": 1.0}
    frozen = "BERT as a frozen extractor of features under a biLSTM with self-attention"
    sogou = {"pretrain": pretrain(splits=["train"]), "finetune": finetune("sogou")}
    return {
        "table6-features": Recipe(f"{frozen}, seven tasks.", tasks(ALL, **features)),
        "table6-features-sogou": Recipe(
            f"{frozen}, Sogou.", {"finetune": finetune("sogou", **features)}, CHINESE, "sogou"
        ),
        "table6-fit": Recipe("Fine-tuning alone (BERT-FiT), seven tasks.", tasks(ALL, init="model")),
        "table6-fit-sogou": Recipe(
            "Fine-tuning alone (BERT-FiT), Sogou.", {"finetune": finetune("sogou")}, CHINESE, "sogou"
        ),
        "table6-itpt-sogou": Recipe(
            "Pre-training within the task, then fine-tuning (BERT-ITPT-FiT), Sogou.", sogou, CHINESE, "sogou"
        ),
    }


def _table7() -> dict[str, Recipe]:
    four = ("imdb", "yelp_polarity", "ag_news", "dbpedia")
    multitask = {"data_sets": {each: data_of(each) for each in four}} | finetune("imdb")
    # "A lower learning rate" for the extra fine-tuning, says the paper: half of the usual one was chosen.
    own = tasks(four, init="multitask", lr=1e-5)
    return {
        "table7-mfit": Recipe(
            "Multi-task fine-tuning of four tasks, then each alone with a lower learning rate (BERT-MFiT-FiT).",
            {"multitask": {"init": "model"} | multitask} | own,
        ),
        "table7-cdpt-mfit": Recipe(
            "Pre-training on all domains, multi-task fine-tuning, then each task alone (BERT-CDPT-MFiT-FiT).",
            {"pretrain": corpora(ALL), "multitask": {"init": "pretrain"} | multitask} | own,
        ),
    }


def _table8() -> dict[str, Recipe]:
    five = ("imdb", "yelp_polarity", "yelp_full", "ag_news", "dbpedia")
    itpt: dict[str, Stage] = {}
    for each in five:
        itpt[f"pretrain-{each}"] = {"task": "pretrain", "init": "model", "data": data_of(each)} | pretrain(
            splits=["train"]
        )
        itpt |= tasks((each,), init=f"pretrain-{each}")
    return {
        "table8-fit": Recipe("BERT-large: fine-tuning alone (BERT-FiT), five tasks.", tasks(five, init="model"), LARGE),
        "table8-itpt": Recipe(
            "BERT-large: pre-training within the task, then fine-tuning (BERT-ITPT-FiT).", itpt, LARGE
        ),
    }
