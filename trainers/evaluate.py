"""Evaluate a finished classifier again, in one process: `python -m trainers.evaluate --run-dir R [--stage S] [--split test]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import ConfigError, Exit, UserError
from configs.loader import load_resolved
from configs.schema import DataConfig, MultitaskStage

if TYPE_CHECKING:
    from trainers.stages.labelled import Split


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="evaluate", description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--stage", help="a finished stage with a classifier; default: the last one")
    parser.add_argument("--data-set", help="of a multi-task stage: only this data set; default: all of them")
    parser.add_argument("--split", choices=("test", "validation", "train"), default="test")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser.parse_args()


def evaluate(arguments: argparse.Namespace) -> dict[str, Any]:
    """Scores on a split (all of its rows), as in eval.json; for a multi-task stage without --data-set those of all data sets."""
    from trainers.stages.examine import MAJORITY, SCORES, over_data_sets
    from trainers.trained import finished_classifier
    from trainers.worker import read_prepared

    config = load_resolved(arguments.run_dir / "config.yaml")
    name = finished_classifier(arguments.run_dir, config, arguments.stage)
    stage, facts = config.stages[name], read_prepared(arguments.run_dir)["stages"][name]
    folder, seed = arguments.run_dir / name / "model", config.stage_seed(name)
    result: dict[str, Any]
    if not isinstance(stage, MultitaskStage):
        if arguments.data_set is not None:
            raise ConfigError(f"--data-set: stage '{name}' has one data set only", "leave --data-set out")
        result = evaluate_classifier(folder, None, config.stage_data(name), facts, seed, arguments.split)
    else:
        if arguments.data_set not in (None, *stage.data_sets):
            allowed = ", ".join(stage.data_sets)
            raise ConfigError(f"--data-set {arguments.data_set}: stage '{name}' has {allowed}", "name one of them")
        chosen = [arguments.data_set] if arguments.data_set is not None else list(stage.data_sets)
        results = {
            each: evaluate_classifier(
                folder, each, stage.data_sets[each], facts["data_sets"][each], seed, arguments.split
            )
            for each in chosen
        }
        named = arguments.data_set is not None
        result = (
            {"data_set": chosen[0], **results[chosen[0]]} if named else over_data_sets(results, (*SCORES, *MAJORITY))
        )
    return {"run": arguments.run_dir.name, "stage": name, "split": arguments.split, **result}


def evaluate_classifier(
    folder: Path, head: str | None, data: DataConfig, facts: Mapping[str, Any], seed: int, split: Split
) -> dict[str, Any]:
    """The report of one classifier on a split of its data set. Raises ConfigError when there are no such rows."""
    from trainers.engine.amp import AmpPolicy
    from trainers.engine.evaluation import predict_rows, report
    from trainers.stages.labelled import LabelledData
    from trainers.trained import SilentRecorder, alone, load_classifier

    classifier = load_classifier(folder, head)
    labelled = LabelledData(facts, data, classifier.stage, classifier.vocabulary, seed)
    what = f"stage '{folder.parent.name}'" if head is None else f"data set '{head}'"
    if split == "test" and not labelled.has_test():
        raise ConfigError(f"{what} has no test split", "choose --split validation")
    chosen = labelled.rows(split)
    if len(chosen.rows) == 0:
        raise ConfigError(f"{what} has no validation rows (data.validation: 0)", "choose --split test")
    predictions = predict_rows(
        classifier.model,
        chosen.encoder,
        chosen.rows,
        len(classifier.label_names),
        AmpPolicy("off", "float32", ""),
        alone(),
        SilentRecorder(),
        split,
        lambda: False,
    )
    return report(chosen.labels, predictions, classifier.label_names, labelled.majority_class())


def print_table(result: Mapping[str, Any]) -> None:
    """The main scores, one per line; of several data sets a column each, after their mean."""
    each = result.get("data_sets", {})
    of = f" of {result['data_set']}" if "data_set" in result else ""
    print(f"{result['run']}/{result['stage']}, {result['split']} split{of}, {result['n']} items")
    columns = [("mean" if each else "", result), *each.items()]
    width = max(10, *(len(name) + 2 for name, _ in columns))
    if each:
        print(f"  {'':<18}" + "".join(f"{name:>{width}}" for name, _ in columns))
    for key in ("accuracy", "macro_f1", "loss", "majority_accuracy", "majority_macro_f1"):
        values = [f"{column[key]:.4f}" for _, column in columns]
        print(f"  {key:<18} " + values[0] if not each else f"  {key:<18}" + "".join(f"{v:>{width}}" for v in values))


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
