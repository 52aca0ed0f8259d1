"""Foreign weights in: files of PyTorch and Paddle written by hand, and the folder that `import` makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from configs.errors import ConfigError, DataError
from tests.support import pickles as p
from tests.support.tiny import CONFIG, VOCABULARY, hf_shapes, random_tensors, write_bert

paddle = pytest.importorskip("paddle", reason="needs Paddle")

from trainers.import_model import import_model  # noqa: E402
from trainers.importing.paddle_file import read_paddle_file  # noqa: E402
from trainers.importing.torch_file import read_torch_file  # noqa: E402
from trainers.model.weights import read_folder_weights, read_weights  # noqa: E402
from trainers.model_store import open_model  # noqa: E402

WRITERS = [p.write_torch, p.write_older_torch]


def as_float32(array: np.ndarray) -> np.ndarray:
    """What numbers of a storage type are in float32; uint16 are the bits of bfloat16."""
    if array.dtype == np.uint16:
        return np.frombuffer(b"".join(b"\0\0" + number.tobytes() for number in array.ravel()), "<f4").reshape(
            array.shape
        )
    return array.astype(np.float32)


@pytest.mark.parametrize("write", WRITERS, ids=["zip", "older"])
def test_types_and_layouts_of_pytorch_files(tmp_path: Path, write: Callable[..., Path]) -> None:
    base = np.random.default_rng(1).normal(size=(3, 4)).astype("<f4")
    arrays = {
        "float": base,
        "half": base.astype("<f2"),
        "bfloat": p.bits(base),
        "double": base.astype("<f8"),
        "transposed": base.T,
        "scalar": np.array(2.5, "<f4"),
        "whole": np.arange(6, dtype="<i8"),
    }
    read = read_torch_file(write(tmp_path / "x.bin", arrays))
    assert set(read) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], as_float32(array), err_msg=name)
        assert read[name].shape == array.shape
    assert read["bfloat"].dtype == np.float32


def test_views_share_one_storage(tmp_path: Path) -> None:
    stored = p.storage("FloatStorage", "0", 12)
    content = np.arange(12, dtype="<f4")
    items = {
        "whole": p.tensor(stored, 0, (3, 4), (4, 1)),
        "tied": p.tensor(stored, 0, (3, 4), (4, 1)),
        "transposed": p.tensor(stored, 0, (4, 3), (1, 4)),
        "part": p.tensor(stored, 5, (2, 2), (4, 2)),
        "parameter": b"ctorch._utils\n_rebuild_parameter\n"
        + p.tuple_of(p.tensor(stored, 2, (3,), (1,)), b"\x88", p.ORDERED_DICT)
        + b"R",
        "number": p.number(7),
    }
    read = read_torch_file(p.write_zip(tmp_path / "x.bin", p.dictionary(items), {"0": content.tobytes()}))
    square = content.reshape(3, 4)
    assert set(read) == set(items) - {"number"}
    for name, expected in {"whole": square, "tied": square, "transposed": square.T, "part": square[1:3, 1::2]}.items():
        np.testing.assert_array_equal(read[name], expected)
    np.testing.assert_array_equal(read["parameter"], [2, 3, 4])


def test_weights_inside_a_training_checkpoint(tmp_path: Path) -> None:
    inner = p.dictionary({"w": p.tensor(p.storage("FloatStorage", "0", 2), 0, (2,), (1,))})
    path = p.write_zip(tmp_path / "x.bin", p.dictionary({"epoch": p.number(3), "state_dict": inner}), {"0": bytes(8)})
    assert list(read_torch_file(path)) == ["w"]
    with pytest.raises(DataError, match="no dictionary of tensors"):
        read_torch_file(p.write_zip(tmp_path / "y.bin", p.number(1), {}))


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_files_of_paddle_save(tmp_path: Path, protocol: int) -> None:
    layer = paddle.nn.Linear(3, 4)
    state = {
        **layer.state_dict(),
        "half": paddle.ones([2], "float16"),
        "bfloat": paddle.to_tensor([1.5, -3.0]).astype("bfloat16"),
    }
    path = tmp_path / "x.pdparams"
    for saved in (state, {"epoch": 3, **state}):
        paddle.save(saved, str(path), protocol=protocol)
        read = read_paddle_file(path)
        assert set(read) == set(state)
        np.testing.assert_array_equal(read["weight"], layer.weight.numpy())
        assert read["bfloat"].tolist() == [1.5, -3.0]
        assert read["half"].dtype == np.float16


def test_column_order_and_byte_order(tmp_path: Path) -> None:
    import pickle

    square = np.arange(6, dtype=">f4").reshape(2, 3)
    path = tmp_path / "x.pdparams"
    path.write_bytes(pickle.dumps({"a": np.asfortranarray(square), "b": square}, protocol=4))
    for array in read_paddle_file(path).values():
        np.testing.assert_array_equal(array, square)


def pickled_folder(folder: Path, tensors: dict[str, np.ndarray], write: Callable[..., Path] = p.write_torch) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    write(folder / "pytorch_model.bin", tensors)
    return folder


@pytest.mark.parametrize("write", WRITERS, ids=["zip", "older"])
@pytest.mark.parametrize("prefix", [True, False], ids=["prefix", "bare"])
def test_import_makes_the_same_weights_as_safetensors(tmp_path: Path, write: Callable[..., Path], prefix: bool) -> None:
    expected = read_weights(write_bert(tmp_path / "reference") / "model.safetensors")
    tensors = random_tensors(hf_shapes(pretraining=True))
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"]
    if not prefix:
        tensors = {name.removeprefix("bert."): array for name, array in tensors.items()}
    old_names = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): array
                 for name, array in tensors.items()}  # fmt: skip
    target = tmp_path / "out" / "imported"
    said = import_model(pickled_folder(tmp_path / "old", old_names, write), target, trusted=True)
    assert said[-1] == f"next: ./run.sh train CONFIG model={target}"
    assert sorted(path.name for path in target.iterdir()) == [
        *("bert4doc-origin.json", "config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"),
    ]
    arrays = read_weights(open_model(target, "imported").weights[0])
    assert set(arrays) == set(expected)
    assert all(np.array_equal(arrays[name], expected[name]) for name in expected)
    stored = load_file(str(target / "model.safetensors"))
    np.testing.assert_array_equal(
        stored["bert.encoder.layer.1.intermediate.dense.weight"],
        random_tensors(hf_shapes(pretraining=True))["bert.encoder.layer.1.intermediate.dense.weight"],
    )
    assert {path.stat().st_mode & 0o077 for path in target.iterdir()} == {0}


def test_import_of_a_paddlenlp_folder_with_its_older_configuration(tmp_path: Path) -> None:
    expected = read_weights(write_bert(tmp_path / "reference") / "model.safetensors")
    folder = tmp_path / "paddle"
    folder.mkdir()
    paddle.save(
        {name: paddle.to_tensor(array) for name, array in expected.items()}, str(folder / "model_state.pdparams")
    )
    sizes = {key: value for key, value in CONFIG.items() if key not in ("architectures", "model_type")}
    older = {"init_class": "BertForPretraining", "init_args": [{"init_class": "BertModel", **sizes}]}
    (folder / "model_config.json").write_text(json.dumps(older))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    import_model(folder, tmp_path / "new", trusted=True)
    arrays = read_weights(tmp_path / "new" / "model.safetensors")
    assert all(np.array_equal(arrays[name], expected[name]) for name in expected)
    assert open_model(tmp_path / "new", "new").config["hidden_size"] == CONFIG["hidden_size"]


def test_import_of_shards_and_of_a_vocabulary_in_tokenizer_json(tmp_path: Path) -> None:
    tensors = random_tensors(hf_shapes())
    folder = pickled_folder(tmp_path / "old", {})
    (folder / "pytorch_model.bin").unlink()
    (folder / "vocab.txt").unlink()
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    weight_map = {name: names[index % 2] for index, name in enumerate(tensors)}
    for shard in names:
        p.write_torch(folder / shard, {name: array for name, array in tensors.items() if weight_map[name] == shard})
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    vocabulary = {token: index for index, token in enumerate(VOCABULARY)}
    tokenizer = {"model": {"type": "WordPiece", "vocab": vocabulary}, "normalizer": {"lowercase": False}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    import_model(folder, tmp_path / "new", trusted=True)
    assert (tmp_path / "new" / "vocab.txt").read_text() == "\n".join(VOCABULARY) + "\n"
    model = open_model(tmp_path / "new", "new")
    assert model.lower_case is False
    assert len(load_file(str(model.weights[0]))) == len(tensors)


def test_without_the_flag_nothing_is_read(tmp_path: Path) -> None:
    folder = pickled_folder(tmp_path / "my old", {})
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    with pytest.raises(ConfigError) as caught:
        import_model(folder, tmp_path / "new", trusted=False)
    assert "A pickle is a program" in caught.value.message
    assert caught.value.hint == f"./run.sh import '{folder}' --to {tmp_path / 'new'} --i-trust-this-file"
    assert not (tmp_path / "new").exists()


def test_weights_that_do_not_fit_the_configuration_leave_no_folder(tmp_path: Path) -> None:
    tensors = random_tensors(hf_shapes())
    del tensors["bert.encoder.layer.1.output.dense.bias"]
    with pytest.raises(ConfigError, match=r"missing: bert\.encoder\.layers\.1\.linear2\.bias"):
        import_model(pickled_folder(tmp_path / "old", tensors), tmp_path / "new", trusted=True)
    assert not (tmp_path / "new").exists()


def test_a_folder_of_somebody_else_is_not_overwritten_but_ours_is(tmp_path: Path) -> None:
    folder = pickled_folder(tmp_path / "old", random_tensors(hf_shapes()))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("years")
    with pytest.raises(ConfigError, match="is not empty and was not written by import or export"):
        import_model(folder, tmp_path / "taken", trusted=True)
    assert (tmp_path / "taken" / "thesis.txt").read_text() == "years"
    (tmp_path / "empty").mkdir()
    for _ in range(2):
        import_model(folder, tmp_path / "empty", trusted=True)
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    with pytest.raises(ConfigError, match="exists and is no folder"):
        import_model(folder, tmp_path / "link", trusted=True)


def test_model_folders_that_cannot_be_used_say_what_to_do(tmp_path: Path) -> None:
    folder = pickled_folder(tmp_path / "old", {})
    with pytest.raises(DataError, match=r"pytorch_model\.bin, which are pickles and are not read") as caught:
        open_model(folder, "old")
    assert f"./run.sh import {folder} --to {tmp_path / 'old-safetensors'} --i-trust-this-file" in caught.value.hint
    google = tmp_path / "google"
    google.mkdir()
    for name in ("bert_model.ckpt.index", "bert_model.ckpt.meta", "bert_config.json", "vocab.txt"):
        (google / name).write_bytes(b"x")
    for attempt in (lambda: open_model(google, "google"), lambda: import_model(google, tmp_path / "new", True)):
        with pytest.raises(DataError, match=r"holds a TensorFlow checkpoint \(bert_model\.ckpt\.index"):
            attempt()


def test_sharded_and_bfloat16_safetensors_are_read_as_they_are(tmp_path: Path) -> None:
    whole = write_bert(tmp_path / "whole")
    tensors = load_file(str(whole / "model.safetensors"))
    expected = read_weights(whole / "model.safetensors")
    parts = write_bert(tmp_path / "parts")
    (parts / "model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    weight_map = {name: names[index % 2] for index, name in enumerate(tensors)}
    for shard in names:
        save_file({name: array for name, array in tensors.items() if weight_map[name] == shard}, str(parts / shard))
    index = parts / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    arrays, where = read_folder_weights(parts)
    assert where == str(index)
    assert all(np.array_equal(arrays[name], expected[name]) for name in expected)
    assert open_model(parts, "parts").num_parameters == open_model(whole, "whole").num_parameters
    (parts / names[1]).unlink()
    with pytest.raises(DataError, match=f"names 2 files; missing: {names[1]}"):
        open_model(parts, "parts")
    index.write_text(json.dumps({"weight_map": {"a": "../whole/model.safetensors"}}))
    with pytest.raises(DataError, match=r"'\.\./whole/model\.safetensors' is no \.safetensors file beside it"):
        open_model(parts, "parts")


def test_bfloat16_safetensors(tmp_path: Path) -> None:
    """By the format's description: length of the header, header, numbers."""
    numbers = np.random.default_rng(0).normal(size=(3, 4)).astype("<f4")
    header = {
        "bert.pooler.dense.weight": {"dtype": "BF16", "shape": [3, 4], "data_offsets": [0, 24]},
        "bert.pooler.dense.bias": {"dtype": "F32", "shape": [3], "data_offsets": [24, 36]},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + p.bits(numbers).tobytes() + numbers[:, 0].tobytes())
    arrays = read_weights(path)
    np.testing.assert_array_equal(arrays["bert.pooler.dense.weight"], as_float32(p.bits(numbers)).T)
    np.testing.assert_array_equal(arrays["bert.pooler.dense.bias"], numbers[:, 0])
