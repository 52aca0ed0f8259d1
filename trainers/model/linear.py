"""Linear layers. On CPU, in float32, with a bias and a bias gradient that are matrix products: Paddle's broadcast add and its
gradient's reduction cost a third of a BERT layer's products there."""

from __future__ import annotations

from typing import Any

import paddle
from paddle import nn
from paddle.autograd import PyLayer


class _ProductWithBias(PyLayer):
    """x W + b for 2-d x."""

    @staticmethod
    def forward(ctx: Any, x_NI: paddle.Tensor, weight_IO: paddle.Tensor, bias_O: paddle.Tensor) -> paddle.Tensor:
        ctx.save_for_backward(x_NI, weight_IO)
        # Paddle refuses a gradient for what needs none: the output of a frozen part, or a frozen part itself
        ctx.needed = [not tensor.stop_gradient for tensor in (x_NI, weight_IO, bias_O)]
        return paddle.addmm(bias_O.reshape([1, -1]), x_NI, weight_IO)

    @staticmethod
    def backward(ctx: Any, grad_NO: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        x_NI, weight_IO = ctx.saved_tensor()
        needs_x, needs_weight, needs_bias = ctx.needed
        ones_N1 = paddle.ones([grad_NO.shape[0], 1], dtype=grad_NO.dtype)
        return (
            paddle.matmul(grad_NO, weight_IO, transpose_y=True) if needs_x else None,
            paddle.matmul(x_NI, grad_NO, transpose_x=True) if needs_weight else None,
            paddle.matmul(ones_N1, grad_NO, transpose_x=True).reshape([-1]) if needs_bias else None,
        )


class Linear(nn.Linear):
    """Paddle's Linear with the faster form on CPU."""

    def forward(self, x_NI: paddle.Tensor) -> paddle.Tensor:
        """[N, in] -> [N, out]."""
        if x_NI.place.is_cpu_place():
            product: paddle.Tensor = _ProductWithBias.apply(x_NI, self.weight, self.bias)
            return product
        plain: paddle.Tensor = super().forward(x_NI)
        return plain
