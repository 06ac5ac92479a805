"""A function at one point: its inputs as a flat vector, the layout of its outputs, and products called safely."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.errors import FastcheckError, InputError, LossError, said, text_of
from fastcheck.findings import Finding
from fastcheck.gradients import Analytic, match_gradient
from fastcheck.judge.verdict import Verdict
from fastcheck.parameters import ROOT, Block, Parameters, leaves

__all__ = ["InnerProduct", "LinearizationPoint", "Product", "ProductFinding"]


@dataclass(frozen=True)
class Product:
    """A user's product with the Jacobian or its transpose, and the words for it.

    ``function(inputs, vector, *args)`` returns a tree; its name is ``"vjp"``, ``"jvp"`` or ``"hvp"``, and the vector
    that it multiplies a ``"cotangent"``, a ``"tangent"`` or a ``"vector"``.
    """

    function: Callable[..., Any]
    name: str
    vector: str

    def __post_init__(self) -> None:
        if not callable(self.function):
            kind = type(self.function).__name__
            raise InputError(
                f"{self.name}={self.function!r} (type={kind}) is not callable: pass the function "
                f"{self.name}(inputs, {self.vector}), not its value."
            )


@dataclass(frozen=True)
class ProductFinding:
    """A finding about a product, and the verdict it calls for, beside the verdicts of the checks.

    It may explain what the checks see, whose own guesses are then not needed.
    """

    finding: Finding
    verdict: Verdict = Verdict.CORRECT
    explains: bool = False


@dataclass(frozen=True)
class InnerProduct:
    """The loss <u, f(inputs)>, whose gradient is J^T u; the weights are u, one float64 array for each output."""

    function: Callable[..., Any]
    weights: tuple[FloatArray, ...]

    def __call__(self, inputs: Any, *args: Any) -> Any:
        """Return the inner product; complex where the outputs are, for the complex step."""
        outputs = [leaf for _, leaf in leaves(self.function(inputs, *args))]
        return sum(np.vdot(weight, output) for weight, output in zip(self.weights, outputs, strict=True))


@dataclass(frozen=True)
class LinearizationPoint:
    """A function f and the inputs x at which its Jacobian J is looked at.

    Attributes
    ----------
    function : callable
        ``function(inputs, *args)`` returns a tree of float arrays.
    args : tuple
        Its further arguments.
    inputs : Parameters
        Layout of the inputs, n coordinates.
    theta : float64, shape (n,)
        x, a copy.
    outputs : Parameters
        Layout of the outputs, m entries.
    output : str
        How an output is called.
    refusal : str or None
        Why f does not take float64 inputs, if it does not: it is given the user's own dtypes then.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    inputs: Parameters
    theta: FloatArray
    outputs: Parameters
    output: str
    refusal: str | None = None

    @classmethod
    def of(
        cls,
        function: Callable[..., Any],
        inputs: Any,
        args: tuple[Any, ...],
        names: tuple[str, str, str] = ("function", "inputs", "output"),
    ) -> LinearizationPoint:
        """Evaluate the function once, and read the layouts; names are of the function, its inputs and its outputs.

        Raises
        ------
        InputError
            The function is not callable, an input or an output is no float array.
        LossError
            The function raises, or returns a value that is not finite.
        """
        called, given, output = names
        if not callable(function):
            raise InputError(
                f"{called}={function!r} (type={type(function).__name__}) is not callable: pass the function."
            )
        layout = Parameters.of(inputs, name=given)
        theta = layout.flatten(inputs)
        low = any(block.dtype.itemsize < theta.itemsize for block in layout.blocks)
        refusal = None
        try:
            returned = function(layout.unflatten(theta.copy()), *args)
        except FastcheckError:
            raise
        except Exception as error:
            if not low:
                raise LossError(f"{called} raised {said(error, f' at {given}')}.") from error
            try:
                returned = function(layout.astype_user(theta), *args)
            except Exception as again:
                raise LossError(f"{called} raised {said(again, f' at {given}')}.") from again
            refusal = f"{type(error).__name__}: {text_of(error)}"
        outputs = _layout_of_outputs(returned, f"{called}({given})")
        return cls(function, args, layout, theta, outputs, output, refusal)

    @property
    def double(self) -> bool:
        """Whether f takes float64 inputs."""
        return self.refusal is None

    def tree(self, theta: FloatArray | None = None) -> Any:
        """Return a private tree of inputs, at x or elsewhere, as the function takes it."""
        theta = self.theta.copy() if theta is None else theta
        return self.inputs.unflatten(theta) if self.double else self.inputs.astype_user(theta)

    def at(self, theta: FloatArray) -> FloatArray:
        """Return f elsewhere, flat, shape (m,).

        Raises
        ------
        LossError
            It raises there, or returns other outputs than at x.
        """
        try:
            return self.outputs.flatten(self.function(self.tree(theta), *self.args))
        except Exception as error:
            raise LossError(f"the function raised {said(error, ' when called again')}.") from error

    def cotangent(self, u: FloatArray) -> Any:
        """Return a flat u, shape (m,), as a private tree in the outputs' dtypes."""
        return self.outputs.astype_user(u)

    def representable(self, u: FloatArray) -> FloatArray:
        """Return u rounded to the outputs' dtypes, so that loss and product are given the same numbers."""
        return self.outputs.flatten(self.cotangent(u))

    def weighted(self, u: FloatArray) -> InnerProduct:
        """Return the loss <u, f>."""
        return InnerProduct(self.function, tuple(np.array(leaf) for _, leaf in leaves(self.outputs.unflatten(u))))

    def pulled(self, vjp: Product, u: FloatArray, tree: Any = None) -> Analytic:
        """Return the claimed J^T u, shape (n,)."""
        return self._called(vjp, tree, self.cotangent(u), self.inputs, "inputs")

    def pushed(self, jvp: Product, v: FloatArray, tree: Any = None) -> Analytic:
        """Return the claimed J v, shape (m,)."""
        return self._called(jvp, tree, self.tree(v.copy()), self.outputs, "outputs")

    def name_of(self, block: Block) -> str:
        """Return how an output is called: ``"output"`` where the function returns one array."""
        return self.output if block.name == ROOT else f"{self.output} {block.name}"

    def entry(self, index: int) -> str:
        """Return how one entry of the outputs is called: ``"output[3]"``."""
        block = self.outputs.block_at(index)
        place = f"[{', '.join(map(str, block.multi_index(index)))}]" if block.shape else ""
        return self.name_of(block) + place

    def changes(self, product: Product, vector: Any) -> bool:
        """Say whether a product changes the vector it is given, a tree of arrays."""
        before = [np.array(leaf) for _, leaf in leaves(vector)]
        product.function(self.tree(), vector, *self.args)
        return not all(np.array_equal(a, b) for a, (_, b) in zip(before, leaves(vector), strict=True))

    def _called(self, product: Product, tree: Any, vector: Any, layout: Parameters, of: str) -> Analytic:
        """Call a product with private copies, and match what it returns."""
        given = self.tree() if tree is None else tree
        try:
            returned = product.function(given, vector, *self.args)
        except FastcheckError:
            raise
        except Exception as error:
            raise LossError(f"{product.name} raised {said(error, ' at its inputs')}.") from error
        return match_gradient(returned, layout, name=product.name, of=of)


def _layout_of_outputs(returned: Any, label: str) -> Parameters:
    """Return the layout of what the function returned, or say why it has no Jacobian."""
    for path, leaf in leaves(returned, label):
        here = f"{label}[{'.'.join(path)!r}]" if path else label
        if leaf is None or isinstance(leaf, (str, bytes, bool)) or callable(leaf):
            raise InputError(
                f"{here}={leaf!r} (type={type(leaf).__name__}) is not a float array. Return only the outputs that are "
                "to be differentiated."
            )
        array = np.asarray(leaf)
        if not np.issubdtype(array.dtype, np.floating):
            raise InputError(
                f"{here} has dtype {array.dtype}, which has no derivative: outputs are arrays of floats. Leave it out "
                "of what the function returns, or split a complex one into its two parts."
            )
        if not np.isfinite(array).all():
            raise LossError(f"{here} is not finite everywhere; no derivative exists there.")
    return Parameters.of(returned, name=label)
