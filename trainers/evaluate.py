"""Evaluate a finished classifier again, in one process: `python -m trainers.evaluate --run-dir R [--stage S] [--split test]`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from configs.errors import ConfigError, Exit, UserError
from configs.loader import load_resolved


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="evaluate", description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--stage", help="a finished fine-tuning stage; default: the last one")
    parser.add_argument("--split", choices=("test", "validation", "train"), default="test")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser.parse_args()


def evaluate(arguments: argparse.Namespace) -> dict[str, object]:
    """Scores of the classifier on a split (all of its rows), as in eval.json."""
    from trainers.data.split import select_rows, subset_rows
    from trainers.data.store import open_texts
    from trainers.engine.amp import AmpPolicy
    from trainers.engine.evaluation import predict_rows, report
    from trainers.tasks.finetune import TextEncoder
    from trainers.trained import SilentRecorder, alone, finished_classifier, load_classifier
    from trainers.worker import read_prepared

    config = load_resolved(arguments.run_dir / "config.yaml")
    name = finished_classifier(arguments.run_dir, config, arguments.stage)
    classifier = load_classifier(arguments.run_dir / name / "model")
    data = config.stage_data(name)
    splits = read_prepared(arguments.run_dir)["stages"][name]["splits"]
    source = arguments.split if arguments.split in splits else "train"
    if arguments.split == "test" and "test" not in splits:
        raise ConfigError(f"stage '{name}' has no test split", "choose --split validation")
    texts = open_texts(Path(splits[source]))
    if texts.labels is None:
        raise ConfigError(f"the {source} split has no labels")
    rows = np.arange(len(texts), dtype=np.int64)
    train_texts = open_texts(Path(splits["train"]))
    held_out = 0 if "validation" in splits else data.validation
    if train_texts.labels is None:
        raise ConfigError("the train split has no labels")
    train_rows, validation_rows = select_rows(train_texts.labels, held_out, data.subset.train, config.stage_seed(name))
    if source == "train":
        rows = train_rows if arguments.split == "train" else validation_rows
    elif source == "test" and data.subset.test is not None:
        rows = subset_rows(texts.labels, data.subset.test, config.stage_seed(name))
    if len(rows) == 0:
        raise ConfigError(f"stage '{name}' has no validation rows (data.validation: 0)", "choose --split test")
    majority = int(np.bincount(train_texts.labels[train_rows], minlength=len(classifier.label_names)).argmax())
    encoder = TextEncoder(texts, classifier.vocabulary, classifier.stage)
    predictions = predict_rows(
        classifier.model,
        encoder,
        rows,
        len(classifier.label_names),
        AmpPolicy("off", "float32", ""),
        alone(),
        SilentRecorder(),
        arguments.split,
        lambda: False,
    )
    result = report(texts.labels[rows], predictions, classifier.label_names, majority)
    return {"run": arguments.run_dir.name, "stage": name, "split": arguments.split, **result}


def print_table(result: dict[str, object]) -> None:
    """The main scores, one per line."""
    print(f"{result['run']}/{result['stage']}, {result['split']} split, {result['n']} items")
    for key in ("accuracy", "macro_f1", "loss", "majority_accuracy", "majority_macro_f1"):
        print(f"  {key:<18} {result[key]:.4f}")


def main() -> int:
    arguments = parse_arguments()
    try:
        result = evaluate(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    if arguments.json:
        print(json.dumps(result))
    else:
        print_table(result)
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
