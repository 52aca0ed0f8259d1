"""Dynamic loss scaling for float16 (Micikevicius et al. 2018; the rule of Paddle's GradScaler), with a state that is plain numbers.

The scale lives on the host and its step decision is the loop's own (one norm for clipping, skipping and scaling), so that it can be
saved, restored and tested on any device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import paddle

_START = 65536.0


class LossScaler:
    """Scales the loss, unscales gradients in place, and adapts the scale after every step; saved as plain numbers."""

    def __init__(self, enabled: bool) -> None:
        self._scale = _START
        self._good_steps = 0
        self._enabled = enabled

    @property
    def expects_overflow(self) -> bool:
        """With float16 an overflow is normal as long as the scale can still go down."""
        return self._enabled and self._scale > 1.0

    def scale(self, loss: paddle.Tensor) -> paddle.Tensor:
        """The loss to call backward on."""
        return loss * self._scale if self._enabled else loss

    @paddle.no_grad()
    def unscale(self, parameters: Iterable[paddle.Tensor]) -> None:
        """Divide all gradients by the scale."""
        if self._enabled:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.scale_(1.0 / self._scale)

    def update(self, found_inf: bool) -> None:
        """Halve the scale after an overflow, double it after 2,000 good steps."""
        if not self._enabled:
            return
        if found_inf:
            self._scale, self._good_steps = max(1.0, self._scale / 2.0), 0
            return
        self._good_steps += 1
        if self._good_steps >= 2000:
            self._scale, self._good_steps = self._scale * 2.0, 0

    def state(self) -> dict[str, float]:
        return {"scale": self._scale, "good_steps": self._good_steps} if self._enabled else {}

    def load(self, state: Mapping[str, float]) -> None:
        if self._enabled and state:
            self._scale = float(state["scale"])
            self._good_steps = int(state["good_steps"])
