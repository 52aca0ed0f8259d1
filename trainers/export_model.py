"""Export a trained model: `python -m trainers.export_model (--run-dir R [--stage S] | --model FOLDER) --format F [--to FOLDER]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import ConfigError, Exit, UserError
from configs.loader import load_resolved

if TYPE_CHECKING:
    from trainers.exporting.source import Trained


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="export", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run-dir", type=Path)
    source.add_argument("--model", type=Path, help="a model folder of a stage")
    parser.add_argument("--stage", help="a finished stage; default: the last classifier, else the last one")
    parser.add_argument("--format", choices=("hf", "paddlenlp", "inference"), required=True)
    parser.add_argument("--head", help="of a multi-task stage: the data set whose classifier to export")
    parser.add_argument("--to", type=Path, help="default: R/STAGE/export-FORMAT")
    return parser.parse_args()


def export(arguments: argparse.Namespace) -> list[str]:
    """Write the folder; returns what to tell the user. Raises UserErrors."""
    from trainers.exporting.source import check_format, last_finished, open_trained, write_one_head
    from trainers.model.target import check_target

    if arguments.model is not None:
        if arguments.to is None:
            raise ConfigError("export: --to FOLDER is needed for a model folder", "./run.sh export --help")
        folder, target = arguments.model, arguments.to
    else:
        stage = last_finished(arguments.run_dir, load_resolved(arguments.run_dir / "config.yaml"), arguments.stage)
        folder = arguments.run_dir / stage / "model"
        target = (
            arguments.to
            or arguments.run_dir / stage / f"export-{arguments.head + '-' if arguments.head else ''}{arguments.format}"
        )
    check_target(target)
    with tempfile.TemporaryDirectory(prefix="bert4doc-export-") as scratch:
        if arguments.head is not None:
            write_one_head(folder, arguments.head, Path(scratch) / "model")
            folder = Path(scratch) / "model"
        trained = open_trained(folder)
        check_format(trained, arguments.format)
        return _write(trained, arguments.format, target)


def _write(trained: Trained, chosen: str, target: Path) -> list[str]:
    from trainers.exporting.hf import CLASSES as HF_CLASSES
    from trainers.exporting.hf import fill_hf
    from trainers.exporting.inference import fill_inference
    from trainers.exporting.paddlenlp import CLASSES as PADDLENLP_CLASSES
    from trainers.exporting.paddlenlp import fill_paddlenlp
    from trainers.model.target import write_target

    differences: list[float] = []
    fill = {
        "hf": lambda directory: fill_hf(trained, directory),
        "paddlenlp": lambda directory: fill_paddlenlp(trained, directory),
        "inference": lambda directory: differences.append(fill_inference(trained, directory)),
    }[chosen]
    write_target(target, {"made_by": "./run.sh export", "format": chosen}, fill)
    if chosen == "inference":
        return [
            f"{target}: a program for paddle.inference; its logits differ from the model's by at most {differences[0]:.1e}",
            f'next: .venv/bin/python {target / "example.py"} "a text"',
        ]
    library, names = {"hf": ("Transformers", HF_CLASSES), "paddlenlp": ("PaddleNLP", PADDLENLP_CLASSES)}[chosen]
    said = [f"{target}: {library} loads it with {names[trained.head]}.from_pretrained"]
    if trained.head == "blocks":
        said.append(
            f"only the encoder: {library} has no classifier on chosen blocks; the classifier's tensors and bert4doc.json are there "
            "too, and --format inference exports all of it"
        )
    return said


def main() -> int:
    arguments = parse_arguments()
    try:
        for line in export(arguments):
            print(line)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
