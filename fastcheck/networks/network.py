"""Network: the description of a layered net, and its forward pass at a theta on its data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray
from fastcheck.errors import InputError
from fastcheck.networks.layers import Embedding, Layer, Slot
from fastcheck.networks.losses import LOSSES, LossAt
from fastcheck.networks.operators import Operator, Weighted
from fastcheck.networks.unweighted import Residue
from fastcheck.parameters import Parameters

if TYPE_CHECKING:
    from fastcheck.networks.bound import BoundNetwork

__all__ = ["ForwardPass", "Network"]

Penalty = float | Mapping[str, float]


@dataclass(frozen=True)
class Network:
    """A feed-forward network and its loss, over blocks with the user's names.

    J = scale * mean (or sum) over samples of the loss + sum over blocks of l2/2 |W|^2 + l1 |W|_1.

    Parameters
    ----------
    layers : sequence of Layer
    loss : str
        "softmax_cross_entropy" (labels or one-hot; the last layer gives logits), "binary_cross_entropy" (logits),
        "binary_cross_entropy_sigmoid" (probabilities), "squared_error" (half the sum of squares over outputs) or
        "hinge" (one output and labels -1, 1; or one output per class).
    reduction : {"mean", "sum"}
        Over samples.
    l2, l1 : float or mapping from block name to float
        Strength of the penalties. A number is for every penalised block, see ``penalise``.
    samples : {"columns", "rows"}
        Where the samples stand in X (and y): X (features, B) and W @ X + b, or X (B, features) and X @ W.T + b.
    scale : float
        Factor of the data term: 2 for a squared error without the half, 1/K for a mean over K outputs.
    penalise : {"weights", "all"}
        Blocks that a single ``l2`` or ``l1`` is for: the weights of `Dense` and `Conv2D` (common practice), or all.

    Raises
    ------
    InputError
        A rule above is broken, or two layers use one block.
    """

    layers: Sequence[Layer]
    loss: str = "softmax_cross_entropy"
    reduction: Literal["mean", "sum"] = "mean"
    l2: Penalty = 0.0
    l1: Penalty = 0.0
    samples: Literal["columns", "rows"] = "columns"
    scale: float = 1.0
    penalise: Literal["weights", "all"] = "weights"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        for name, allowed in (
            ("loss", tuple(LOSSES)),
            ("reduction", ("mean", "sum")),
            ("samples", ("columns", "rows")),
            ("penalise", ("weights", "all")),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name}={getattr(self, name)!r}; it must be one of: {', '.join(allowed)}.")
        for layer in _flat(self.layers):
            if not isinstance(layer, Layer):
                raise InputError(f"layers has {layer!r}, which is not a layer of fastcheck.networks.")
        owners: dict[str, str] = {}
        for where, slot in self.uses():
            if slot.name in owners:
                raise InputError(
                    f"block {slot.name!r} is used twice, by {owners[slot.name]} and by {where}. Shared weights are not "
                    "supported by Network; check such a loss with a screen instead."
                )
            owners[slot.name] = where
        self.penalties(self.l2, "l2")
        self.penalties(self.l1, "l1")

    @classmethod
    def from_params(cls, params: Any, **options: Any) -> Network:
        """Describe a dense net by the names and shapes of its blocks; see `fastcheck.networks.convert.from_params`."""
        from fastcheck.networks.convert import from_params

        return from_params(params, **options)

    @classmethod
    def from_torch(cls, module: Any, **options: Any) -> Network:
        """Describe a ``torch.nn.Sequential``; see `fastcheck.networks.convert.from_torch`."""
        from fastcheck.networks.convert import from_torch

        return from_torch(module, **options)

    @classmethod
    def from_sklearn(cls, model: Any, **options: Any) -> Network:
        """Describe a fitted ``MLPClassifier`` or ``MLPRegressor``; see `fastcheck.networks.convert.from_sklearn`."""
        from fastcheck.networks.convert import from_sklearn

        return from_sklearn(model, **options)

    def uses(self) -> list[tuple[str, Slot]]:
        """Return every use of a block: how messages call its layer, and the slot."""
        named = [(f"layer {i} ({type(layer).__name__})", layer) for i, layer in enumerate(self.layers)]
        return [(where, slot) for where, layer in named for inner in _flat((layer,)) for slot in inner.slots]

    def penalties(self, penalty: Penalty, name: str) -> dict[str, float]:
        """Return the strength of a penalty for each block that has one."""
        slots = [slot for _, slot in self.uses()]
        if isinstance(penalty, Mapping):
            unknown = [block for block in penalty if block not in {slot.name for slot in slots}]
            if unknown:
                raise InputError(f"{name} names the block {unknown[0]!r}, which no layer uses.")
            found = dict(penalty)
        else:
            found = {slot.name: penalty for slot in slots if slot.weight or self.penalise == "all"}
        for block, strength in found.items():
            if not (np.isfinite(strength) and strength >= 0):
                raise InputError(f"{name}={strength!r} for block {block!r}; it must be finite and not negative.")
        return {block: float(strength) for block, strength in found.items() if strength}

    def bind(
        self,
        X: NDArray[Any],
        y: NDArray[Any],
        like: Callable[..., float] | None = None,
        params: Any = None,
        *,
        args: tuple[Any, ...] = (),
    ) -> BoundNetwork:
        """Bind the network to data: the loss as a function of the parameters alone.

        Parameters
        ----------
        X : array
            (features, B) or (B, features) by ``samples``; (B, C, H, W) or (C, H, W, B) for convolutions. Copied.
        y : array
            Labels (B,), or targets like the outputs: (outputs, B) or (B, outputs).
        like : callable, optional
            The user's own loss, ``like(params, *args) -> float``. It is compared with the network before anything is
            measured, at params and at perturbed ones.
        params : tree of float arrays, optional
            Where to make sure, at once, that everything fits.

        Raises
        ------
        InputError
            X and y do not fit each other, hold NaN, or do not fit params; ``like`` is another function.
        """
        from fastcheck.networks.bound import BoundNetwork

        bound = BoundNetwork.of(self, X, y, like, args)
        if params is not None:
            bound.verify(params)
        return bound

    def forward(self, theta: FloatArray, layout: Parameters, x: FloatArray, y: NDArray[Any]) -> ForwardPass:
        """Return the network at theta, shape (P,), on x (*features, B) and y (B,) or (K, B).

        Raises
        ------
        InputError
            The blocks of the layout, or the data, do not fit the layers.
        """
        uses = {slot.name: (where, slot) for where, slot in self.uses()}
        self._covers(layout, uses)

        def values(name: str) -> FloatArray:
            where, slot = uses[name]
            return slot.canonical(layout[name].view(theta), where)

        operators: list[Operator] = []
        out = x
        for i, layer in enumerate(self.layers):
            if isinstance(layer, Embedding) and operators:
                raise InputError(f"layer {i} (Embedding): only the first layer can be one.")
            operators += layer.forward(out, values, f"layer {i} ({type(layer).__name__})")
            out = operators[-1].out if operators else x
        loss = LOSSES[self.loss](np.ascontiguousarray(out.reshape(-1, out.shape[-1])), y)
        factor = self.scale / (x.shape[-1] if self.reduction == "mean" else 1)
        return ForwardPass(tuple(operators), loss, factor)

    def _covers(self, layout: Parameters, uses: Mapping[str, Any]) -> None:
        present = [block.name for block in layout.blocks]
        missing = [name for name in uses if name not in present]
        if missing:
            where = uses[missing[0]][0]
            raise InputError(f"{where} uses block {missing[0]!r}, which params lacks; its blocks are: {present}.")
        spare = [name for name in present if name not in uses]
        if spare:
            raise InputError(
                f"params has the block {spare[0]!r}, which no layer uses, so this loss cannot depend on it. Add its "
                "layer, or leave the block out of params."
            )


def _flat(layers: Sequence[Layer]) -> Iterator[Layer]:
    for layer in layers:
        yield layer
        yield from _flat(getattr(layer, "layers", ()))


@dataclass(frozen=True)
class ForwardPass:
    """A network at one theta on its data; the factor is what the samples' losses are multiplied by in J."""

    operators: tuple[Operator, ...]
    loss: LossAt
    factor: float

    def paths(self) -> list[tuple[Weighted, tuple[Operator, ...]]]:
        """Return each operator with parameters, and the operators that its output goes through."""
        return list(_paths(self.operators, ()))

    def term_sizes(self) -> dict[Weighted, FloatArray]:
        """Return how large the terms are that make the slopes of the samples' losses by the operators with parameters.

        They are what the slopes by an operator's output, (*features, B), would be if all terms had random signs.
        """
        found: dict[Weighted, FloatArray] = {}
        squares = (self.loss.slopes() ** 2).reshape(self.operators[-1].out.shape)
        _descend(self.operators, squares, found)
        return found

    def data_term(self) -> float:
        """Return the loss without penalties."""
        return float(self.factor * self.loss.values.sum())


def _descend(
    operators: tuple[Operator, ...], squares: FloatArray, found: dict[Weighted, FloatArray], inside: bool = False
) -> FloatArray:
    """Go down a chain with the mean squares by its output; return those by its input, if it is inside a connection."""
    for operator in reversed(operators):
        if isinstance(operator, Weighted):
            found[operator] = np.sqrt(squares)
        if isinstance(operator, Residue):
            squares = squares + _descend(operator.inner, squares, found, inside=True)
        elif inside or operator is not operators[0]:  # below the first of all nothing is asked
            squares = operator.squares_below(squares)
    return squares


def _paths(
    operators: tuple[Operator, ...], after: tuple[Operator, ...]
) -> Iterator[tuple[Weighted, tuple[Operator, ...]]]:
    for i, operator in enumerate(operators):
        rest = (*operators[i + 1 :], *after)
        if isinstance(operator, Weighted):
            yield operator, rest
        if isinstance(operator, Residue):
            # What a parameter inside changes does not reach the skip connection: the addition passes it on as it is.
            yield from _paths(operator.inner, rest)
