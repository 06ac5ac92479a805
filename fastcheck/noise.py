"""The noise of the loss: how far J is from the smooth function it stands for.

Source: J. J. Moré, S. M. Wild, "Estimating Computational Noise", SIAM J. Sci. Comput. 33 (2011) 1292-1314, algorithm
ECNoise (section 5). In a difference table of J on a fine equidistant grid the smooth part dies out from column to
column, and what stays is the noise, amplified by a known factor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fastcheck.arrays import FloatArray
from fastcheck.losses.evaluator import Evaluator

__all__ = ["FAINTEST", "Noise", "difference_table_noise", "measure_noise", "scale_of_blocks", "uneven"]

POINTS = 7  # values of J on the grid, the base among them
FIRST_SPACING = 2.0**-27  # relative to the parameters: many roundings of J, few kinks
SPACINGS = 6  # how often the grid is made coarser or finer
IMPRECISE = 1e-11  # relative noise above which a loss is not evaluated in float64
WIDER = (2.0**-18, 2.0**-13)
GROWTH = 1e4  # of the noise on a wider grid; more is the shape of J: an oscillation, a pole nearby
FEW = 32  # entries of a block that may each be a quantity of its own, as in a scientific model
SOME = 1 << 12  # entries of a block that tell its median
UNEVEN = 1e4  # a block whose entries spread more than this has a step for each entry
FLOAT32_EPS = float(np.finfo(np.float32).eps)
FAINTEST = 1e-280  # magnitude of a block that has a scale: a step in proportion to less leaves the range of float64
SMALL = 1e-290  # of a sum of squares; below, they lose digits
FLOAT64_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Noise:
    """The noise of one loss value.

    Attributes
    ----------
    level : float
        Standard deviation, in units of the loss.
    relative : float
        The level over |J|.
    resolved : bool
        Whether the difference table showed a noise; if not, `level` is the rounding unit of J.
    """

    level: float
    relative: float
    resolved: bool

    @property
    def digits(self) -> int:
        """Decimal digits of J that mean something."""
        return max(0, math.floor(-math.log10(max(self.relative, 1e-17))))

    @property
    def kind(self) -> str:
        """Name of what such a noise usually comes from."""
        if self.relative < 1e3 * FLOAT64_EPS:
            return "float64 rounding"
        if 0.01 * FLOAT32_EPS < self.relative < 100 * FLOAT32_EPS:
            return "float32 arithmetic inside the loss"
        return "an inexact loss (an iterative solver, a random or a low-precision part)"


def difference_table_noise(values: FloatArray) -> float:
    """Estimate the noise of equidistant values (ECNoise, Moré & Wild 2011, section 5).

    Parameters
    ----------
    values : float64, shape (m,), m >= 5
        A function on an equidistant grid, in units of the function.

    Returns
    -------
    float
        Standard deviation of the noise; 0.0 if the values are too few different ones (the grid is too fine); NaN if
        the columns of the table do not agree (the grid is too coarse, or the function is not smooth there).
    """
    m = len(values)
    if len(np.unique(values)) < (m + 1) // 2 + 1:
        return 0.0
    levels, changes = [], []
    column, gamma = values.astype(np.float64), 1.0
    for k in range(1, m - 1):
        column = np.diff(column)
        gamma *= 0.5 * k / (2 * k - 1)  # gamma_k = (k!)^2 / (2k)!
        levels.append(math.sqrt(gamma * float(np.mean(column**2))))
        changes.append(bool(column.min() < 0 < column.max()))
    for k in range(len(levels) - 2):
        three = levels[k : k + 3]
        if max(three) <= 4 * min(three) and changes[k]:
            return levels[k]
    return math.nan


def scale_of_blocks(evaluator: Evaluator) -> FloatArray:
    """Return a typical magnitude of each block's parameters, shape (blocks,): its rms, or the whole's, or 1."""
    theta = evaluator.theta

    def rms(part: FloatArray) -> float:
        if not len(part):
            return 0.0
        square = float(part @ part)  # without a vector of squares
        if SMALL < square < math.inf:
            return math.sqrt(square / len(part))
        largest = max(float(part.max()), -float(part.min()))  # the squares of such leave the range of float64
        return largest * math.sqrt(float(np.mean((part / largest) ** 2))) if largest else 0.0

    whole = rms(theta) or 1.0
    scales = [rms(theta[block.slice]) for block in evaluator.layout.blocks]
    return np.array([scale if scale > FAINTEST else whole for scale in scales])


def uneven(theta: FloatArray) -> bool:
    """Say whether a block's entries live on scales so different that one step can't serve them all."""
    some = np.abs(theta[:: max(1, len(theta) // SOME)])
    some = some[some > 0]
    if some.size < 2:
        return False
    smallest = some.min() if len(theta) <= FEW else np.median(some)
    return bool(max(float(theta.max()), -float(theta.min())) > UNEVEN * smallest)


def measure_noise(evaluator: Evaluator, base: float, rng: np.random.Generator, repeat: float = 0.0) -> Noise:
    """Measure the noise of J along one random direction through theta; usually 6 evaluations.

    Parameters
    ----------
    evaluator : Evaluator
        The loss.
    base : float
        J(theta).
    rng : numpy.random.Generator
        Draws the direction.
    repeat : float
        |difference| of two calls at the same theta, a noise of its own.
    """
    direction = _direction(evaluator, rng)
    places = np.arange(POINTS)  # to one side: a kink at theta itself is no noise
    spacing, level = FIRST_SPACING, 0.0
    coarsest, finest = 0.0, math.inf  # grids known to be too fine, too coarse
    grids: list[FloatArray] = []
    for _ in range(SPACINGS):
        values = np.full(POINTS, base)
        values[places != 0] = evaluator.along(0, direction, spacing * places[places != 0].astype(float))
        level = difference_table_noise(values)
        grids.append(values[np.isfinite(values)])
        if level > 0:
            break
        if level == 0:
            coarsest = spacing
            spacing = 64 * spacing if finest == math.inf else math.sqrt(coarsest * finest)
        else:  # too coarse, or no value there: stay closer
            finest = spacing
            spacing = spacing / 64 if coarsest == 0 else math.sqrt(coarsest * finest)
    floor = max(0.25 * FLOAT64_EPS * abs(base), repeat)
    seen = np.unique(np.concatenate(grids)) if grids else np.array([base])
    if len(seen) > 2 and np.array_equal(seen, seen.astype(np.float32)):
        floor = max(floor, 0.5 * FLOAT32_EPS * abs(base))  # every value is a float32: J has no more digits
    if not level > 0:
        # Flat as far as it can be seen: its terms may cancel, so their rounding is that of numbers of size one. Where
        # there are a few different values, their distance is the grain of J.
        grain = float(np.diff(seen).min()) if len(seen) > 1 else 0.0
        level = max(floor, grain, FLOAT64_EPS * max(1.0, float(np.abs(seen).max())))
        return Noise(level, level / abs(base) if base else 0.0, False)
    if level > 64 * FLOAT64_EPS * abs(base):
        # A kink near theta looks like noise; another direction crosses it elsewhere or not at all.
        del direction  # two vectors like theta are one too many
        direction = _direction(evaluator, rng)
        values[places != 0] = evaluator.along(0, direction, spacing * places[places != 0].astype(float))
        again = difference_table_noise(values)
        if 0 < again < level / 16:
            level = again
    if level > IMPRECISE * abs(base):
        # Low precision rounds the parameters too: a fine grid moves few of them across a rounding, and shows too
        # little. Look again on grids as wide as the steps that such a noise asks for.
        for wider in WIDER:
            values[places != 0] = evaluator.along(0, direction, wider * places[places != 0].astype(float))
            again = difference_table_noise(values)
            if level < again <= GROWTH * level:
                level = again
    level = max(level, floor)
    return Noise(level, level / abs(base) if base else 0.0, True)


def _direction(evaluator: Evaluator, rng: np.random.Generator) -> FloatArray:
    """Draw a direction through all parameters, in proportion to their magnitudes."""
    layout = evaluator.layout
    direction = rng.standard_normal(layout.size)
    for block, scale in zip(layout.blocks, scale_of_blocks(evaluator), strict=True):
        part = evaluator.theta[block.slice]
        direction[block.slice] *= np.abs(part) if uneven(part) else scale
    return direction
