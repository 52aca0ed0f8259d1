"""Mixed-precision policy, loss scaling, metrics log, window, progress, records: the small parts of the loop."""

from __future__ import annotations

import itertools
import json
import math
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest

paddle = pytest.importorskip("paddle", reason="needs Paddle")

from configs.errors import CannotWriteError, DataError  # noqa: E402
from configs.schema import AmpConfig, EarlyStopping, FinetuneStage, PretrainStage  # noqa: E402
from trainers.engine.amp import AmpPolicy, choose_policy, device_capability  # noqa: E402
from trainers.engine.flops import training_flops  # noqa: E402
from trainers.engine.metrics_log import StepLog  # noqa: E402
from trainers.engine.progress import Progress  # noqa: E402
from trainers.engine.ranks import Ranks  # noqa: E402
from trainers.engine.records import Recorder, is_collective  # noqa: E402
from trainers.engine.scaler import LossScaler  # noqa: E402
from trainers.engine.window import Window  # noqa: E402
from trainers.model.config import BertConfig  # noqa: E402

# Mixed precision

V100, A100, H100, P100 = (7, 0), (8, 0), (9, 0), (6, 0)
POLICIES = {
    # (level, dtype) asked: what V100, A100 and H100 get
    ("auto", "auto"): (("O1", "float16"), ("O1", "bfloat16"), ("O1", "bfloat16")),
    ("auto", "float16"): (("O1", "float16"), ("O1", "float16"), ("O1", "float16")),
    ("auto", "bfloat16"): (("O1", "float16"), ("O1", "bfloat16"), ("O1", "bfloat16")),
    ("O1", "auto"): (("O1", "float16"), ("O1", "bfloat16"), ("O1", "bfloat16")),
    ("O1", "float16"): (("O1", "float16"), ("O1", "float16"), ("O1", "float16")),
    ("O1", "bfloat16"): (("O1", "float16"), ("O1", "bfloat16"), ("O1", "bfloat16")),
    ("O2", "auto"): (("O2", "float16"), ("O2", "bfloat16"), ("O2", "bfloat16")),
    ("O2", "float16"): (("O2", "float16"), ("O2", "float16"), ("O2", "float16")),
    ("O2", "bfloat16"): (("O2", "float16"), ("O2", "bfloat16"), ("O2", "bfloat16")),
}


@pytest.mark.parametrize(("asked", "got"), POLICIES.items())
def test_policy_on_gpus(asked: tuple[Any, Any], got: tuple[tuple[str, str], ...]) -> None:
    for capability, (level, dtype) in zip((V100, A100, H100), got, strict=True):
        policy = choose_policy(AmpConfig(level=asked[0], dtype=asked[1]), True, capability)
        assert (policy.level, policy.dtype, policy.enabled) == (level, dtype, True)
        assert policy.scales_loss == (dtype == "float16")
        assert policy.master_weights == (level == "O2")
        assert policy.reason.startswith(f"{level} {dtype}")
        replaced = asked[1] == "bfloat16" and dtype == "float16"
        assert ("this GPU has 7.0" in policy.reason) == replaced
    old = choose_policy(AmpConfig(level=asked[0], dtype=asked[1]), True, P100)
    assert (old.enabled, old.dtype) == (False, "float32")
    assert "6.0" in old.reason


@pytest.mark.parametrize(
    ("level", "dtype"), itertools.product(("auto", "O1", "O2", "off"), ("auto", "float16", "bfloat16"))
)
def test_policy_on_cpu_and_switched_off(level: Any, dtype: Any) -> None:
    on_cpu = choose_policy(AmpConfig(level=level, dtype=dtype), False, None)
    assert (on_cpu.enabled, on_cpu.dtype, on_cpu.scales_loss, on_cpu.master_weights) == (False, "float32", False, False)
    assert on_cpu.reason.startswith("off")
    assert ("Paddle has no AMP kernels on CPU" in on_cpu.reason) == (level != "off")
    assert ("is for GPUs" in on_cpu.reason) == (level in ("O1", "O2")), "an asked level that is ignored is told"
    off = choose_policy(AmpConfig(level="off", dtype=dtype), True, H100)
    assert (off.enabled, off.dtype) == (False, "float32")
    with off.autocast():
        assert paddle.matmul(paddle.ones([2, 2]), paddle.ones([2, 2])).dtype == paddle.float32
    assert device_capability(False) is None


# Loss scaling


