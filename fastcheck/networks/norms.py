"""The layers that normalise: over the batch, or over the features of each sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray
from fastcheck.errors import InputError
from fastcheck.networks.activations import Activation
from fastcheck.networks.layers import Layer, Slot, Values, activate, vector, vectors
from fastcheck.networks.operators import Operator
from fastcheck.networks.tables import Scale
from fastcheck.networks.unweighted import Normalise

__all__ = ["BatchNorm", "LayerNorm"]


@dataclass(frozen=True)
class _Norm(Layer):
    gain: str | None = None
    shift: str | None = None
    activation: str | Activation | None = None
    eps: float = 1e-5

    @property
    def slots(self) -> tuple[Slot, ...]:
        return vectors(self.gain, self.shift)

    def _forward(self, x: FloatArray, values: Values, where: str, over_samples: bool) -> list[Operator]:
        normal = Normalise(x, self.eps, over_samples)
        size = len(x) if over_samples else x[..., 0].size
        gain, shift = vector(where, self.gain, values, size), vector(where, self.shift, values, size)
        found: list[Operator] = [normal]
        if gain or shift:
            found.append(Scale(normal.out, gain, shift, channels=over_samples))
        return [*found, *activate(found[-1].out, self.activation, where)]


@dataclass(frozen=True)
class BatchNorm(_Norm):
    """gain * (x - mean) / sqrt(variance + eps) + shift with the statistics of this batch, per feature or channel.

    The mean and (biased) variance are those of the batch, as in training: every sample then acts on every other.
    """

    def forward(self, x: FloatArray, values: Values, where: str) -> list[Operator]:
        """See `Layer.forward`."""
        if x.shape[-1] * int(np.prod(x.shape[1:-1])) < 2:
            raise InputError(f"{where}: batch normalisation of one sample has no variance. Bind at least 2 samples.")
        return self._forward(x, values, where, over_samples=True)


@dataclass(frozen=True)
class LayerNorm(_Norm):
    """gain * (x - mean) / sqrt(variance + eps) + shift over all features of each sample.

    For maps, the gain and shift have one entry for each of the C * H * W positions.
    """

    @property
    def slots(self) -> tuple[Slot, ...]:
        """See `Layer.slots`."""
        return tuple(_Anything(name) for name in (self.gain, self.shift) if name is not None)

    def forward(self, x: FloatArray, values: Values, where: str) -> list[Operator]:
        """See `Layer.forward`."""
        return self._forward(x, values, where, over_samples=False)


class _Anything(Slot):
    """A block of any shape, flattened."""

    def __init__(self, name: str) -> None:
        super().__init__(name, None)

    def canonical(self, array: NDArray[Any], where: str) -> NDArray[Any]:
        if not array.flags.c_contiguous:
            raise InputError(f"{where}: block {self.name!r} must be C-contiguous.")
        return array.reshape(-1)
