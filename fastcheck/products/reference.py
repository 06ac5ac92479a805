"""A kernel of arrays and a plain reference of it, as functions by name that run in two precisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.checks import numerical_gradient
from fastcheck.errors import InputError, LossError, said
from fastcheck.gradients import match_gradient
from fastcheck.parameters import Parameters, leaves
from fastcheck.products.point import InnerProduct

__all__ = ["Kernel", "Reference"]

MEASURED = 4096  # inputs up to which the derivative of a reference without a vjp is measured, one by one
COARSE = 1e-4  # eps above which what a kernel may lose is known from the vjp of the reference alone


@dataclass(frozen=True, eq=False)
class Kernel:
    """A function and its vjp, in the dtypes of the inputs.

    Attributes
    ----------
    function, vjp : callable
        The user's.
    args : tuple
        Their further arguments.
    layout, outputs : Parameters
        Of the inputs, and of what the function returns.
    theta : float64, shape (n,)
        The inputs.
    """

    function: Callable[..., Any]
    vjp: Callable[..., Any]
    args: tuple[Any, ...]
    layout: Parameters
    outputs: Parameters
    theta: FloatArray

    @classmethod
    def of(cls, function: Any, vjp: Any, inputs: Any, args: tuple[Any, ...]) -> Kernel:
        """Call the function once, and read the layouts.

        Raises
        ------
        InputError
            A function is not callable, an input or an output is no float array, or the inputs are of float64.
        LossError
            The function raises.
        """
        for name, given in (("function", function), ("vjp", vjp)):
            if not callable(given):
                raise InputError(f"{name}={given!r} (type={type(given).__name__}) is not callable: pass the function.")
        layout = Parameters.of(inputs, name="inputs")
        if all(block.dtype.itemsize >= 8 for block in layout.blocks):
            raise InputError(
                "reference: the inputs are of float64, in which a kernel is checked by differences of itself. Leave "
                "reference out, or pass inputs of the precision that the kernel is for."
            )
        theta = layout.flatten(inputs)
        try:
            returned = function(layout.astype_user(theta), *args)
        except Exception as error:
            raise LossError(f"the kernel raised {said(error, ' at its inputs')}.") from error
        return cls(function, vjp, args, layout, Parameters.of(returned, name="function(inputs)"), theta)

    @property
    def eps(self) -> float:
        """Of the precision of the inputs."""
        return max(float(np.finfo(block.dtype).eps) for block in self.layout.blocks)

    def params(self) -> dict[str, Any]:
        """Return the inputs by name."""
        return {block.name: block.view(self.theta).astype(block.dtype) for block in self.layout.blocks}

    def forward(self, tree: Mapping[str, Any], own: bool) -> dict[str, Any]:
        """Return the outputs by name."""
        return _by_name(self.function(self._tree(tree), *self.args))

    def pull_back(self, tree: Mapping[str, Any], cotangent: Mapping[str, Any], own: bool = False) -> dict[str, Any]:
        """Return J^T u by name of the inputs."""
        u = self.outputs.astype_user(np.concatenate([np.ravel(cotangent[b.name]) for b in self.outputs.blocks]))
        return _matched(self.vjp(self._tree(tree), u, *self.args), self.layout)

    def _tree(self, tree: Mapping[str, Any]) -> Any:
        return self.layout.astype_user(_flat(tree, self.layout))


@dataclass(frozen=True, eq=False)
class Reference:
    """A plain function in float64, and its vjp: its own, or one that differences measure.

    Attributes
    ----------
    function, vjp : callable
        ``function(inputs, *args)``, ``vjp(inputs, cotangent, *args)``.
    args : tuple
    layout : Parameters
        Of the inputs, in the user's dtypes.
    inputs : tree
        In float64.
    measured : bool
        Whether the vjp is measured.
    """

    function: Callable[..., Any]
    vjp: Callable[..., Any]
    args: tuple[Any, ...]
    layout: Parameters
    inputs: Any
    measured: bool

    @classmethod
    def of(cls, reference: Any, inputs: Any, args: tuple[Any, ...]) -> Reference:
        """Read what the user passed for a reference.

        Raises
        ------
        InputError
            It is neither a function nor a pair of two, or its vjp is needed and is not there.
        """
        pair = tuple(reference) if isinstance(reference, (tuple, list)) else (reference, None)
        if len(pair) != 2 or not callable(pair[0]) or not (pair[1] is None or callable(pair[1])):
            raise InputError(
                f"reference={reference!r} (type={type(reference).__name__}) must be a function like the kernel in "
                "plain NumPy, or (function, vjp)."
            )
        layout = Parameters.of(inputs, name="inputs")
        if pair[1] is None:
            eps = max(float(np.finfo(block.dtype).eps) for block in layout.blocks)
            if eps > COARSE or layout.size > MEASURED:
                why = (
                    f"inputs are of {layout.blocks[0].dtype}, and what rounding may do to the product"
                    if eps > COARSE
                    else f"there are {layout.size:,} inputs, and the derivative of so many"
                )
                raise InputError(f"reference: {why} is known from a vjp alone. Pass reference=(function, vjp).")
        vjp = _Measured(pair[0]) if pair[1] is None else pair[1]
        return cls(pair[0], vjp, args, layout, layout.unflatten(layout.flatten(inputs)), pair[1] is None)

    @property
    def eps(self) -> float:
        """Of float64."""
        return float(np.finfo(np.float64).eps)

    def params(self) -> dict[str, Any]:
        """Return the inputs by name."""
        return _by_name(self.inputs)

    def forward(self, tree: Mapping[str, Any], own: bool) -> dict[str, Any]:
        """Return the outputs by name, in the user's precision if asked."""
        return _by_name(self.function(self._tree(tree, own), *self.args))

    def pull_back(self, tree: Mapping[str, Any], cotangent: Mapping[str, Any], own: bool = False) -> dict[str, Any]:
        """Return J^T u by name of the inputs, in the user's precision if asked."""
        if own and self.measured:
            raise TypeError("differences say nothing of low precision")
        at = self._tree(tree, own)
        outputs = Parameters.of(self.function(self._tree(tree, own), *self.args))
        flat = np.concatenate([np.ravel(cotangent[block.name]) for block in outputs.blocks])
        u = outputs.astype_user(flat) if own else outputs.unflatten(flat)
        return _matched(self.vjp(at, u, *self.args), self.layout)

    def _tree(self, tree: Mapping[str, Any], own: bool) -> Any:
        flat = _flat(tree, self.layout)
        return self.layout.astype_user(flat) if own else self.layout.unflatten(flat)


