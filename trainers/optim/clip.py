"""Global-norm clipping of the gradients that the optimizer is about to use."""

from __future__ import annotations

from collections.abc import Iterable

import paddle


@paddle.no_grad()
def global_norm(parameters: Iterable[paddle.Tensor]) -> paddle.Tensor:
    """L2 norm over all gradients together, float32 scalar; 0 when there is none. Every rank gets the same bits."""
    flat = [p.grad.astype("float32").flatten() for p in parameters if p.grad is not None]
    return paddle.sqrt(paddle.add_n([paddle.dot(grad, grad) for grad in flat])) if flat else paddle.zeros([])


@paddle.no_grad()
def scale_gradients(parameters: Iterable[paddle.Tensor], norm: float, limit: float) -> None:
    """Scale all gradients by limit / norm where norm exceeds a positive limit."""
    if limit > 0.0 and norm > limit:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.scale_(limit / norm)
