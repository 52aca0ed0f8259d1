"""Schedules, AdamW, clipping and weight averaging against arithmetic by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.tiny import write_bert

paddle = pytest.importorskip("paddle", reason="needs Paddle")

from configs.schema import FinetuneStage  # noqa: E402
from trainers.model.batch import make_token_batch  # noqa: E402
from trainers.model.folder import read_bert_config  # noqa: E402
from trainers.model.heads import BertForClassification, BertForPretraining  # noqa: E402
from trainers.optim.adamw import adamw_state, load_adamw_state, make_adamw  # noqa: E402
from trainers.optim.clip import clip_each, global_norm, scale_gradients  # noqa: E402
from trainers.optim.ema import WeightAverage  # noqa: E402
from trainers.optim.groups import Group, make_groups  # noqa: E402
from trainers.optim.schedule import Schedule, make_schedule, warmup_steps  # noqa: E402

FIXTURE = Path(__file__).resolve().parents[4] / "shared" / "data" / "fixtures" / "seed_learning_rate.json"


def stage(**values: Any) -> FinetuneStage:
    return FinetuneStage(task="finetune", epochs=1, max_length=32, **values)


# Schedules


@pytest.mark.parametrize(
    ("kind", "power", "expected"),
    [
        ("linear", 1.0, {0: 0, 1: 0.5, 2: 1.0, 4: 0.75, 6: 0.5, 9: 0.125, 10: 0, 11: 0}),
        ("constant", 1.0, {0: 0, 1: 0.5, 2: 1.0, 6: 1.0, 10: 1.0, 99: 1.0}),
        ("poly", 2.0, {1: 0.5, 2: 1.0, 4: 0.5625, 6: 0.25, 10: 0}),
        ("cosine", 1.0, {1: 0.5, 2: 1.0, 6: 0.5, 10: 0, 12: 0}),
    ],
)
def test_schedules_by_hand(kind: str, power: float, expected: dict[int, float]) -> None:
    schedule = Schedule(kind, 8e-4, 10, 2, power)
    for step, share in expected.items():
        assert math.isclose(schedule(step), 8e-4 * share, rel_tol=1e-12, abs_tol=1e-19), step
    assert math.isclose(Schedule("cosine", 1.0, 10, 2)(4), 0.5 + 0.25 * math.sqrt(2.0))


def test_without_warmup_and_with_nothing_but_warmup() -> None:
    assert Schedule("linear", 1.0, 4, 0)(0) == 1.0
    assert [Schedule("linear", 1.0, 4, 4)(step) for step in range(5)] == [0, 0.25, 0.5, 0.75, 0]


def test_warmup_in_steps_or_as_a_share() -> None:
    assert warmup_steps(7, 100) == 7
    assert warmup_steps(0.1, 2343) == 234
    assert warmup_steps(0, 100) == warmup_steps(0.0, 100) == 0
    made = make_schedule(stage(lr=3e-5, schedule="poly", poly_power=2.0, warmup=0.25), 40)
    assert made == Schedule("poly", 3e-5, 40, 10, 2.0)


def test_the_learning_rates_of_the_original_run() -> None:
    if not FIXTURE.exists():
        pytest.skip(f"no trial data at {FIXTURE}")
    fixture = json.loads(FIXTURE.read_text())
    made = make_schedule(stage(lr=fixture["base_lr"], warmup=fixture["warmup_proportion"]), fixture["total_steps"])
    rates = [made(step) for step in range(20)]
    np.testing.assert_allclose(rates, fixture["paddle"], rtol=1e-12, atol=0)
    assert not np.allclose(rates[1:], fixture["torch"][1:], rtol=1e-4, atol=0), "234 steps of warm-up, not 234.3"
    after = made(234 + 1000)
    assert math.isclose(after, 2e-5 * (2343 - 1234) / (2343 - 234))


def test_the_schedule_of_the_original_code() -> None:
    made = make_schedule(stage(lr=1.0, schedule="bert_adam", warmup=0.25), 10)
    shares = [0, 0.4, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 0.0]  # the warm-up ends between two steps
    np.testing.assert_allclose([made(step) for step in range(12)], shares, rtol=1e-12, atol=1e-12)
    assert make_schedule(stage(lr=1.0, schedule="bert_adam", warmup=4), 10)(2) == 0.5


def test_the_learning_rates_of_the_original_pytorch_run() -> None:
    if not FIXTURE.exists():
        pytest.skip(f"no trial data at {FIXTURE}")
    fixture = json.loads(FIXTURE.read_text())
    values = {"lr": fixture["base_lr"], "warmup": fixture["warmup_proportion"], "schedule": "bert_adam"}
    made = make_schedule(stage(**values), fixture["total_steps"])
    np.testing.assert_allclose([made(step) for step in range(20)], fixture["torch"], rtol=1e-6, atol=0)
    assert math.isclose(made(235), 2e-5 * (1 - 235 / 2343)), "234.3 steps of warm-up, then down from 1"


# AdamW


class HandAdamW:
    """Loshchilov and Hutter 2019, algorithm 2, in float64."""

    def __init__(self, values: dict[str, np.ndarray], stage: FinetuneStage, groups: list[Group]) -> None:
        self.values = {name: value.astype(np.float64) for name, value in values.items()}
        self.m = {name: np.zeros_like(value) for name, value in self.values.items()}
        self.v = {name: np.zeros_like(value) for name, value in self.values.items()}
        self.t, self.stage, self.groups = 0, stage, groups

    def step(self, gradients: dict[str, np.ndarray], lr: float) -> None:
        self.t += 1
        b1, b2 = self.stage.adam_beta1, self.stage.adam_beta2
        for group in self.groups:
            rate = lr * group.lr_multiple
            for name in group.names:
                gradient = gradients[name].astype(np.float64)
                self.m[name] = b1 * self.m[name] + (1 - b1) * gradient
                self.v[name] = b2 * self.v[name] + (1 - b2) * gradient**2
                m_hat, v_hat = self.m[name], self.v[name]
                if self.stage.bias_correction:
                    m_hat, v_hat = m_hat / (1 - b1**self.t), v_hat / (1 - b2**self.t)
                self.values[name] *= 1 - rate * group.weight_decay
                self.values[name] -= rate * m_hat / (np.sqrt(v_hat) + self.stage.adam_eps)


class Problem:
    """A tiny classifier with its groups and optimizer."""

    def __init__(self, folder: Path, settings: FinetuneStage, seed: int = 5) -> None:
        config = read_bert_config(write_bert(folder)).with_dropout(0.0)
        paddle.seed(seed)
        self.model = BertForClassification(config, 3)
        self.parameters = dict(self.model.named_parameters())
        self.groups = make_groups(self.parameters, 2, settings)
        self.optimizer = make_adamw(self.parameters, self.groups, settings, False)

    def gradients(self, number: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(number)
        ids = [rng.integers(5, 40, size) for size in (7, 3, 9)]
        loss = paddle.nn.functional.cross_entropy(
            self.model(make_token_batch(ids, [row * 0 for row in ids])), paddle.to_tensor([0, 1, 2])
        )
        loss.backward()
        return {name: p.grad.numpy() for name, p in self.parameters.items() if p.grad is not None}

    def step(self, number: int, lr: float) -> None:
        self.gradients(number)
        self.optimizer.set_lr(lr)
        self.optimizer.step()
        self.optimizer.clear_grad(set_to_zero=False)

    def values(self) -> dict[str, np.ndarray]:
        return {name: parameter.numpy() for name, parameter in self.parameters.items()}


OPTIMIZER = stage(layer_decay=0.5, weight_decay=0.3, adam_beta1=0.8, adam_beta2=0.95, adam_eps=1e-5, lr=1e-2)


@pytest.mark.parametrize("bias_correction", [True, False])
def test_three_steps_of_adamw_by_hand(tmp_path: Path, bias_correction: bool) -> None:
    settings = OPTIMIZER.model_copy(update={"bias_correction": bias_correction})
    problem = Problem(tmp_path / "bert", settings)
    start = problem.values()
    hand = HandAdamW(start, settings, problem.groups)
    for number, lr in enumerate((1e-2, 3e-2, 5e-3)):
        gradients = problem.gradients(number)
        hand.step(gradients, lr)
        problem.optimizer.set_lr(lr)
        problem.optimizer.step()
        problem.optimizer.clear_grad(set_to_zero=False)
    for name, value in problem.values().items():
        np.testing.assert_allclose(value, hand.values[name], rtol=2e-4, atol=2e-6, err_msg=name)
        if "k_proj.bias" not in name:  # softmax does not change when every score does
            assert not np.allclose(value, start[name], atol=1e-5), name
    with_decay = hand.values["bert.embeddings.word_embeddings.weight"][44]  # a word that never occurs
    np.testing.assert_allclose(
        with_decay, start["bert.embeddings.word_embeddings.weight"][44] * 0.997 * 0.991 * 0.9985, rtol=1e-6
    )


def test_without_bias_correction_epsilon_stands_beside_the_root_of_v() -> None:
    """Two steps of BERTAdam with numbers for pencil and paper; an epsilon as large as the root shows where it stands."""
    settings = stage(bias_correction=False, adam_beta1=0.5, adam_beta2=0.75, adam_eps=1.0, weight_decay=0.0, lr=1.0)
    held = parameter([4.0], None)
    optimizer = make_adamw({"w": held}, [Group(1.0, 0.0, ("w",))], settings, False)
    for gradient, expected in ((2.0, 3.5), (4.0, 3.5 - 2.5 / (math.sqrt(4.75) + 1))):
        # step 1: m = 1, v = 1, 1 / (1 + 1); step 2: m = 0.5 + 2, v = 0.75 + 4
        (held * gradient).sum().backward()
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)
        np.testing.assert_allclose(held.numpy(), [expected], rtol=1e-6)


@pytest.mark.parametrize("others_before", [0, 3])
@pytest.mark.parametrize("bias_correction", [True, False])
def test_saved_state_continues_bit_for_bit(tmp_path: Path, others_before: int, bias_correction: bool) -> None:
    """Also in a process where Paddle has numbered its parameters differently in the meantime."""
    settings = OPTIMIZER.model_copy(update={"bias_correction": bias_correction})
    straight = Problem(tmp_path / "bert", settings)
    for number in range(3):
        straight.step(number, 1e-2)
    saved = {name: tensor.numpy() for name, tensor in adamw_state(straight.optimizer, straight.parameters).items()}
    weights = straight.values()
    assert {name.split("/")[0] for name in saved} == {"moment1", "moment2", "beta1_pow_acc", "beta2_pow_acc"}
    assert len(saved) == 4 * len(weights)
    for _ in range(others_before):
        paddle.nn.Linear(2, 2)
        paddle.nn.LayerNorm(3)
    again = Problem(tmp_path / "bert", settings, seed=99)
    assert [p.name for p in again.parameters.values()] != [p.name for p in straight.parameters.values()]
    for name, parameter in again.parameters.items():
        parameter.set_value(weights[name])
    load_adamw_state(again.optimizer, again.parameters, saved)
    for number in range(3, 6):
        straight.step(number, 2e-3)
        again.step(number, 2e-3)
    for name, value in straight.values().items():
        np.testing.assert_array_equal(again.values()[name], value, err_msg=name)
    forgetful = Problem(tmp_path / "bert", settings)
    for name, parameter in forgetful.parameters.items():
        parameter.set_value(weights[name])
    forgetful.step(3, 2e-3)
    restored = Problem(tmp_path / "bert", settings)
    for name, parameter in restored.parameters.items():
        parameter.set_value(weights[name])
    load_adamw_state(restored.optimizer, restored.parameters, saved)
    restored.step(3, 2e-3)
    powers = {float(array.item()) for key, array in saved.items() if "_pow_acc/" in key}
    assert (powers == {0.0}) == (not bias_correction)
    name = "classifier.weight"
    assert not np.array_equal(restored.values()[name], forgetful.values()[name]), "the moments matter"


def test_parameters_that_were_never_stepped_have_no_state(tmp_path: Path) -> None:
    config = read_bert_config(write_bert(tmp_path / "bert"))
    model = BertForPretraining(config, use_nsp=False)
    parameters = dict(model.named_parameters())
    optimizer = make_adamw(parameters, make_groups(parameters, 2, stage()), OPTIMIZER, False)
    mlm, _ = model(make_token_batch([np.arange(5, 12)], [np.zeros(7)]), paddle.to_tensor([1, 3]))
    mlm.sum().backward()
    optimizer.step()
    state = adamw_state(optimizer, parameters)
    assert "moment1/cls.predictions.decoder_bias" in state
    assert not any("pooler" in name or "seq_relationship" in name for name in state)
    load_adamw_state(optimizer, parameters, {name: tensor.numpy() for name, tensor in state.items()})
    with pytest.raises(KeyError):
        load_adamw_state(optimizer, parameters, {"moment1/no.such.name": np.zeros(1, dtype=np.float32)})


def test_moments_of_master_weights_are_saved_and_restored() -> None:
    """Mixed precision O2 keeps them under the master weights' names. (A step needs a GPU; making and keeping state does not.)"""

    def fresh() -> tuple[Any, dict[str, Any]]:
        layer = paddle.nn.Linear(2, 3)
        layer.to(dtype="bfloat16")
        own = dict(layer.named_parameters())
        return make_adamw(own, make_groups(own, 2, OPTIMIZER), OPTIMIZER, True), own

    optimizer, parameters = fresh()
    block = paddle.static.default_main_program().global_block()
    optimizer._create_accumulators(block, list(parameters.values()))
    for number, tensor in enumerate(adamw_state(optimizer, parameters).values(), start=1):
        tensor.set_value(np.full(tensor.shape, number / 8, dtype=np.float32))
    saved = {name: tensor.numpy().copy() for name, tensor in adamw_state(optimizer, parameters).items()}
    kinds = ("moment1", "moment2", "beta1_pow_acc", "beta2_pow_acc", "master")
    assert set(saved) == {f"{kind}/{name}" for kind in kinds for name in ("weight", "bias")}
    again, parameters = fresh()
    load_adamw_state(again, parameters, saved)
    found = adamw_state(again, parameters)
    assert set(found) == set(saved)
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor.numpy(), saved[name], err_msg=name)
    assert {tensor.name.rpartition("_moment1")[0] for tensor in again._accumulators["moment1"].values()} == {
        f"{parameter.name}_fp32_master_0" for parameter in parameters.values()
    }


