"""Reading and writing of weights as safetensors: folders that PaddleNLP and Transformers load, nothing pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from configs.errors import ConfigError, DataError
from trainers.model.names import classifier_part, from_hf, is_derived, is_head, is_transposed, to_hf
from trainers.model.stored import INDEX_FILE, WEIGHTS_FILE, read_stored, weight_files

Arrays = dict[str, np.ndarray]
_MOST_LISTED = 20


@dataclass(frozen=True)
class LoadReport:
    """What a load did: heads that are new (randomly initialised), and tensors of the file that the model has no use for."""

    new: tuple[str, ...]
    unused: tuple[str, ...]


def read_weights(path: Path) -> Arrays:
    """All tensors of a safetensors file as float32 under our names and in Paddle's layout.

    Accepts files of Transformers (names like `encoder.layer.0`, matrices [out, in]) and of PaddleNLP (`encoder.layers.0`, [in, out]),
    in float32, float16 or bfloat16. Raises DataError for an unreadable file.
    """
    return to_our_arrays(read_stored(path))


def read_folder_weights(folder: Path) -> tuple[Arrays, str]:
    """`read_weights` of a folder, whose weights may be spread over several files; also the name to use in errors.

    Raises DataError when a file is missing or unreadable.
    """
    files = weight_files(folder)
    if not files:
        raise DataError(f"{folder}: has no {WEIGHTS_FILE}", "use the folder of a model with safetensors")
    stored: Arrays = {}
    for file in files:
        stored |= read_stored(file)
    return to_our_arrays(stored), str(files[0] if len(files) == 1 else folder / INDEX_FILE)


def to_our_arrays(stored: Mapping[str, np.ndarray]) -> Arrays:
    """Stored tensors as float32 under our names and in Paddle's layout; the names tell whose layout they have."""
    foreign = not any("encoder.layers." in name for name in stored)
    arrays: Arrays = {}
    for name, array in stored.items():
        ours = from_hf(name)
        if is_derived(ours):
            continue
        ours_layout = array.T if foreign and is_transposed(ours, array.ndim) else array
        arrays[ours] = np.ascontiguousarray(ours_layout, dtype=np.float32)
    return arrays


def trainable_arrays(model: nn.Layer) -> dict[str, paddle.Tensor]:
    """The model's parameters by structured name, each tied parameter once (under its first name)."""
    return dict(model.named_parameters())


def load_arrays(model: nn.Layer, arrays: Mapping[str, np.ndarray], where: str) -> LoadReport:
    """Copy arrays (our names) into the model, all or nothing.

    Heads may be missing (they stay as initialised) or superfluous; a part of the classifier of another shape counts as new.
    Raises ConfigError that lists every other missing, unexpected or misshapen tensor.
    """
    parameters = trainable_arrays(model)
    shapes = {name: list(parameter.shape) for name, parameter in parameters.items()}
    misshapen = [name for name, shape in shapes.items() if name in arrays and list(arrays[name].shape) != shape]
    resized = {classifier_part(name) for name in misshapen} - {None}
    arrays = {name: array for name, array in arrays.items() if classifier_part(name) not in resized}
    missing = [name for name in shapes if name not in arrays]
    unexpected = [name for name in arrays if name not in shapes]
    problems = [f"missing: {name} {shapes[name]}" for name in missing if not is_head(name)]
    problems += [f"unexpected: {name} {list(arrays[name].shape)}" for name in unexpected if not is_head(name)]
    problems += [
        f"misshapen: {name} is {list(arrays[name].shape)} in the file, {shapes[name]} in the model"
        for name in misshapen
        if classifier_part(name) not in resized
    ]
    if problems:
        more = f"\n  and {len(problems) - _MOST_LISTED} more" if len(problems) > _MOST_LISTED else ""
        listed = "\n  ".join(problems[:_MOST_LISTED])
        raise ConfigError(
            f"{where}: the weights do not fit the model ({len(problems)} tensors):\n  {listed}{more}",
            "use the config.json that belongs to these weights",
        )
    for name, parameter in parameters.items():
        if name in arrays:
            parameter.set_value(arrays[name])
    return LoadReport(tuple(missing), tuple(unexpected))


def take_head(arrays: Mapping[str, np.ndarray], head: str) -> Arrays:
    """The weights of a multi-task model as those of a model with one classifier: that of the data set `head`."""
    prefix = f"classifiers.{head}."
    renamed = {
        name.replace(prefix, "classifier.", 1): array for name, array in arrays.items() if name.startswith(prefix)
    }
    return {**{name: array for name, array in arrays.items() if not name.startswith("classifiers.")}, **renamed}


def to_hf_arrays(arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Our arrays under Transformers' names and in its layout."""
    return {
        to_hf(name): np.ascontiguousarray(array.T if is_transposed(name, array.ndim) else array)
        for name, array in arrays.items()
    }


def read_config_json(folder: Path) -> dict[str, object]:
    """The config.json of a model folder.

    Raises ConfigError when it is missing or no JSON object.
    """
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}", "point `model` at a Hugging Face folder") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: not a JSON object")
    return values
