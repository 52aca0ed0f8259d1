"""Classify texts with a finished classifier: `python -m trainers.predict (--run-dir R | --model FOLDER) (--text T ... | --file FILE)`.

One line per text, in input order: label, probability, text (TAB-separated), or JSON lines with every class. Memory is bounded
whatever the size of the input, and output begins before the input ends.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from configs.data import Column
from configs.errors import ConfigError, Exit, UserError
from configs.loader import load_resolved
from configs.schema import MultitaskStage

if TYPE_CHECKING:
    from trainers.predicting.inputs import Item
    from trainers.trained import Classifier

ROWS_AT_ONCE = 512
"""Rows that are sorted by length and classified together."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="predict", description=__doc__)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--run-dir", type=Path)
    model.add_argument("--model", type=Path, help="a model folder instead of a run")
    parser.add_argument("--stage", help="a finished stage with a classifier; default: the last one")
    parser.add_argument("--head", help="of a multi-task stage: the data set whose classifier to use")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--text", action="append", help="a text to classify; may be repeated")
    source.add_argument("--file", help="a UTF-8 file; - reads standard input")
    parser.add_argument("--text-pair", action="append", default=[], help="the second text of each --text")
    parser.add_argument("--format", choices=("auto", "text", "tsv", "csv", "jsonl"), default="auto")
    parser.add_argument("--column", help="column of the text: a name, or a 0-based number")
    parser.add_argument("--pair-column", help="column of the second text")
    parser.add_argument("--no-header", action="store_true", help="TSV, CSV: the first row is data")
    parser.add_argument("--json", action="store_true", help="JSON lines with the probability of every class")
    parser.add_argument(
        "--probabilities", action="store_true", help="TSV with a header and the probability of every class"
    )
    parser.add_argument("--batch", type=int, help="most sequences computed at once")
    parser.add_argument("--output", type=Path, help="write here instead of standard output, whole or not at all")
    return parser.parse_args()


def predict(arguments: argparse.Namespace) -> None:
    """Write a line per text. Raises UserErrors."""
    from trainers.predicting import output
    from trainers.predicting.inputs import in_groups

    classifier, columns = open_classifier(arguments)
    items = open_items(arguments, classifier.pairs, columns)
    names = classifier.label_names
    compute = make_predictor(classifier, arguments.batch)
    with output.open_output(arguments.output) as stream:
        groups = in_groups(items, ROWS_AT_ONCE)
        first = next(groups, [])  # what is wrong with the columns is said before anything is written
        if arguments.probabilities and not arguments.json:
            print(output.header_line(names, classifier.pairs), file=stream)
        for group in itertools.chain([first] if first else [], groups):
            for item, chances in zip(group, compute(group), strict=True):
                if arguments.json:
                    line = output.json_line(item, chances, names)
                else:
                    line = output.tsv_line(item, chances, names, arguments.probabilities)
                print(line, file=stream)
            stream.flush()


def open_classifier(arguments: argparse.Namespace) -> tuple[Classifier, tuple[Column, Column | None]]:
    """The model, and the columns that its training data had."""
    from trainers.trained import finished_classifier, load_classifier

    if arguments.model is not None:
        return load_classifier(arguments.model, arguments.head), ("text", None)
    config = load_resolved(arguments.run_dir / "config.yaml")
    name = finished_classifier(arguments.run_dir, config, arguments.stage)
    classifier, stage = load_classifier(arguments.run_dir / name / "model", arguments.head), config.stages[name]
    data = stage.data_sets[arguments.head] if isinstance(stage, MultitaskStage) else config.stage_data(name)
    return classifier, (data.columns.text, data.columns.text_pair)


def open_items(
    arguments: argparse.Namespace, takes_pairs: bool, columns: tuple[Column, Column | None]
) -> Iterator[Item]:
    """The stream of texts that the command line names."""
    from trainers.predicting.inputs import Layout, guess_format, read_arguments, read_file

    if arguments.text:
        return read_arguments(arguments.text, arguments.text_pair, takes_pairs)
    chosen = guess_format(arguments.file) if arguments.format == "auto" else arguments.format
    named = [
        f"--{name}" for name in ("column", "pair-column") if getattr(arguments, name.replace("-", "_")) is not None
    ]
    if arguments.pair_column is not None and not takes_pairs:
        raise ConfigError("--pair-column: this model was trained on single texts", "leave --pair-column out")
    if chosen == "text" and (named or arguments.no_header):
        raise ConfigError(
            f"{(named or ['--no-header'])[0]}: {arguments.file} is read as plain text, which has no columns",
            "say what it is: --format tsv, csv or jsonl",
        )
    header = not arguments.no_header
    text = _column(arguments.column, columns[0])
    pair = _column(arguments.pair_column, columns[1] if columns[1] is not None else "text_pair")
    return read_file(arguments.file, Layout(chosen, text, pair if takes_pairs else None, header))


def _column(given: str | None, default: Column) -> Column:
    if given is None:
        return default
    return int(given) if given.isdecimal() and given.isascii() else given


def make_predictor(classifier: Classifier, batch: int | None) -> Callable[[Sequence[Item]], np.ndarray]:
    """Rows in, probabilities [rows, classes] out, in the same order; `batch`: most sequences computed at once."""
    from trainers.data.sequences import SequenceMaker
    from trainers.data.tokenize import Tokenizer
    from trainers.engine.amp import AmpPolicy
    from trainers.engine.evaluation import make_batches, predict_batch, softmax

    tokenizer = Tokenizer(classifier.vocabulary, classifier.lower_case)
    make_sequences = SequenceMaker(classifier.vocabulary, classifier.stage)
    policy = AmpPolicy("off", "float32", "")

    def tokens(texts: list[str]) -> list[np.ndarray]:
        ids, lengths = tokenizer.encode_batch(texts)
        return np.split(ids.astype(np.int32), np.cumsum(lengths)[:-1])

    def sequences(group: Sequence[Item]) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
        first = tokens([item.text for item in group])
        second = tokens([item.pair or "" for item in group]) if classifier.pairs else None
        for row, ids in enumerate(first):
            yield make_sequences(ids, None if second is None else second[row])

    def compute(group: Sequence[Item]) -> np.ndarray:
        rows = list(sequences(group))
        logits = np.zeros((len(rows), len(classifier.label_names)))
        lengths = np.asarray([sum(len(ids) for ids, _ in row) for row in rows])
        for part in make_batches(np.arange(len(rows)), lengths, 1)[0]:
            size = batch or len(part)
            for start in range(0, len(part), size):
                some = part[start : start + size]
                logits[some] = predict_batch(classifier.model, [rows[i] for i in some], policy)
        return softmax(logits)

    return compute


def main() -> int:
    arguments = parse_arguments()
    try:
        predict(arguments)
    except UserError as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        return error.code
    except BrokenPipeError:
        # The reader (head, less) has what it wanted.
        sys.stderr.close()
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
