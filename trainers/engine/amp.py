"""Mixed precision as a policy decided once per run from the config and the device's capability."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import paddle

from configs.schema import AmpConfig

_BFLOAT16_CAPABILITY = (8, 0)
_FLOAT16_CAPABILITY = (7, 0)
FLOAT32_LAYERS = (paddle.nn.LSTM, paddle.nn.LSTMCell)
"""Layers whose weights stay float32 at O2: Paddle's recurrent kernels have no AMP. (An LSTM's weights belong to its cells as well.)"""


@dataclass(frozen=True)
class AmpPolicy:
    """What is computed in which type."""

    level: str
    """off, O1 (casts per operation) or O2 (weights in `dtype`, float32 masters)."""
    dtype: str
    reason: str
    """One sentence for the screen."""

    @property
    def enabled(self) -> bool:
        return self.level != "off"

    @property
    def scales_loss(self) -> bool:
        """float16 needs loss scaling, bfloat16 does not."""
        return self.enabled and self.dtype == "float16"

    @property
    def master_weights(self) -> bool:
        return self.level == "O2"

    def autocast(self) -> AbstractContextManager[None]:
        """Context of the forward pass."""
        if not self.enabled:
            return nullcontext()
        context: AbstractContextManager[None] = paddle.amp.auto_cast(True, level=self.level, dtype=self.dtype)
        return context


def choose_policy(config: AmpConfig, is_gpu: bool, capability: tuple[int, int] | None) -> AmpPolicy:
    """The policy for a device; `capability` is CUDA's (major, minor), None on CPU."""
    if config.level == "off":
        return AmpPolicy("off", "float32", "off (amp.level: off)")
    if not is_gpu or capability is None:
        asked = "" if config.level == "auto" else f"; amp.level: {config.level} is for GPUs"
        return AmpPolicy("off", "float32", f"off: Paddle has no AMP kernels on CPU, computing in float32{asked}")
    if capability < _FLOAT16_CAPABILITY:
        return AmpPolicy(
            "off", "float32", f"off: compute capability {capability[0]}.{capability[1]} has no tensor cores"
        )
    level = "O1" if config.level == "auto" else config.level
    has_bfloat16 = capability >= _BFLOAT16_CAPABILITY
    dtype = config.dtype
    if dtype == "auto":
        dtype = "bfloat16" if has_bfloat16 else "float16"
    note = ""
    if dtype == "bfloat16" and not has_bfloat16:
        dtype, note = (
            "float16",
            f" (bfloat16 needs compute capability 8.0, this GPU has {capability[0]}.{capability[1]})",
        )
    scaling = " with loss scaling" if dtype == "float16" else ""
    return AmpPolicy(level, dtype, f"{level} {dtype}{scaling}{note}")


def device_capability(is_gpu: bool) -> tuple[int, int] | None:
    """CUDA compute capability of this rank's GPU; None on CPU."""
    if not is_gpu:
        return None
    major, minor = paddle.device.cuda.get_device_capability()
    return int(major), int(minor)
