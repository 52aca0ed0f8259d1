"""What `import` is pointed at: a file or a folder of weights, and the configuration and vocabulary beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import ConfigError, DataError
from trainers.data.readers.base import list_folder
from trainers.importing.paddle_file import read_paddle_file
from trainers.importing.torch_file import read_torch_file
from trainers.model.stored import indexed_files, read_stored, weight_files
from trainers.model_store import read_json_object, read_model_config, refuse_tensorflow

_TORCH_FILE, _TORCH_INDEX, _PADDLE_FILE = "pytorch_model.bin", "pytorch_model.bin.index.json", "model_state.pdparams"
_TORCH_SUFFIXES, _PADDLE_SUFFIXES = (".bin", ".pt", ".pth"), (".pdparams",)


@dataclass(frozen=True)
class Source:
    """Files to convert."""

    folder: Path
    weights: tuple[Path, ...]

    @property
    def pickles(self) -> tuple[Path, ...]:
        """The weight files that are pickles."""
        return tuple(path for path in self.weights if path.suffix != ".safetensors")


def find_source(path: Path) -> Source:
    """The weight files that a path names: itself, or the best of a folder (safetensors before pickles).

    Raises ConfigError when it does not exist, DataError when there is nothing that can be converted.
    """
    if path.is_file():
        return Source(path.parent, (_known(path),))
    if not path.is_dir():
        raise ConfigError(f"import: {path} does not exist", "name a folder or a weight file: ./run.sh import --help")
    weights = _named_weights(path)
    if not weights:
        refuse_tensorflow(path)
        weights = tuple(sorted(each for each in path.iterdir() if each.suffix in (*_TORCH_SUFFIXES, *_PADDLE_SUFFIXES)))
        if len(weights) != 1:
            listed = ", ".join(each.name for each in weights[:5])
            raise DataError(
                f"{path}: "
                + (f"several weight files: {listed}" if weights else f"no weights; it holds {list_folder(path)}"),
                f"name the file: {_TORCH_FILE}, {_PADDLE_FILE} or model.safetensors",
            )
    return Source(path, weights)


def _named_weights(folder: Path) -> tuple[Path, ...]:
    """The weights of a folder under their usual names, the safest form first; empty when there are none."""
    if found := weight_files(folder):
        return found
    if (folder / _TORCH_INDEX).is_file():
        return indexed_files(folder / _TORCH_INDEX, ".bin")
    return tuple(folder / name for name in (_TORCH_FILE, _PADDLE_FILE) if (folder / name).is_file())[:1]


def _known(path: Path) -> Path:
    if path.suffix in (*_TORCH_SUFFIXES, *_PADDLE_SUFFIXES, ".safetensors"):
        return path
    if ".ckpt" in path.name:
        refuse_tensorflow(path.parent)
    raise DataError(
        f"{path}: not a known kind of weight file", f"known: {_TORCH_FILE}, {_PADDLE_FILE}, model.safetensors"
    )


def read_arrays(source: Source) -> dict[str, np.ndarray]:
    """All tensors under the names of the files. Raises DataError; nothing of a file is run."""
    arrays: dict[str, np.ndarray] = {}
    for path in source.weights:
        if path.suffix == ".safetensors":
            arrays |= read_stored(path)
        else:
            arrays |= read_paddle_file(path) if path.suffix in _PADDLE_SUFFIXES else read_torch_file(path)
    if not arrays:
        raise DataError(f"{source.weights[0]}: holds no tensors", "is this the file of the weights?")
    return arrays


def read_config(folder: Path) -> dict[str, Any]:
    """config.json, or the model_config.json of older PaddleNLP. Raises DataError."""
    older = folder / "model_config.json"
    if (folder / "config.json").is_file() or not older.is_file():
        return read_model_config(folder / "config.json")
    values = read_json_object(older)
    inner = values
    while isinstance(inner.get("init_args"), list) and inner["init_args"] and isinstance(inner["init_args"][0], dict):
        inner = inner["init_args"][0]
    flat = {key: value for key, value in inner.items() if key not in ("init_class", "init_args")}
    return {"model_type": "bert", "architectures": ["BertModel"], **flat}


def read_vocabulary(folder: Path) -> bytes:
    """vocab.txt, or the same from tokenizer.json, where newer versions of Transformers put it. Raises DataError."""
    try:
        if (folder / "vocab.txt").is_file():
            return (folder / "vocab.txt").read_bytes()
        if not (folder / "tokenizer.json").is_file():
            raise DataError(
                f"{folder}: has neither vocab.txt nor tokenizer.json; it holds {list_folder(folder)}",
                "put the vocab.txt that belongs to the model beside the weights",
            )
        values = read_json_object(folder / "tokenizer.json")
        model = values["model"]
        if model.get("type", "WordPiece") != "WordPiece":
            raise ValueError(f"a {model['type']} tokenizer; BERT's is WordPiece")
        tokens = sorted((index, token) for token, index in model["vocab"].items())
        if [index for index, _ in tokens] != list(range(len(tokens))) or any("\n" in token for _, token in tokens):
            raise ValueError("a vocabulary with gaps")
        return "".join(f"{token}\n" for _, token in tokens).encode()
    except OSError as error:
        raise DataError(f"{folder}: cannot read the vocabulary: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / 'tokenizer.json'}: no vocabulary of a BERT ({error})") from error


def read_lower_case(folder: Path) -> bool | None:
    """Whether texts are lower-cased, where a tokenizer's settings say so."""
    settings = folder / "tokenizer_config.json"
    value = read_json_object(settings).get("do_lower_case") if settings.is_file() else None
    if isinstance(value, bool):
        return value
    tokenizer = folder / "tokenizer.json"
    normalizer = read_json_object(tokenizer).get("normalizer") if tokenizer.is_file() else None
    value = normalizer.get("lowercase") if isinstance(normalizer, dict) else None
    return value if isinstance(value, bool) else None


def encode_json(value: object) -> bytes:
    """Readable JSON."""
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"
