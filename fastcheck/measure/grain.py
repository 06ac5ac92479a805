"""The grain of a loss: the quantum that its values are multiples of.

A program prints nine decimals, ``log(1 + exp(-x))`` moves with the spacing of floats near one, single precision is kept
in a double. The values near theta then lie on a lattice, and the greatest common divisor of their distances is its
constant: Euclid's algorithm for real numbers, stopped where their rounding, which each step multiplies, hides the
remainder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fastcheck.arrays import FloatArray

__all__ = ["exactly_rounded", "grain_in_words", "grain_of"]

ULPS = 16.0  # spacings of the values themselves below which a remainder is none
COARSE = 64.0  # spacings of the values that a quantum must be: every loss is a multiple of the spacing of floats
MULTIPLE = 1e-4  # of a quantum that a move may miss a multiple by; chance agrees with that once in 5000
HIDDEN = 4.0  # times what rounding may have made of it that a remainder must be, to be one
CONFIRMED = 3  # moves that must be multiples
REFINED = (30.0, 1e3, 1e5)  # quanta of the moves that the quantum is fitted to, the short ones first
MISSED = 0.55  # quanta that an exactly rounded value is at most off, its fit included
DEGREE = 4  # of the polynomial that stands for the smooth function close by
DECIMAL = 1e-6  # relative distance from a power of ten
MARGIN = 1.1  # on |J|, near a power of ten: with a fixed number of digits the quantum is ten times as large beyond
DIGITS = 12  # a number printed with more digits has no grain that matters


def grain_of(grids: Sequence[FloatArray]) -> float:
    """Return the quantum that values are multiples of, up to a common offset; 0 where there is none.

    Parameters
    ----------
    grids : sequence of float64, shape (m,)
        Losses along lines, at places that are not evenly spaced, in their order.
    """
    values = np.concatenate([np.empty(0), *grids])
    if len(values) < 2:
        return 0.0
    unit = float(np.spacing(np.abs(values).max()))
    return max(
        _common_divisor([np.diff(grid) for grid in grids], unit), _of_printed(np.unique(values), float(grids[0][0]))
    )


def _common_divisor(moves: Sequence[FloatArray], unit: float) -> float:
    """Return what all moves are multiples of, where that is more than the spacing of floats.

    The places are not evenly spaced: a smooth J moves evenly on an even grid, and that too is a lattice.
    """
    moved = np.sort(np.abs(np.concatenate(moves)))
    apart = np.concatenate([moved, np.diff(moved)])  # alike where J is smooth: their few quanta are known best
    divisor, error = 0.0, 0.0
    for distance in np.unique(apart[apart > ULPS * unit]).tolist():
        a, b, error_of_a, error_of_b = distance, divisor, unit, error
        while b > max(ULPS * unit, HIDDEN * error_of_b):
            whole = round(a / b)
            a, b, error_of_a, error_of_b = b, abs(a - b * whole), error_of_b, error_of_a + whole * error_of_b
        divisor, error = a, error_of_a
    if divisor < COARSE * unit:
        return 0.0
    for most in REFINED:  # Euclid's last remainder holds the rounding of all of them
        some = moved[moved < most * divisor]
        quanta = np.round(some / divisor)
        divisor = float(some @ quanta / (quanta @ quanta)) if quanta.any() else divisor
    missed = np.abs(some / divisor - np.round(some / divisor))
    hits = missed <= MULTIPLE + ULPS * unit / divisor
    return divisor if np.count_nonzero(quanta) >= CONFIRMED and hits.all() else 0.0


def _of_printed(values: FloatArray, base: float) -> float:
    """Return the quantum, near the base, of numbers that were printed with a few significant digits."""
    shown = [f"{abs(value):.16e}" for value in values.tolist() if value]
    digits = max((_digits(text) for text in shown), default=DIGITS + 1)
    if digits > DIGITS or len(shown) < CONFIRMED or not base:
        return 0.0
    return float(10.0 ** (math.floor(math.log10(MARGIN * abs(base))) - digits + 1))


def _digits(text: str) -> int:
    """Return how many significant decimal digits give a number back, or one more than matters."""
    value = float(text)
    if float(f"{value:.{DIGITS - 1}e}") != value:
        return DIGITS + 1
    return next((p for p in range(1, DIGITS + 1) if float(f"{value:.{p - 1}e}") == value), DIGITS + 1)


def exactly_rounded(places: FloatArray, values: FloatArray, grain: float) -> bool:
    """Say whether values at places on a line, both of shape (m,), are a smooth function but for rounding to a grain."""
    if not np.isfinite(values).all():
        return False
    x = places / np.abs(places).max()
    fit = np.polynomial.Polynomial.fit(x, values - values[0], DEGREE)
    return bool(np.abs(values - values[0] - fit(x)).max() <= MISSED * grain)


def grain_in_words(grain: float, base: float) -> str:
    """Say how a loss moves, and what that may come from."""
    moves = f"J moves in steps of {grain:.2g}"
    power = round(math.log10(grain))
    if abs(grain / 10.0**power - 1) < DECIMAL and base:
        digits = math.floor(math.log10(abs(base))) - power + 1
        decimals = f"{-power} decimals or " if power < 0 else ""
        return f"{moves}: printed with {decimals}{digits} digits?"
    if math.log2(grain).is_integer():
        return f"{moves}, a power of two: float32 inside, or the spacing of floats beside a larger number (1 + tiny)?"
    return f"{moves}: rounded, or counted?"
