"""Exponential moving average of the weights that are trained; frozen ones are their own average."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import paddle


class WeightAverage:
    """average = decay * average + (1 - decay) * weight after every optimizer step, with the warm-up
    min(decay, (1 + step) / (10 + step)) so that early averages are not stuck at the start (TensorFlow's rule)."""

    def __init__(self, parameters: Mapping[str, paddle.Tensor], decay: float) -> None:
        self._parameters = parameters
        self._decay = decay
        self.averages = {name: parameter.astype("float32").clone() for name, parameter in parameters.items()}

    @paddle.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimizer step number `step` (1-based)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, parameter in self._parameters.items():
            average = self.averages[name]
            average.scale_(decay)
            average.add_(parameter.astype("float32") * (1.0 - decay))

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Restore saved averages; names and shapes must be those of the model."""
        for name, average in self.averages.items():
            average.set_value(arrays[name])

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Within the context the model holds the averaged weights."""
        kept = {name: parameter.clone() for name, parameter in self._parameters.items()}
        for name, parameter in self._parameters.items():
            parameter.set_value(self.averages[name].astype(parameter.dtype))
        try:
            yield
        finally:
            for name, parameter in self._parameters.items():
                parameter.set_value(kept[name])
