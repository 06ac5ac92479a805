"""A Python loss at complex parameters: Im J(theta + i h e) for the complex step."""

from __future__ import annotations

import numpy as np

from fastcheck.arithmetic import theirs
from fastcheck.arrays import FloatArray, IntArray
from fastcheck.errors import InputError, text_of
from fastcheck.losses.evaluator import Evaluator
from fastcheck.losses.python import PythonLoss

__all__ = ["STEP", "ImaginaryLoss"]

STEP = 2.0**-66  # relative to the parameters; nothing is subtracted, so it can be as small as one likes
AGREE = 1e-4  # relative, of the derivative along one direction with that of the real loss


class ImaginaryLoss:
    """Gives a strategy the imaginary part of a loss on imaginary steps, in the place of the loss on real ones.

    The real loss counts the evaluations.

    Raises
    ------
    InputError
        The loss does not take complex parameters, or is not the same function there.
    """

    def __init__(self, real: Evaluator) -> None:
        if not isinstance(real, PythonLoss):
            raise InputError("scheme='complex' needs a plain Python loss; use scheme='central'.")
        self.real = real
        self.layout, self.theta = real.layout, real.theta
        self._work = real.theta.astype(np.complex128)
        self._tree = real.layout.unflatten(self._work)

    @property
    def evaluations(self) -> int:
        """Losses evaluated so far, real ones included."""
        return self.real.evaluations

    @evaluations.setter
    def evaluations(self, count: int) -> None:
        self.real.evaluations = count

    @property
    def failure(self) -> str | None:
        """What the first failed evaluation said."""
        return self.real.failure

    @failure.setter
    def failure(self, what: str | None) -> None:
        self.real.failure = what

    def represent(self, coordinates: IntArray, values: FloatArray) -> FloatArray:
        """See `Evaluator.represent`."""
        return values

    def on_grid(self, coordinates: IntArray, steps: FloatArray, offsets: tuple[float, ...]) -> FloatArray:
        """Return ``Im J(theta + i offsets[k] steps[j] e)``, shape (m, len(offsets))."""
        values = np.empty((len(coordinates), len(offsets)))
        for row, (i, h) in enumerate(zip(coordinates.tolist(), steps.tolist(), strict=True)):
            try:
                for column, offset in enumerate(offsets):
                    self._work[i] = complex(self.theta[i], offset * h)
                    values[row, column] = self._call().imag
            finally:
                self._work[i] = self.theta[i]
        return values

    def _call(self) -> complex:
        self.real.evaluations += 1
        try:
            with theirs():
                return complex(np.asarray(self.real.loss(self._tree, *self.real.args)).item())
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            raise InputError(
                f"scheme='complex': the loss raised {type(error).__name__} at complex parameters: {text_of(error)}. It "
                "must not take float() of them, compare them or use abs; use scheme='central'."
            ) from error

    def verify(self, base: float, direction: FloatArray, steps: FloatArray) -> None:
        """Compare J, and its slope along a direction of shape (P,) by a real step that suits it, with the real loss.

        Four evaluations.

        Raises
        ------
        InputError
            They differ.
        """
        there = self._call()
        if abs(there - base) > 1e-9 * abs(base):
            raise InputError(
                f"scheme='complex': the loss is {there:.17g} at complex parameters and {base:.17g} at the same real "
                "ones. Use scheme='central'."
            )
        plus, minus = self.real.along(0, direction, np.array([steps[0], -steps[0]]))
        wanted = (plus - minus) / (2 * steps[0])
        try:
            self._work += 1j * STEP * direction
            found = self._call().imag / STEP
        finally:
            self._work[:] = self.theta
        if not abs(found - wanted) <= AGREE * max(abs(found), abs(wanted)) + 1e-9 * abs(base) / steps[0]:
            raise InputError(
                f"scheme='complex': along a direction the derivative is {found:.10g} by the complex step and "
                f"{wanted:.10g} by real differences. The loss drops imaginary parts (abs, a norm, a comparison, a "
                "conjugate); use scheme='central'."
            )