def test_scaler_states_by_hand() -> None:
    scaler = LossScaler(True)
    seen = []
    for found_inf in (True, False, True, *[False] * 2000, True):
        scaler.update(found_inf)
        seen.append(scaler.state()["scale"])
    assert seen[:3] == [32768.0, 32768.0, 16384.0]
    assert seen[3:2002] == [16384.0] * 1999, "the good step before the overflow does not count"
    assert seen[2002:] == [32768.0, 16384.0]
    for _ in range(30):
        scaler.update(True)
    assert scaler.state() == {"scale": 1.0, "good_steps": 0}
    assert not scaler.expects_overflow
    assert LossScaler(True).expects_overflow
    assert not LossScaler(False).expects_overflow


def test_scaler_round_trip_and_arithmetic() -> None:
    scaler = LossScaler(True)
    for found_inf in (True, True, False, False):
        scaler.update(found_inf)
    saved = json.loads(json.dumps(scaler.state()))
    assert saved == {"scale": 16384.0, "good_steps": 2}
    other = LossScaler(True)
    other.load(saved)
    for _ in range(1998):
        scaler.update(False)
        other.update(False)
    assert other.state() == scaler.state() == {"scale": 32768.0, "good_steps": 0}
    weight = paddle.create_parameter([2], "float32")
    unused = paddle.create_parameter([2], "float32")
    scaler.scale((weight * paddle.to_tensor([3.0, -4.0])).sum()).backward()
    assert weight.grad.tolist() == [3.0 * 32768, -4.0 * 32768]
    scaler.unscale([weight, unused])
    assert weight.grad.tolist() == [3.0, -4.0]


def test_a_scaler_that_is_off_does_nothing() -> None:
    scaler = LossScaler(False)
    loss = paddle.to_tensor(2.0)
    assert scaler.scale(loss) is loss
    scaler.update(True)
    assert scaler.state() == {}
    scaler.load({"scale": 4.0, "good_steps": 1})
    assert scaler.state() == {}
    assert AmpPolicy("O1", "bfloat16", "").scales_loss is False


# metrics.jsonl


def test_the_log_is_cut_where_a_resume_starts(tmp_path: Path) -> None:
    log = StepLog(tmp_path / "deep" / "metrics.jsonl")
    log.cut_after(10)
    assert log.read() == []
    for step in (5, 10, 15, 20):
        log.append({"step": step, "loss": step / 7})
    assert log.path.stat().st_mode & 0o777 == 0o600
    with open(log.path, "ab") as file:
        file.write(b'{"step": 25, "lo')
    log.cut_after(20)
    assert [line["step"] for line in log.read()] == [5, 10, 15, 20]
    log.cut_after(12)
    assert log.read() == [{"step": 5, "loss": 5 / 7}, {"step": 10, "loss": 10 / 7}]
    with open(log.path, "ab") as file:
        file.write(b'not json\n{"loss": 1}\n[]\n\xff\xfe\n{"step": 12, "loss": 0.5}\n{"step": 11}')
    log.cut_after(12)
    assert [line["step"] for line in log.read()] == [5, 10, 12]
    log.append({"step": 15})
    assert log.path.read_bytes().endswith(b'{"step": 12, "loss": 0.5}\n{"step": 15}\n')
    assert [path.name for path in log.path.parent.iterdir()] == ["metrics.jsonl"]


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWriteError):
        StepLog(tmp_path / "file" / "metrics.jsonl").append({"step": 1})


# The window between two lines


class FakeRanks:
    """Stands for one of several ranks whose collectives are answered from a table of all windows."""

    def __init__(self, rank: int, world_size: int, rows: np.ndarray | None = None) -> None:
        self.rank, self.world_size, self.rows = rank, world_size, rows

    def gather(self, values: Any) -> np.ndarray:
        assert self.rows is not None
        np.testing.assert_array_equal(self.rows[self.rank], np.asarray(values, dtype=np.float64))
        return self.rows


def test_means_of_a_window() -> None:
    window = Window(("mlm", "nsp"), Ranks(0, 1, "cpu"))
    window.add(paddle.to_tensor([4.0, 0.5]), samples=7, tokens=60, cells=100)
    window.add(paddle.to_tensor([2.0, 0.75]), samples=6, tokens=30, cells=50)
    summary = window.summary()
    assert summary["losses"] == {"mlm": 3.0, "nsp": 0.625}
    assert summary["loss"] == 3.625
    assert math.isclose(summary["padding"], 1 - 90 / 150)
    assert math.isclose(summary["samples_per_s"] * summary["seconds"], 13)
    assert math.isclose(summary["tokens_per_s"] * summary["seconds"], 90)
    assert window.summary()["loss"] == 3.625, "looking changes nothing"
    window.reset()
    assert (window.steps, window.samples, window.tokens) == (0, 0, 0)
    assert window.summary()["loss"] == 0.0