# Clipping


def parameter(values: list[float], gradient: list[float] | None) -> Any:
    made = paddle.create_parameter([len(values)], "float32")
    made.set_value(np.array(values, dtype=np.float32))
    if gradient is not None:
        (made * paddle.to_tensor(gradient)).sum().backward()
    return made


def test_global_norm_and_scaling() -> None:
    parameters = [parameter([1.0, 1.0], [3.0, 0.0]), parameter([1.0], [4.0]), parameter([1.0], None)]
    assert float(global_norm(parameters)) == 5.0
    scale_gradients(parameters, 5.0, 10.0)
    assert parameters[0].grad.tolist() == [3.0, 0.0]
    scale_gradients(parameters, 5.0, 0.0)
    assert parameters[1].grad.tolist() == [4.0]
    scale_gradients(parameters, 5.0, 1.0)
    np.testing.assert_allclose([*parameters[0].grad.tolist(), *parameters[1].grad.tolist()], [0.6, 0.0, 0.8], rtol=1e-6)
    assert parameters[2].grad is None
    barely = [parameter([1.0], [5.0])]
    scale_gradients(barely, 5.0, 4.0)
    np.testing.assert_allclose(barely[0].grad.tolist(), [4.0], rtol=1e-6)
    assert float(global_norm([])) == 0.0
    assert math.isnan(float(global_norm([parameter([1.0], [float("nan")])])))
    assert math.isinf(float(global_norm([parameter([1.0], [float("inf")])])))


