"""Turn a model into a folder that `model:` takes: `python -m trainers.import_model --from PATH --to FOLDER [--i-trust-this-file]`.

Pickled weights (pytorch_model.bin, model_state.pdparams) are read by an interpreter that knows tensors only
(trainers/importing/pickled.py), and only after the user has said that the file is trusted.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import ConfigError, Exit, UserError

if TYPE_CHECKING:
    from trainers.importing.source import Source


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="import", description=__doc__)
    parser.add_argument("--from", dest="source", type=Path, required=True)
    parser.add_argument("--to", dest="target", type=Path, required=True)
    parser.add_argument("--i-trust-this-file", action="store_true", dest="trusted")
    return parser.parse_args()


def import_model(source_path: Path, target: Path, trusted: bool) -> list[str]:
    """Write the folder; returns what to tell the user. Raises ConfigError, DataError or CannotWriteError."""
    from trainers.importing.source import find_source
    from trainers.model.target import check_target
    from trainers.model_store import import_command

    source = find_source(source_path)
    if source.pickles and not trusted:
        raise ConfigError(
            f"{source.pickles[0]}: is a pickle. A pickle is a program: it can read and delete files, send them away and start "
            "other programs when it is loaded. This import runs nothing of it and refuses whatever is not a tensor; even so, "
            "use only files from a source you trust",
            import_command(source_path, target),
        )
    check_target(target)
    return _convert(source, target)


def _convert(source: Source, target: Path) -> list[str]:
    from safetensors.numpy import save as to_safetensors

    from trainers.engine.files import write_synced
    from trainers.importing import source as files
    from trainers.model.config import BertConfig
    from trainers.model.heads import BertForPretraining
    from trainers.model.target import write_target
    from trainers.model.weights import load_arrays, to_hf_arrays, to_our_arrays
    from trainers.model_store import open_model

    config = files.read_config(source.folder)
    vocabulary, lower_case = files.read_vocabulary(source.folder), files.read_lower_case(source.folder)
    arrays = to_our_arrays(files.read_arrays(source))
    shape = BertConfig.from_json(config, str(source.folder / "config.json"))
    report = load_arrays(BertForPretraining(shape), arrays, str(source.weights[0]))
    tensors = to_safetensors(to_hf_arrays(arrays), metadata={"format": "pt"})
    kept = {key: value for key, value in config.items() if key not in ("torch_dtype", "dtype", "paddlenlp_version")}
    settings = {"tokenizer_class": "BertTokenizer", "model_max_length": shape.max_positions}

    def fill(directory: Path) -> None:
        write_synced(directory / "model.safetensors", tensors)
        write_synced(directory / "vocab.txt", vocabulary)
        write_synced(
            directory / "config.json", files.encode_json({**kept, **shape.to_json(), "torch_dtype": "float32"})
        )
        cased = lower_case if lower_case is not None else open_model(directory, source.folder.resolve().name).lower_case
        write_synced(directory / "tokenizer_config.json", files.encode_json({**settings, "do_lower_case": cased}))
        open_model(directory, target.name)

    origin = {"made_by": "./run.sh import", "from": [path.name for path in source.weights]}
    write_target(target, origin, fill)
    said = [f"{target}: {len(arrays)} tensors as float32, from {', '.join(path.name for path in source.weights)}"]
    if "bert.pooler.dense.weight" in report.new:
        said.append("the file has no pooler: fine-tuning starts with a new one")
    return [*said, f"next: ./run.sh train CONFIG model={target}"]


def main() -> int:
    arguments = parse_arguments()
    try:
        for line in import_model(arguments.source, arguments.target, arguments.trusted):
            print(line)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