def test_a_restored_window_goes_on_bit_for_bit() -> None:
    def add(window: Window, step: int) -> None:
        window.add(paddle.to_tensor([1 / (3 + step)]), samples=3, tokens=11 + step, cells=13 + step)

    straight, first = Window(("loss",), Ranks(0, 1, "cpu")), Window(("loss",), Ranks(0, 1, "cpu"))
    for step in range(5):
        add(straight, step)
        add(first, step)
    saved = json.loads(json.dumps(first.state()))
    second = Window(("loss",), Ranks(0, 1, "cpu"))
    second.restore(saved)
    for step in range(5, 9):
        add(straight, step)
        add(second, step)
    one, other = straight.summary(), second.summary()
    for key in ("loss", "losses", "padding"):
        assert one[key] == other[key]
    assert (second.steps, second.samples, second.tokens) == (9, 27, straight.tokens)
    assert saved["seconds"] <= second.seconds_before + 1e-9


def test_a_window_restored_at_another_number_of_ranks() -> None:
    rows = [[1.5, 10.0], [2.0, 20.0], [0.25, 5.0]]
    saved = {"rows": rows, "term_steps": [4], "steps": 4, "samples": 28, "tokens": 30, "seconds": 2.0}
    same = [Window(("loss",), FakeRanks(rank, 3, np.array(rows))) for rank in range(3)]  # type: ignore[arg-type]
    for window in same:
        window.restore(saved)
        assert window.state()["rows"] == rows
    fewer = [Window(("loss",), FakeRanks(rank, 2, np.array([[3.75, 35.0], [0.0, 0.0]]))) for rank in range(2)]  # type: ignore[arg-type]
    for window in fewer:
        window.restore(saved)
        window.state()
        assert (window.steps, window.samples, window.tokens, window.seconds_before) == (4, 28, 30, 2.0)


# Progress and early stopping


def evaluate(values: list[float], metric: str, stopping: EarlyStopping | None) -> tuple[list[bool], Progress]:
    progress, best = Progress(), []
    for number, value in enumerate(values, start=1):
        progress.step = 10 * number
        best.append(progress.take_evaluation({metric: value, "other": 0.0}, metric, stopping))
        progress = Progress.from_json(json.loads(json.dumps(progress.to_json())))  # a resume after each evaluation
        if progress.early_stopped:
            break
    return best, progress


NAN = float("nan")