def test_each_gradient_by_its_own_norm() -> None:
    parameters = [parameter([1.0, 1.0], [3.0, 4.0]), parameter([1.0], [0.25]), parameter([1.0], None)]
    parameters.append(parameter([1.0, 1.0], [0.0, 0.0]))
    clip_each(parameters, 0.0)
    assert parameters[0].grad.tolist() == [3.0, 4.0]
    clip_each(parameters, 1.0)
    np.testing.assert_allclose(parameters[0].grad.tolist(), [0.6, 0.8], rtol=1e-6)
    assert parameters[1].grad.tolist() == [0.25], "below the limit nothing changes"
    assert parameters[2].grad is None
    assert parameters[3].grad.tolist() == [0.0, 0.0]


# Averaging


def test_weight_average_by_hand() -> None:
    held = paddle.create_parameter([2], "float32")
    held.set_value(np.array([1.0, -2.0], dtype=np.float32))
    average = WeightAverage({"w": held}, 0.5)
    expected = np.array([1.0, -2.0])
    for step in range(1, 10):
        weights = np.array([step * 1.5, 7.0 - step])
        held.set_value(weights.astype(np.float32))
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))  # 2/11, 3/12, 4/13 ... 0.5 from step 8 on
        expected = decay * expected + (1 - decay) * weights
        np.testing.assert_allclose(average.averages["w"].numpy(), expected, rtol=1e-6)
    with average.swapped_in():
        np.testing.assert_allclose(held.numpy(), expected, rtol=1e-6)
    assert held.tolist() == [13.5, -2.0]
    with pytest.raises(RuntimeError), average.swapped_in():
        raise RuntimeError
    assert held.tolist() == [13.5, -2.0], "an evaluation that fails or is stopped leaves the weights in place"
    saved = average.averages["w"].numpy()
    other = WeightAverage({"w": held}, 0.5)
    other.load({"w": saved})
    other.update(10)
    average.update(10)
    np.testing.assert_array_equal(other.averages["w"].numpy(), average.averages["w"].numpy())


def test_the_average_does_not_follow_later_changes_of_the_weights() -> None:
    held = paddle.create_parameter([1], "float32")
    held.set_value(np.array([1.0], dtype=np.float32))
    average = WeightAverage({"w": held}, 0.9)
    held.set_value(np.array([5.0], dtype=np.float32))
    assert average.averages["w"].tolist() == [1.0]