@dataclass(frozen=True)
class _Measured:
    """J^T u by differences of <u, f>."""

    function: Callable[..., Any]

    def __call__(self, tree: Any, cotangent: Any, *args: Any) -> Any:
        weights = tuple(np.asarray(leaf, dtype=np.float64) for _, leaf in leaves(cotangent))
        if not any(weight.any() for weight in weights):
            layout = Parameters.of(tree)
            return layout.unflatten(np.zeros(layout.size))
        return numerical_gradient(InnerProduct(self.function, weights), tree, args=args, backend="serial")


def _by_name(tree: Any) -> dict[str, Any]:
    layout = Parameters.of(tree, name="what it returns")
    return {block.name: np.asarray(leaf) for block, (_, leaf) in zip(layout.blocks, leaves(tree), strict=True)}


def _matched(returned: Any, layout: Parameters) -> dict[str, Any]:
    """Return a product by name of the inputs, whatever it calls them."""
    flat = match_gradient(returned, layout, name="vjp", of="inputs").flat
    return {block.name: block.view(flat) for block in layout.blocks}


def _flat(tree: Mapping[str, Any], layout: Parameters) -> FloatArray:
    theta = np.empty(layout.size)
    for block in layout.blocks:
        block.view(theta)[...] = tree[block.name]
    return theta
