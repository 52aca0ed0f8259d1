"""Fractions of long texts, the LSTM head and frozen parts against NumPy; companions in a batch never matter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.tiny import HIDDEN, write_bert

paddle = pytest.importorskip("paddle", reason="needs Paddle")

from configs.schema import FinetuneStage  # noqa: E402
from trainers.engine.amp import FLOAT32_LAYERS  # noqa: E402
from trainers.model.batch import TokenBatch, make_text_batch, make_token_batch  # noqa: E402
from trainers.model.config import BertConfig  # noqa: E402
from trainers.model.dropout import SequenceNoise, dropout_texts, dropout_tokens  # noqa: E402
from trainers.model.folder import build_model, read_bert_config  # noqa: E402
from trainers.model.heads import BertForClassification  # noqa: E402
from trainers.optim.groups import freeze_others, make_groups  # noqa: E402

CLOSE: Any = {"rtol": 1e-4, "atol": 2e-6}
TEXTS = ((9,), (6, 6, 4), (6, 2))
"""Tokens of every fraction of three texts."""
SAMPLES = (70, 11, 42)
Sequence = tuple[np.ndarray, np.ndarray]


def stage(**values: Any) -> FinetuneStage:
    return FinetuneStage.model_validate({"task": "finetune", "epochs": 1, "max_length": 32, "dropout": 0.0, **values})


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> BertConfig:
    return read_bert_config(write_bert(tmp_path_factory.mktemp("bert")))


def make(config: BertConfig, settings: FinetuneStage) -> Any:
    """A model with weights large enough that all of them matter."""
    model = build_model(settings, config, 3)
    rng = np.random.default_rng(3)
    for name, parameter in model.named_parameters():
        shift = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.set_value((rng.normal(0, 0.15, parameter.shape) + shift).astype(np.float32))
    return model


def texts(shape: tuple[tuple[int, ...], ...] = TEXTS) -> list[list[Sequence]]:
    rng = np.random.default_rng(1)
    return [[(rng.integers(5, 40, size), np.zeros(size, dtype=np.int64)) for size in sizes] for sizes in shape]


def noise(chosen: list[int], made: list[list[Sequence]]) -> SequenceNoise:
    return SequenceNoise(1, 2, [SAMPLES[k] for k in chosen], [len(made[k]) for k in chosen])


def numpy_attention(x: np.ndarray, weights: dict[str, np.ndarray], prefix: str) -> np.ndarray:
    """softmax(w . tanh(W h + b)) weighted mean of the rows of x."""
    scores = np.tanh(x @ weights[f"{prefix}.dense.weight"] + weights[f"{prefix}.dense.bias"])
    scores = scores @ weights[f"{prefix}.context"][:, 0]
    shares = np.exp(scores - scores.max())
    result: np.ndarray = (shares / shares.sum()) @ x
    return result


def weights_of(model: Any) -> dict[str, np.ndarray]:
    return {name: parameter.numpy().astype(np.float64) for name, parameter in model.named_parameters()}


# Fractions


@pytest.mark.parametrize("kind", ["mean", "max", "attention"])
@pytest.mark.parametrize("shape", [TEXTS, ((6, 6), (6, 3)), ((5,), (3,))])
@pytest.mark.parametrize("layers", [{}, {"layers": "all"}, {"layers": "all", "pooling": "max"}])
def test_fractions_by_hand(config: BertConfig, kind: str, shape: tuple[tuple[int, ...], ...], layers: Any) -> None:
    model, made = make(config, stage(hierarchical=kind, **layers)), texts(shape)
    model.eval()
    weights = weights_of(model)
    expected = []
    for text in made:
        rows = [model.sequence_features(make_token_batch([ids], [types])).numpy()[0] for ids, types in text]
        x = np.stack(rows).astype(np.float64)
        if kind == "attention":
            combined = numpy_attention(x, weights, "fractions.attention")
        else:
            combined = x.mean(axis=0) if kind == "mean" else x.max(axis=0)
        expected.append(combined @ weights["classifier.weight"] + weights["classifier.bias"])
    np.testing.assert_allclose(model(make_text_batch(made)).numpy(), np.stack(expected), **CLOSE)
    if len(made[0]) > 1 and kind != "max":
        other_way = [list(reversed(made[0])), *made[1:]]
        assert np.allclose(model(make_text_batch(other_way)).numpy(), np.stack(expected), atol=1e-5), (
            "a set of fractions"
        )


@pytest.mark.parametrize("kind", ["mean", "max", "attention"])
def test_a_text_of_one_fraction_is_a_plain_text(config: BertConfig, kind: str) -> None:
    """Bit for bit, with dropout, and with companions of several fractions."""
    fractional, plain = make(config, stage(hierarchical=kind, dropout=0.2)), make(config, stage(dropout=0.2))
    values = dict(fractional.named_parameters())
    for name, parameter in plain.named_parameters():
        parameter.set_value(values[name].numpy())
    plain.train()
    fractional.train()
    made = texts()
    own = noise([0], made)
    ids, types = made[0][0]
    expected = plain(make_token_batch([ids], [types], SequenceNoise(1, 2, [SAMPLES[0]]))).numpy()
    np.testing.assert_array_equal(fractional(make_text_batch(made[:1], own)).numpy(), expected)
    together = fractional(make_text_batch(made, noise([0, 1, 2], made))).numpy()
    np.testing.assert_allclose(together[:1], expected, **CLOSE)


def test_companions_do_not_matter_for_gradients_of_the_attention_over_fractions(config: BertConfig) -> None:
    made = texts()

    def gradients(chosen: list[list[int]]) -> dict[str, np.ndarray]:
        model = make(config, stage(hierarchical="attention", dropout=0.2))
        model.train()
        for group in chosen:
            logits = model(make_text_batch([made[k] for k in group], noise(group, made)))
            (logits * paddle.to_tensor(np.array([[1.0, -2.0, 0.5]], dtype=np.float32))).sum().backward()
        return {name: p.grad.numpy() for name, p in model.named_parameters()}

    together, apart = gradients([[0, 1, 2]]), gradients([[2], [0], [1]])
    for name, gradient in together.items():
        np.testing.assert_allclose(apart[name], gradient, rtol=1e-3, atol=1e-5, err_msg=name)
    assert np.abs(together["fractions.attention.context"]).max() > 1e-4
    only_single = gradients([[0]])
    assert (only_single["fractions.attention.context"] == 0.0).all(), "there, so that ranks can sum it, and 0"


def test_every_fraction_has_a_stream_of_its_own_and_the_text_the_first_ones() -> None:
    made = texts(((4, 4, 4), (4,)))
    batch = make_text_batch(made, SequenceNoise(1, 2, [7, 8], [3, 1]))
    rows = dropout_tokens(paddle.ones([16, 64]), 0.5, True, batch.layout).numpy().reshape(4, -1)
    assert len({row.tobytes() for row in rows}) == 4
    again = dropout_texts(paddle.ones([2, 64]), 0.5, True, batch).numpy()
    alone = make_token_batch([made[0][0][0]], [made[0][0][1]], SequenceNoise(1, 2, [7]))
    np.testing.assert_array_equal(
        dropout_tokens(paddle.ones([4, 64]), 0.5, True, alone.layout).numpy().ravel(), rows[0]
    )
    np.testing.assert_array_equal(dropout_texts(paddle.ones([1, 64]), 0.5, True, alone).numpy()[0], again[0])


# The LSTM head


def sigmoid(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = 1.0 / (1.0 + np.exp(-x))
    return result


def numpy_lstm(x: np.ndarray, weights: dict[str, np.ndarray], suffix: str) -> np.ndarray:
    """Hochreiter and Schmidhuber's cell with forget gate, rows of x in order; gates i, f, g, o as in PyTorch."""
    w_ih, w_hh = (weights[f"classifier.lstm.weight_{kind}_l0{suffix}"] for kind in ("ih", "hh"))
    bias = sum(weights[f"classifier.lstm.bias_{kind}_l0{suffix}"] for kind in ("ih", "hh"))
    h = c = np.zeros(w_hh.shape[1])
    states = []
    for row in x:
        i, f, g, o = np.split(w_ih @ row + w_hh @ h + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return np.stack(states)


def plain_batch(chosen: list[int], own_noise: SequenceNoise | None = None) -> TokenBatch:
    made = texts(((9,), (3,), (6,)))
    return make_text_batch([made[k] for k in chosen], own_noise)


def test_the_lstm_head_by_hand(config: BertConfig) -> None:
    model = make(config, stage(classifier="bilstm", lstm_size=5))
    model.eval()
    weights, batch = weights_of(model), plain_batch([0, 1, 2])
    states = np.split(model.bert(batch)[-1].numpy().astype(np.float64), [9, 12])
    expected = []
    for x in states:
        forward, backward = numpy_lstm(x, weights, ""), numpy_lstm(x[::-1], weights, "_reverse")[::-1]
        pooled = numpy_attention(np.concatenate([forward, backward], axis=1), weights, "classifier.attention")
        expected.append(pooled @ weights["classifier.output.weight"] + weights["classifier.output.bias"])
    np.testing.assert_allclose(model(batch).numpy(), np.stack(expected), rtol=1e-4, atol=1e-5)
    assert not any("pooler" in name for name in weights)
    assert weights["classifier.lstm.weight_ih_l0"].shape == (20, HIDDEN)


def test_companions_of_a_text_do_not_matter_to_the_lstm_head(config: BertConfig) -> None:
    def run(groups: list[list[int]]) -> tuple[dict[int, np.ndarray], dict[str, np.ndarray]]:
        model = make(config, stage(classifier="bilstm", lstm_size=5, dropout=0.3))
        model.train()
        logits: dict[int, np.ndarray] = {}
        for group in groups:
            result = model(plain_batch(group, SequenceNoise(1, 2, [SAMPLES[k] for k in group])))
            (result * paddle.to_tensor(np.array([[1.0, -2.0, 0.5]], dtype=np.float32))).sum().backward()
            logits |= dict(zip(group, result.numpy(), strict=True))
        return logits, {name: p.grad.numpy() for name, p in model.named_parameters()}

    (one, gradients), (other, others) = run([[0, 1, 2]]), run([[1], [2, 0]])
    for k in range(3):
        np.testing.assert_allclose(other[k], one[k], **CLOSE)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(others[name], gradient, rtol=1e-3, atol=1e-5, err_msg=name)


# Frozen parts


@pytest.mark.parametrize("freeze", ["embeddings", 1, 2, "encoder"])
@pytest.mark.parametrize("head", [{}, {"classifier": "bilstm", "lstm_size": 5}, {"layers": [1]}])
def test_frozen_parts_get_no_gradient_and_the_others_the_same(config: BertConfig, freeze: Any, head: Any) -> None:
    def gradients(settings: FinetuneStage) -> dict[str, np.ndarray | None]:
        model = make(config, settings)
        parameters = dict(model.named_parameters())
        trained = freeze_others(parameters, make_groups(parameters, config.num_layers, settings))
        model(plain_batch([0, 1, 2])).square().sum().backward()
        assert {name for name, p in parameters.items() if not p.stop_gradient} == set(trained)
        return {name: None if p.grad is None else p.grad.numpy() for name, p in parameters.items()}

    free, frozen = gradients(stage(**head)), gradients(stage(freeze=freeze, **head))
    num_blocks = {"embeddings": 0, 1: 1, 2: 2, "encoder": 2}[freeze]
    prefixes = ("bert.embeddings.", *(f"bert.encoder.layers.{block}." for block in range(num_blocks)))
    compared = 0
    for name, gradient in frozen.items():
        assert (gradient is None) == name.startswith(prefixes), name
        if gradient is not None:
            unfrozen = free[name]
            assert unfrozen is not None
            np.testing.assert_array_equal(gradient, unfrozen, err_msg=name)
            compared += 1
    assert compared >= 2


def test_a_frozen_encoder_is_computed_without_a_graph(config: BertConfig) -> None:
    settings = stage(freeze="encoder")
    model = make(config, settings)
    parameters = dict(model.named_parameters())
    freeze_others(parameters, make_groups(parameters, config.num_layers, settings))
    assert all(state.stop_gradient for state in model.bert(plain_batch([0])))
    assert isinstance(model, BertForClassification)


def test_the_weights_of_the_lstm_stay_float32_at_o2(config: BertConfig) -> None:
    """Paddle casts layer by layer; every layer that owns one of the LSTM's weights must be left out."""
    model = make(config, stage(classifier="bilstm", lstm_size=5))
    held = {id(parameter) for parameter in model.classifier.lstm.parameters()}
    owners = [layer for layer in model.sublayers(True) if held & {id(own) for own in layer._parameters.values()}]
    assert len(owners) >= 2
    assert all(isinstance(layer, FLOAT32_LAYERS) for layer in owners)
