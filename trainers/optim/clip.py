"""Clipping of the gradients that the optimizer is about to use: by their norm together, or each by its own."""

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


@paddle.no_grad()
def clip_each(parameters: Iterable[paddle.Tensor], limit: float) -> None:
    """Scale every gradient to at most a positive norm `limit` of its own, as the original code's BERTAdam does. No wait for the device."""
    if limit <= 0.0:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            flat = parameter.grad.astype("float32").flatten()
            norm = paddle.sqrt(paddle.dot(flat, flat))
            parameter.grad.multiply_((limit / paddle.clip(norm, min=limit)).astype(parameter.grad.dtype))
