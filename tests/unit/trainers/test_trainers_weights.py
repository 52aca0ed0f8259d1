"""Names, layouts and loading of weights; folders that PaddleNLP loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.support.tiny import CLASSES, HIDDEN, VOCABULARY, hf_shapes, random_tensors, write_bert

paddle = pytest.importorskip("paddle", reason="needs Paddle")

from configs.errors import ConfigError, DataError  # noqa: E402
from configs.schema import FinetuneStage, PretrainStage  # noqa: E402
from trainers.data.sequences import SequenceMaker  # noqa: E402
from trainers.model.batch import make_text_batch, make_token_batch  # noqa: E402
from trainers.model.folder import ModelSource, build_model, load_folder, read_bert_config, save_folder  # noqa: E402
from trainers.model.heads import BertForClassification, BertForPretraining  # noqa: E402
from trainers.model.names import from_hf, to_hf  # noqa: E402
from trainers.model.weights import read_weights, to_hf_arrays  # noqa: E402
from trainers.trained import load_classifier  # noqa: E402

FINETUNE = FinetuneStage(task="finetune", epochs=1, max_length=32)
BLOCKS = FinetuneStage(task="finetune", epochs=1, max_length=32, layers=(0, 1), pooling="mean")
LSTM = FinetuneStage(task="finetune", epochs=1, max_length=32, classifier="bilstm", lstm_size=7)
FRACTIONS = FinetuneStage(task="finetune", epochs=1, max_length=8, hierarchical="attention", max_fractions=2)
PRETRAIN = PretrainStage(task="pretrain", max_steps=1, max_length=32)
IDS, TYPES = np.array([2, 7, 8, 9, 3, 12, 13, 3]), np.array([0, 0, 0, 0, 0, 1, 1, 1])


@pytest.fixture(autouse=True)
def seeded() -> None:
    paddle.set_device("cpu")
    paddle.seed(7)


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return write_bert(tmp_path / "bert")


def pretraining(folder: Path) -> BertForPretraining:
    return BertForPretraining(read_bert_config(folder))


def test_every_tensor_of_a_checkpoint_arrives_in_its_place(bert: Path) -> None:
    """Each of Transformers' tensors, found by a hand-written rule, transposed exactly where it is a linear layer's matrix."""
    model = pretraining(bert)
    report = load_folder(model, bert)
    assert (report.new, report.unused) == ((), ())
    ours = {name: parameter.numpy() for name, parameter in model.named_parameters()}
    stored = load_file(str(bert / "model.safetensors"))
    assert len(ours) == len(stored)
    for name, array in stored.items():
        is_linear = array.ndim == 2 and "embeddings" not in name
        np.testing.assert_array_equal(ours[from_hf(name)], array.T if is_linear else array, err_msg=name)
    # Places that a wrong rule would mix up, by hand.
    first = "bert.encoder.layer.0"
    theirs = {
        "bert.encoder.layers.0.norm1.weight": f"{first}.attention.output.LayerNorm.weight",
        "bert.encoder.layers.0.norm2.bias": f"{first}.output.LayerNorm.bias",
        "bert.encoder.layers.0.self_attn.out_proj.bias": f"{first}.attention.output.dense.bias",
        "bert.encoder.layers.0.linear1.bias": f"{first}.intermediate.dense.bias",
        "bert.encoder.layers.0.linear2.bias": f"{first}.output.dense.bias",
        "bert.encoder.layers.1.self_attn.k_proj.bias": "bert.encoder.layer.1.attention.self.key.bias",
        "cls.predictions.decoder_bias": "cls.predictions.bias",
        "cls.predictions.layer_norm.weight": "cls.predictions.transform.LayerNorm.weight",
        "cls.predictions.transform.bias": "cls.predictions.transform.dense.bias",
    }
    for own, name in theirs.items():
        np.testing.assert_array_equal(ours[own], stored[name], err_msg=own)


@pytest.mark.parametrize("num_classes", [None, 3])
def test_names_go_there_and_back(bert: Path, num_classes: int | None) -> None:
    config = read_bert_config(bert)
    model: Any = pretraining(bert) if num_classes is None else BertForClassification(config, num_classes)
    names = [name for name, _ in model.named_parameters()]
    assert [from_hf(to_hf(name)) for name in names] == names
    assert {to_hf(name) for name in names} == set(hf_shapes(num_classes, pretraining=num_classes is None))


def test_what_is_written_has_transformers_names_and_shapes(bert: Path, tmp_path: Path) -> None:
    config = read_bert_config(bert)
    for stage, expected in ((FINETUNE, hf_shapes(num_classes=3)), (PRETRAIN, hf_shapes(pretraining=True))):
        model = build_model(stage, config, 3)
        arrays = {name: parameter.numpy() for name, parameter in model.named_parameters()}
        target = tmp_path / stage.task
        save_folder(target, arrays, config, stage, ModelSource(bert, True), CLASSES if stage is FINETUNE else ())
        stored = load_file(str(target / "model.safetensors"))
        assert {name: array.shape for name, array in stored.items()} == expected
        assert all(array.dtype == np.float32 for array in stored.values())
        again = read_weights(target / "model.safetensors")
        assert set(again) == set(arrays)
        assert all(np.array_equal(again[name], arrays[name]) for name in arrays)


def rewrite(folder: Path, rename: Any) -> None:
    """Store the same tensors under other names; None drops one."""
    tensors = load_file(str(folder / "model.safetensors"))
    renamed = {rename(name): array for name, array in tensors.items() if rename(name) is not None}
    save_file(renamed, str(folder / "model.safetensors"))


def test_old_and_short_names_mean_the_same(bert: Path, tmp_path: Path) -> None:
    expected = read_weights(bert / "model.safetensors")
    old = write_bert(tmp_path / "old")
    rewrite(
        old,
        lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"),
    )
    short = write_bert(tmp_path / "short")
    rewrite(short, lambda name: name.removeprefix("bert."))
    for folder in (old, short):
        arrays = read_weights(folder / "model.safetensors")
        assert set(arrays) == set(expected)
        assert all(np.array_equal(arrays[name], expected[name]) for name in expected)


def test_a_paddlenlp_file_is_not_transposed(bert: Path, tmp_path: Path) -> None:
    ours = read_weights(bert / "model.safetensors")
    for prefix in ("", "bert."):
        path = tmp_path / f"paddle{prefix}.safetensors"
        save_file({name.removeprefix("" if prefix else "bert."): array for name, array in ours.items()}, str(path))
        arrays = read_weights(path)
        assert all(np.array_equal(arrays[name], ours[name]) for name in ours)


def test_repeated_tensors_and_buffers_are_passed_over(bert: Path) -> None:
    tensors = load_file(str(bert / "model.safetensors"))
    tensors["cls.predictions.decoder.weight"] = np.zeros((len(VOCABULARY), HIDDEN), dtype=np.float32)
    tensors["cls.predictions.decoder.bias"] = np.zeros(len(VOCABULARY), dtype=np.float32)
    tensors["bert.embeddings.position_ids"] = np.arange(64)[None]
    save_file(tensors, str(bert / "model.safetensors"))
    model = pretraining(bert)
    assert load_folder(model, bert).unused == ()
    np.testing.assert_array_equal(model.cls.predictions.decoder_bias.numpy(), tensors["cls.predictions.bias"])
    np.testing.assert_array_equal(
        model.bert.embeddings.word_embeddings.weight.numpy(), tensors["bert.embeddings.word_embeddings.weight"]
    )


def test_all_that_does_not_fit_is_listed_at_once_and_nothing_is_loaded(bert: Path) -> None:
    tensors = load_file(str(bert / "model.safetensors"))
    del tensors["bert.encoder.layer.0.output.dense.bias"]
    del tensors["bert.embeddings.LayerNorm.weight"]
    tensors["bert.encoder.layer.7.output.dense.bias"] = np.zeros(HIDDEN, dtype=np.float32)
    tensors["bert.encoder.layer.1.intermediate.dense.weight"] = np.zeros((65, HIDDEN), dtype=np.float32)
    save_file(tensors, str(bert / "model.safetensors"))
    model = pretraining(bert)
    before = model.bert.pooler.dense.weight.numpy()
    with pytest.raises(ConfigError) as caught:
        load_folder(model, bert)
    message = caught.value.message
    assert message.startswith(f"{bert / 'model.safetensors'}: the weights do not fit the model (4 tensors):")
    assert "missing: bert.encoder.layers.0.linear2.bias [32]" in message
    assert "missing: bert.embeddings.layer_norm.weight [32]" in message
    assert "unexpected: bert.encoder.layers.7.linear2.bias [32]" in message
    assert "misshapen: bert.encoder.layers.1.linear1.weight is [32, 65] in the file, [32, 64] in the model" in message
    np.testing.assert_array_equal(model.bert.pooler.dense.weight.numpy(), before)


def test_a_long_list_is_cut(bert: Path) -> None:
    rewrite(bert, lambda name: None if ".layer." in name else name)
    with pytest.raises(ConfigError) as caught:
        load_folder(pretraining(bert), bert)
    assert "(32 tensors)" in caught.value.message
    assert caught.value.message.count("missing: ") == 20
    assert caught.value.message.endswith("and 12 more")


def test_heads_may_be_new_unused_or_of_another_size(bert: Path, tmp_path: Path) -> None:
    config = read_bert_config(bert)
    classifier = BertForClassification(config, 3)
    fresh = classifier.classifier.weight.numpy()
    report = load_folder(classifier, bert)
    assert set(report.new) == {"classifier.weight", "classifier.bias"}
    assert set(report.unused) == {from_hf(name) for name in hf_shapes(pretraining=True) if name.startswith("cls.")}
    np.testing.assert_array_equal(classifier.classifier.weight.numpy(), fresh)
    save_file(random_tensors(hf_shapes(num_classes=5)), str(bert / "model.safetensors"))
    report = load_folder(classifier, bert)
    assert set(report.new) == {"classifier.weight", "classifier.bias"}
    np.testing.assert_array_equal(classifier.classifier.weight.numpy(), fresh)
    without_pooler = write_bert(tmp_path / "without")
    rewrite(without_pooler, lambda name: None if "pooler" in name or name.startswith("cls.") else name)
    report = load_folder(BertForClassification(config, 3), without_pooler)
    assert {"bert.pooler.dense.weight", "bert.pooler.dense.bias"} < set(report.new)


def test_a_misshapen_pooler_is_an_error(bert: Path) -> None:
    tensors = load_file(str(bert / "model.safetensors"))
    tensors["bert.pooler.dense.weight"] = np.zeros((3, 3), dtype=np.float32)
    save_file(tensors, str(bert / "model.safetensors"))
    with pytest.raises(
        ConfigError, match=r"misshapen: bert\.pooler\.dense\.weight is \[3, 3\] in the file, \[32, 32\]"
    ):
        load_folder(pretraining(bert), bert)


def test_damaged_files_are_data_errors(bert: Path) -> None:
    path = bert / "model.safetensors"
    content = path.read_bytes()
    for damaged in (b"", content[:100], content[: len(content) // 2], b"\xff" * 8 + content[8:], content + b"more"):
        path.write_bytes(damaged)
        with pytest.raises(DataError) as caught:
            read_weights(path)
        assert caught.value.message.startswith(f"{path}: cannot be read as safetensors")
    path.unlink()
    with pytest.raises(DataError):
        read_weights(path)


def test_half_precision_files_are_read_as_float32(bert: Path) -> None:
    tensors = load_file(str(bert / "model.safetensors"))
    save_file({name: array.astype(np.float16) for name, array in tensors.items()}, str(bert / "model.safetensors"))
    arrays = read_weights(bert / "model.safetensors")
    assert {array.dtype for array in arrays.values()} == {np.dtype("float32")}
    np.testing.assert_array_equal(
        arrays["bert.pooler.dense.bias"], tensors["bert.pooler.dense.bias"].astype(np.float16).astype(np.float32)
    )


@pytest.mark.parametrize(
    "stage",
    [FINETUNE, BLOCKS, LSTM, FRACTIONS, PRETRAIN],
    ids=["pooler", "blocks", "bilstm", "fractions", "pretrain"],
)
def test_a_saved_folder_loads_in_paddlenlp(bert: Path, tmp_path: Path, stage: FinetuneStage | PretrainStage) -> None:
    transformers = pytest.importorskip("paddlenlp.transformers", reason="needs PaddleNLP")
    config, target = read_bert_config(bert), tmp_path / "saved"
    model = build_model(stage, config, 3)
    load_folder(model, bert)
    model.eval()
    arrays = {name: parameter.numpy() for name, parameter in model.named_parameters()}
    labels = CLASSES if isinstance(stage, FinetuneStage) else ()
    save_folder(target, arrays, config, stage, ModelSource(bert, True), labels)
    batch = make_token_batch([IDS], [TYPES])
    inputs = (paddle.to_tensor(IDS[None]), paddle.to_tensor(TYPES[None]))
    if stage is FINETUNE:
        theirs = transformers.BertForSequenceClassification.from_pretrained(str(target), convert_from_torch=True)
        theirs.eval()
        np.testing.assert_allclose(theirs(*inputs).numpy(), model(batch).numpy(), atol=1e-5, rtol=0)
        assert theirs.config.id2label == dict(enumerate(CLASSES))
    else:
        theirs = transformers.BertModel.from_pretrained(str(target), convert_from_torch=True)
        theirs.eval()
        np.testing.assert_allclose(theirs(*inputs)[0].numpy()[0], model.bert(batch)[-1].numpy(), atol=1e-5, rtol=0)
    tokenizer = transformers.BertTokenizer.from_pretrained(str(target))
    assert tokenizer.encode("FILLER1 hum1 hum1ing")["input_ids"] == [2, 6, 26, 26, VOCABULARY.index("##ing"), 3]


@pytest.mark.parametrize("stage", [LSTM, FRACTIONS], ids=["bilstm", "fractions"])
def test_a_trained_classifier_comes_back_whole(bert: Path, tmp_path: Path, stage: FinetuneStage) -> None:
    config, target = read_bert_config(bert), tmp_path / "saved"
    model = build_model(stage, config, 3)
    arrays = {name: parameter.numpy() for name, parameter in model.named_parameters()}
    save_folder(target, arrays, config, stage, ModelSource(bert, True), CLASSES)
    assert json.loads((target / "config.json").read_text())["architectures"] == ["BertModel"]
    classifier = load_classifier(target)
    assert (classifier.stage, classifier.label_names) == (stage, CLASSES)
    text = np.arange(5, 5 + 17)
    batch = make_text_batch([SequenceMaker(classifier.vocabulary, classifier.stage)(text)])
    assert batch.layout.lengths == ((19,) if stage is LSTM else (8, 8))
    model.eval()
    np.testing.assert_array_equal(classifier.model(batch).numpy(), model(batch).numpy())
    # another number of classes renews the head, and keeps what combines the fractions
    other = build_model(stage, config, 4)
    renewed = set(load_folder(other, target).new)
    assert renewed == {name for name in arrays if name.startswith("classifier.")}


def test_the_folder_says_what_it_is(bert: Path, tmp_path: Path) -> None:
    config, target = read_bert_config(bert), tmp_path / "saved"
    model = build_model(FINETUNE, config, 3)
    arrays = {name: parameter.numpy() for name, parameter in model.named_parameters()}
    save_folder(target, arrays, config, FINETUNE, ModelSource(bert, False), CLASSES)
    values = json.loads((target / "config.json").read_text())
    assert values["architectures"] == ["BertForSequenceClassification"]
    assert values["id2label"] == {"0": "HUM", "1": "LOC", "2": "NUM"}
    assert values["label2id"] == {"HUM": 0, "LOC": 1, "NUM": 2}
    assert json.loads((target / "tokenizer_config.json").read_text())["do_lower_case"] is False
    assert (target / "vocab.txt").read_bytes() == (bert / "vocab.txt").read_bytes()
    assert read_bert_config(target) == config
    with open(target / "model.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    assert header["__metadata__"] == {"format": "pt"}
    assert {path.stat().st_mode & 0o077 for path in target.iterdir()} == {0}


def test_blocks_that_the_model_lacks(bert: Path) -> None:
    stage = FINETUNE.model_copy(update={"layers": (0, 2)})
    with pytest.raises(ConfigError) as caught:
        build_model(stage, read_bert_config(bert), 3)
    assert "block 2 does not exist" in str(caught.value)
    assert "0 to 1" in str(caught.value)
    with pytest.raises(ConfigError, match="64 positions"):
        build_model(FINETUNE.model_copy(update={"max_length": 65}), read_bert_config(bert), 3)


def test_transposition_leaves_embeddings_alone() -> None:
    square = np.arange(4.0).reshape(2, 2)
    names = ("bert.embeddings.token_type_embeddings.weight", "bert.pooler.dense.weight", "cls.seq_relationship.weight")
    written = to_hf_arrays(dict.fromkeys(names, square))
    assert written[names[0]].tolist() == square.tolist()
    assert written[names[1]].tolist() == square.T.tolist()
    assert written[names[2]].tolist() == square.T.tolist()