@pytest.mark.parametrize(
    ("metric", "patience", "min_delta", "values", "best", "best_step", "stops"),
    [
        ("accuracy", 2, 0.0, [0.5, 0.6, 0.6, 0.55], [True, True, False, False], 20, True),
        ("accuracy", 2, 0.0, [0.5, 0.5, 0.6, 0.5], [True, False, True, False], 30, False),
        ("accuracy", 1, 0.0, [0.5, 0.5], [True, False], 10, True),
        ("loss", 2, 0.0, [1.0, 0.9, 0.95, 0.91], [True, True, False, False], 20, True),
        ("loss", 2, 0.0, [1.0, 0.9, 0.95, 0.8], [True, True, False, True], 40, False),
        ("accuracy", 2, 0.1, [0.5, 0.55, 0.59], [True, True, True], 30, True),  # better, but too little
        ("accuracy", 2, 0.1, [0.5, 0.55, 0.7, 0.7], [True, True, True, False], 30, False),
        ("macro_f1", None, 0.0, [0.5, 0.4, 0.3, 0.2], [True, False, False, False], 10, False),
        ("loss", 2, 0.0, [NAN, 1.0, NAN, NAN], [False, True, False, False], 20, True),
    ],
)
def test_early_stopping(
    metric: str,
    patience: int | None,
    min_delta: float,
    values: list[float],
    best: list[bool],
    best_step: int,
    stops: bool,
) -> None:
    stopping = None if patience is None else EarlyStopping(patience=patience, min_delta=min_delta)
    seen, progress = evaluate(values, metric, stopping)
    assert seen == best
    assert (progress.best_step, progress.early_stopped) == (best_step, stops)
    assert progress.best_metrics[metric] == values[best_step // 10 - 1]
    assert progress.evaluated_step == progress.step == 10 * len(values)


# Arithmetic and records


def test_flop_of_bert_base_by_the_formula() -> None:
    config = BertConfig(30522, 768, 12, 12, 3072, 512, 2)
    sequences, length, masked = 10, 128, 192
    forward = 12 * (24 * 768**2 + 4 * 128 * 768) * sequences * length + masked * (2 * 768**2 + 2 * 768 * 30522)
    pretrain = PretrainStage(task="pretrain", max_steps=1)
    assert math.isclose(training_flops(config, pretrain, sequences * length, sequences, masked), 3 * forward)
    figure = training_flops(config, pretrain, 1280, 10, 192) / 1280
    assert math.isclose(figure, 0.545e9, rel_tol=0.01), "performance.md's figure"


def test_flop_of_frozen_blocks_fractions_and_the_lstm_head() -> None:
    config = BertConfig(30522, 768, 12, 12, 3072, 512, 2)
    block = 1280 * (24 * 768**2 + 4 * 128 * 768)

    def flops(samples: int, **values: Any) -> float:
        stage = FinetuneStage.model_validate({"task": "finetune", "epochs": 1, "max_length": 128, **values})
        return training_flops(config, stage, 1280, samples, 0)

    assert math.isclose(flops(10), 36 * block)
    assert math.isclose(flops(5, hierarchical="mean"), 36 * block), "5 texts of 2 fractions"
    assert math.isclose(flops(10, freeze=4), (8 * 3 + 4) * block), "a frozen block is computed forward only"
    lstm = 1280 * (2 * 2 * 4 * 100 * (768 + 100) + 2 * 200 * 200)
    assert math.isclose(flops(10, freeze="encoder", classifier="bilstm", lstm_size=100), 12 * block + 3 * lstm)


def test_records_heartbeat_and_failures(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, node=0, rank=3)
    recorder.stage = "finetune"
    recorder.enter("load", 0)
    recorder.enter("step", 7)
    recorder.enter("step", 8)
    recorder.set_device_bytes(5)
    recorder.message("careful", "warning")
    beat = (tmp_path / "node-0" / "rank-3.heartbeat").read_bytes()
    assert len(beat) == 512
    recorder.beat()
    values = json.loads((tmp_path / "node-0" / "rank-3.heartbeat").read_bytes())
    assert (values["phase"], values["stage"], values["step"], values["device_bytes"]) == ("step", "finetune", 8, 5)
    assert values["rss_bytes"] > 1 << 20
    records = [json.loads(line) for line in (tmp_path / "node-0" / "rank-3.records.jsonl").read_text().splitlines()]
    assert [(r["type"], r.get("phase"), r.get("step")) for r in records] == [
        ("phase", "load", 0),
        ("phase", "step", 7),
        ("message", None, None),
    ]
    assert all(record["rank"] == 3 and record["t"] > 1e9 for record in records)
    assert not recorder.stop_requested()
    (tmp_path / "stop").touch()
    assert recorder.stop_requested()
    with pytest.raises(DataError) as caught:
        raise DataError("row 3 is bad", "mend it")
    assert recorder.failure(caught.value) == 65
    shown = "".join(traceback.format_exception(caught.value))
    report = json.loads((tmp_path / "errors" / "rank-3.json").read_text())
    assert (report["rank"], report["stage"], report["phase"], report["step"]) == (3, "finetune", "step", 8)
    assert (report["type"], report["message"], report["hint"]) == ("DataError", "row 3 is bad", "mend it")
    assert (report["user_error"], report["exit_code"], report["collective"]) == (True, 65, False)
    assert report["traceback"] == shown
    assert recorder.failure(ValueError("x")) == 1
    for path in tmp_path.rglob("*"):
        assert path.name == "stop" or path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize(
    ("error", "collective"),
    [
        (ValueError("(InvalidArgument) TCP connection reset by peer."), True),
        (
            RuntimeError(
                "[/paddle/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:36789"
            ),
            True,
        ),
        (OSError("(External) NCCL error(6), remote process exited or there was a network error."), True),
        (ValueError("bad data row 17"), False),
        (DataError("gloo is a word in this row"), False),
        (MemoryError(), False),
    ],
)
def test_a_lost_peer_is_told_from_an_own_failure(error: Exception, collective: bool) -> None:
    assert is_collective(error) is collective
