"""Classify texts with a finished classifier: `python -m trainers.predict --run-dir R (--text T ... | --file FILE | -)`.

One text per line in, one line per text out, in order: label, probability, text (TAB-separated), or JSON lines with every class.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from configs.errors import DataError, Exit, UserError
from configs.loader import load_resolved

LINES_AT_ONCE = 512


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="predict", description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--stage", help="a finished stage with a classifier; default: the last one")
    parser.add_argument("--head", help="of a multi-task stage: the data set whose classifier to use")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--text", nargs="+", help="texts to classify")
    source.add_argument("--file", help="a UTF-8 file with one text per line; - reads standard input")
    parser.add_argument("--json", action="store_true", help="JSON lines with the probability of every class")
    return parser.parse_args()


def read_texts(arguments: argparse.Namespace, stack: ExitStack) -> Iterator[str]:
    """The texts to classify, without their line ends."""
    if arguments.text:
        yield from arguments.text
        return
    if arguments.file == "-" and sys.stdin is None:
        raise DataError("-: standard input is closed", "name a file of texts, or use --text")
    try:
        file = sys.stdin.buffer if arguments.file == "-" else stack.enter_context(open_binary(arguments.file))
    except OSError as error:
        raise DataError(f"{arguments.file}: cannot be read: {error.strerror}") from error
    for number, line in enumerate(file, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            where = f"{arguments.file}:{number}"
            raise DataError(f"{where}: not UTF-8 (byte {error.start})", "convert the file to UTF-8") from error


def open_binary(name: str) -> BinaryIO:
    """A file for reading bytes; the caller closes it."""
    return Path(name).open("rb")


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Groups of lines: memory is bounded whatever the size of the input."""
    iterator = iter(texts)
    while group := list(islice(iterator, LINES_AT_ONCE)):
        yield group


def predict(arguments: argparse.Namespace) -> None:
    """Print a line per text."""
    from trainers.data.sequences import SequenceMaker
    from trainers.data.tokenize import Tokenizer
    from trainers.engine.amp import AmpPolicy
    from trainers.engine.evaluation import make_batches, predict_batch, softmax
    from trainers.trained import finished_classifier, load_classifier

    config = load_resolved(arguments.run_dir / "config.yaml")
    name = finished_classifier(arguments.run_dir, config, arguments.stage)
    classifier = load_classifier(arguments.run_dir / name / "model", arguments.head)
    tokenizer = Tokenizer(classifier.vocabulary, classifier.lower_case)
    make_sequences = SequenceMaker(classifier.vocabulary, classifier.stage)
    policy = AmpPolicy("off", "float32", "")

    with ExitStack() as stack:
        for group in batches(read_texts(arguments, stack)):
            texts = [make_sequences(tokenizer.encode(text)) for text in group]
            lengths = np.asarray([sum(len(ids) for ids, _ in sequences) for sequences in texts])
            logits = np.zeros((len(group), len(classifier.label_names)))
            for part in make_batches(np.arange(len(group)), lengths, 1)[0]:
                logits[part] = predict_batch(classifier.model, [texts[i] for i in part], policy)
            for text, chances in zip(group, softmax(logits), strict=True):
                print_prediction(text, chances, classifier.label_names, arguments.json)


def print_prediction(text: str, chances: np.ndarray, label_names: tuple[str, ...], as_json: bool) -> None:
    """One line on standard output."""
    best = int(chances.argmax())
    if as_json:
        every = dict(zip(label_names, chances.tolist(), strict=True))
        print(
            json.dumps(
                {
                    "label": label_names[best],
                    "probability": every[label_names[best]],
                    "probabilities": every,
                    "text": text,
                }
            )
        )
    else:
        print(f"{label_names[best]}\t{chances[best]:.4f}\t{text}")


def main() -> int:
    arguments = parse_arguments()
    try:
        predict(arguments)
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    except BrokenPipeError:
        # The reader (head, less) has what it wanted.
        sys.stderr.close()
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
