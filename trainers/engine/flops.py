"""How much arithmetic a step takes and how much the device can do: model FLOP utilisation (performance.md's formula)."""

from __future__ import annotations

import math
import time

import paddle

from configs.rates import frozen_parts
from configs.schema import ClassifierStage, StageBase
from trainers.model.config import BertConfig

_DENSE_PEAKS = {
    # Published dense tensor-core peaks in TFLOP/s for float16 and bfloat16 (NVIDIA data sheets).
    "H200": 989.0,
    "H100": 989.0,
    "A100": 312.0,
    "A800": 312.0,
    "L40S": 362.0,
    "A10": 125.0,
    "L4": 121.0,
    "V100": 125.0,
    "T4": 65.0,
}


def training_flops(config: BertConfig, stage: StageBase, tokens: int, samples: int, predicted: int) -> float:
    """FLOP of forward and backward (3 x forward; a multiply-add is 2) over real tokens; frozen blocks are only computed forward.

    Per token and layer 24 h^2 + 4 s h (for 4 h = intermediate size; here with the true one), per predicted position 2 h^2 + 2 h V, per
    token of a bilstm head of u units 2 x 8 u (h + u) and its attention's 8 u^2. `s` is the mean length of the sequences (of the
    fractions of hierarchical texts), so attention is estimated for equal lengths.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    mean_length = tokens / max(1, samples)
    mean_length /= max(1, math.ceil(mean_length / stage.max_length))
    per_layer = tokens * (8 * hidden**2 + 4 * hidden * inner + 4 * mean_length * hidden)
    head = predicted * (2 * hidden**2 + 2 * hidden * config.vocab_size)
    if isinstance(stage, ClassifierStage) and stage.classifier == "bilstm":
        units = stage.lstm_size
        head += tokens * (16 * units * (hidden + units) + 8 * units**2)
    num_frozen = frozen_parts(stage, config.num_layers).num_blocks
    return per_layer * (3.0 * config.num_layers - 2.0 * num_frozen) + 3.0 * head


def device_peak(is_gpu: bool, amp: bool) -> float:
    """FLOP/s of this rank's device: a GPU's published tensor-core peak with AMP; on CPU the measured float32 matmul rate. 0: unknown."""
    if is_gpu:
        name = paddle.device.cuda.get_device_name()
        known = [peak for part, peak in _DENSE_PEAKS.items() if part in name.replace(" ", "")]
        return known[0] * 1e12 if known and amp else 0.0
    return _measured_matmul_rate()


def _measured_matmul_rate() -> float:
    size = 512
    a, b = paddle.ones([size, size]), paddle.ones([size, size])
    best = float("inf")
    for _ in range(8):
        started = time.perf_counter()
        paddle.matmul(a, b)
        best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best
