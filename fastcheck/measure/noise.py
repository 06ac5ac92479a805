"""The noise of the loss: how far a value of J is from the smooth function it stands for.

It has two parts. The *level* is random: rounding, an inner solver. Source: J. J. Moré, S. M. Wild, "Estimating
Computational Noise", SIAM J. Sci. Comput. 33 (2011) 1292-1314, algorithm ECNoise (section 5). In a difference table of
J on a fine equidistant grid the smooth part dies out from column to column, and what stays is the noise, amplified by
a known factor. The *grain* is a bound: J is a multiple of a quantum, because it was printed, or because it is the
logarithm of a number near one, and a value is off by half a quantum at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fastcheck import thresholds
from fastcheck.arrays import FloatArray, pieces
from fastcheck.losses.evaluator import Evaluator
from fastcheck.measure.grain import exactly_rounded, grain_in_words, grain_of

__all__ = [
    "FAINTEST",
    "Noise",
    "Repeated",
    "Sizes",
    "difference_table_noise",
    "generic_direction",
    "measure_noise",
    "scale_by_magnitudes",
    "scale_of_blocks",
    "uneven",
]

POINTS = 7  # values of J on the grid, the base among them
PARTS = 1 << 18  # of a spacing of the grid: its uneven place is a multiple
# One more near the golden section: an even grid cannot tell a grain from an even slope.
PLACES = np.array([1.0, 2.0, 3.0, 3.0 + 100_129 / PARTS, 4.0, 5.0, 6.0])
EVEN = np.concatenate([[True], PLACES % 1 == 0])
UNEVEN_ONE = int(np.flatnonzero(~EVEN)[0])
# Lagrange's weights of the values at the even places, in the polynomial through them at the uneven one.
INTERPOLATED = np.array(
    [math.prod((PLACES[UNEVEN_ONE - 1] - k) / (j - k) for k in range(POINTS) if k != j) for j in range(POINTS)]
)
FIRST_SPACING = 2.0**-27  # relative to the parameters: many roundings of J, few kinks
SPACINGS = 6  # how often the grid is made coarser or finer
COARSER = 64.0  # times as wide is the next grid
WIDER = (2.0**-18, 2.0**-13)
CLOSER = (2.0**-9, 2.0**-18)  # of the spacing that showed a noise: where that is a shape of J, it is smooth there
SHAPE = 16.0  # times less noise on another grid or along another direction: the first one saw a kink, an oscillation
AGREE = 4.0  # columns of the table whose estimates differ by no more are of noise (Moré & Wild 2011, section 5)
ROUNDED = 0.25  # eps: standard deviation of one rounding to nearest, 1/sqrt(12) of a spacing of eps/2 to eps, about
QUANTA = 4.0  # that J must move by for its rounding to be told from it
ROUNDINGS = 64.0  # unit roundoffs of J that need no explanation
FEW = 32  # entries of a block that may each be a quantity of its own, as in a scientific model
SOME = 1 << 12  # entries of a block that tell its median
UNEVEN = 1e4  # a block whose entries spread more than this has a step for each entry
NOTICED = 2.0**-6  # of the largest product of a block's entry and derivative: what J should change by at each entry
SPACINGS_OF_THETA = 64.0  # that a grid is wide at least, for its uneven places to tell a grain
CLOSEST = 8.0  # spacings of theta below which a grid tells no noise: whatever the loss makes of theta moves evenly
LONG = 1 << 16  # parameters from which on a direction through all of them would cost memory, and time to draw
REPEATED = 16_381  # draws that make a direction through more than `LONG`; a prime, so that no two rows move alike
FROM_NOISE = 8.0  # times the noise of a few values that the rounding may be which makes it
NOTABLE = 1e-9  # share of the slope that rounding may be without a word
LINES = 3  # through a theta that seems stationary,
FAR = 2.0**-9  # and how far along one of them J has to stay as bent
WITNESSES = 24  # more values of a loss with a grain, that tell whether the grain is all of its noise
BESIDE_GRAIN = 1 / 32  # quanta: random level of a loss that is exactly rounded, for all those values can tell
WHOLE = 1e-2  # relative noise above which no number is printed
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
        Standard deviation of its random part, in units of the loss.
    relative : float
        The noise, grain included, over |J|.
    resolved : bool
        Whether the difference table showed a noise; if not, `level` is the rounding unit of J.
    grain : float
        Quantum that J is a multiple of, in units of the loss; 0 where it is none but the spacing of floats.
    kind : str
        What was seen of it, and what it may come from, for people.
    still : int
        Points close to theta at which J was exactly the same, where its noise is that of jumps further away.
    argument : float
        What rounding the parameters, and what J makes of them, adds to its slope along a move of all parameters by
        their magnitudes, in units of the loss: the unit roundoff times the second derivative along it, with safety.
        No gradient, and no difference, is sharper.
    stationary : bool
        That is all that counts: the slope at theta is next to nothing beside the curvature, as at a fit without
        residuals.
    """

    level: float
    relative: float
    resolved: bool
    grain: float = 0.0
    kind: str = "float64 rounding"
    still: int = 0
    argument: float = 0.0
    stationary: bool = False

    @classmethod
    def of_rounding(cls, level: float, base: float) -> Noise:
        """Return that of a loss whose terms are known: what their rounding makes of J, and that of J itself."""
        level = math.hypot(level, FLOAT64_EPS * abs(base))
        return cls(level, level / abs(base) if base else 0.0, True)

    def error(self, z: float) -> float:
        """Return the largest error of a loss value: half a quantum, and z standard deviations with safety."""
        return self.bias + self.random_error(z)

    def random_error(self, z: float) -> float:
        """Return the largest random error of a loss value, z standard deviations with safety."""
        return thresholds.SAFETY * z * self.level

    @property
    def bias(self) -> float:
        """The part of the error that is a bound and no deviation: half a quantum."""
        return 0.5 * self.grain

    @property
    def typical(self) -> float:
        """A typical error of a value, in units of the loss."""
        return math.hypot(self.level, self.grain / math.sqrt(12))

    @property
    def digits(self) -> int:
        """Decimal digits of J that mean something."""
        return max(0, math.floor(-math.log10(max(self.relative, 1e-17))))


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
    levels, changes = _columns(values)
    for k in range(len(levels) - 2):
        three = levels[k : k + 3]
        if max(three) <= AGREE * min(three) and changes[k]:
            return levels[k]
    return math.nan


def _columns(values: FloatArray) -> tuple[list[float], list[bool]]:
    """Return the noise that each column of the difference table would be, and whether it changes sign."""
    levels, changes = [], []
    column, gamma = values.astype(np.float64), 1.0
    for k in range(1, len(values) - 1):
        column = column[1:] - column[:-1]
        gamma *= 0.5 * k / (2 * k - 1)  # gamma_k = (k!)^2 / (2k)!
        levels.append(math.sqrt(gamma * float((column**2).sum() / len(column))))
        changes.append(bool(column.min() < 0 < column.max()))
    return levels, changes


def _left_over(values: FloatArray) -> float:
    """Return the most noise that a smooth table may hide: what its last columns leave, and no less than rounding."""
    return max(*_columns(values)[0][-2:], ROUNDED * FLOAT64_EPS * float(np.abs(values).max()))


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
    largest = max(float(theta.max(initial=0.0)), -float(theta.min(initial=0.0)))
    some = np.abs(theta[:: max(1, len(theta) // SOME)])
    count = np.count_nonzero(some)
    small = np.count_nonzero(some < largest / UNEVEN) - (some.size - count)  # counted: a median takes far longer
    return bool(count > 1 and (small > 0 if len(theta) <= FEW else 2 * small > count))


@dataclass(frozen=True)
class Sizes:
    """How far to move each entry of an uneven block: by its own size, or so far that J should notice.

    An entry of 1e-20 may be a quantity on a scale of its own, or a weight that decayed, or what rounding left of a
    zero. By how much J changes per size, according to the gradient, tells.

    Attributes
    ----------
    scale : float
        Typical magnitude of the block; no entry is moved further because of its slope.
    slope : float
        Change of J that is noticed.
    """

    scale: float
    slope: float

    @classmethod
    def of(cls, theta: FloatArray, gradient: FloatArray, scale: float) -> Sizes:
        """Return those of a block, given its entries, their derivatives and its scale."""
        slopes = theta * gradient
        return cls(scale, NOTICED * max(float(slopes.max(initial=0.0)), -float(slopes.min(initial=0.0))))

    def __call__(self, theta: FloatArray, gradient: FloatArray) -> FloatArray:
        """Return how far to move some entries, shape (n,), with these derivatives; never zero."""
        slope, size = np.abs(gradient), np.full(len(theta), self.scale)
        np.divide(self.slope, slope, out=size, where=slope * self.scale > self.slope)
        size = np.maximum(np.abs(theta), size)
        return np.where(size > 0, size, self.scale)  # a zero, and no entry that is not has a derivative


def _magnitudes(theta: FloatArray, scale: float) -> FloatArray:
    """Return how far to move each entry of a block: by its scale, or by its own size where that is far smaller.

    J may turn many times over on the way that one of 1e-9 goes with those of size one, and would seem to be noise.
    """
    own = np.abs(theta)
    return np.where((own > 0) & (own * UNEVEN < scale), own, scale)


def scale_by_magnitudes(evaluator: Evaluator, direction: FloatArray) -> None:
    """Scale a direction in place, shape (P,): by each block's typical magnitude, or by each entry's own."""
    for block, scale in zip(evaluator.layout.blocks, scale_of_blocks(evaluator), strict=True):
        part = evaluator.theta[block.slice]
        direction[block.slice] *= np.abs(part) if uneven(part) else _magnitudes(part, scale)


@dataclass
class Repeated:
    """A direction through many parameters that costs no vector like theta: a few draws, over and over.

    Each entry is scaled by the magnitude of its block, in uneven ones by its own, and rounded where a spacing is set.
    """

    evaluator: Evaluator
    drawn: FloatArray = field(repr=False)
    spacing: float | None = None
    parts: int = 1
    scales: FloatArray = field(init=False, repr=False)
    largest: float = field(init=False)

    def __post_init__(self) -> None:
        blocks = [self.evaluator.theta[block.slice] for block in self.evaluator.layout.blocks]
        self.scales = scale_of_blocks(self.evaluator)
        largest = self.scales.copy()
        for k, theta in enumerate(blocks):
            if uneven(theta):
                self.scales[k], largest[k] = math.nan, max(float(theta.max()), -float(theta.min()))
        self.largest = float(largest.max()) * float(self.drawn.max())

    def __len__(self) -> int:
        return len(self.evaluator.theta)

    def write(self, out: FloatArray) -> None:
        """See `fastcheck.losses.evaluator.Direction`."""
        theta = self.evaluator.theta
        for start in range(0, len(out), len(self.drawn)):
            part = out[start : start + len(self.drawn)]
            part[:] = self.drawn[: len(part)]
        for block, scale in zip(self.evaluator.layout.blocks, self.scales.tolist(), strict=True):
            for some in pieces(block.start, block.stop):
                out[some] *= theta[some] if math.isnan(scale) else _magnitudes(theta[some], scale)
        if self.spacing is not None:
            _round(theta, out, self.spacing, self.parts)

    def exact(self, step: float) -> bool:
        """See `fastcheck.losses.evaluator.Direction`."""
        return self.spacing is not None and step / self.spacing * self.parts % 1 == 0


def _drawn(evaluator: Evaluator, rng: np.random.Generator) -> FloatArray | Repeated:
    """Return draws for a direction through all parameters: one each, not scaled yet, or a few that are repeated."""
    size = evaluator.layout.size
    return Repeated(evaluator, rng.standard_normal(REPEATED)) if size > LONG else rng.standard_normal(size)


def generic_direction(evaluator: Evaluator, rng: np.random.Generator) -> FloatArray | Repeated:
    """Return a random direction through all parameters, in proportion to the magnitudes of their blocks."""
    drawn = _drawn(evaluator, rng)
    if isinstance(drawn, Repeated):
        return drawn
    for block, scale in zip(evaluator.layout.blocks, scale_of_blocks(evaluator), strict=True):
        drawn[block.slice] *= scale
    return drawn


def _round(theta: FloatArray, direction: FloatArray, spacing: float, parts: int) -> None:
    """Round a direction so that a grid along it, cut into so many parts, has points that are vectors of floats.

    Large parameters (a time in seconds) would otherwise be rounded to places off the grid, and a steep J would seem to
    be noisy. The spacing is a power of two.
    """
    for some in pieces(0, len(theta)):
        part = direction[some]
        unit = parts * np.spacing(np.abs(theta[some]) + 8 * spacing * np.abs(part)) / spacing
        part[...] = np.round(part / unit) * unit


@dataclass
class _Line:
    """J on grids along one direction, and every value that was seen, on this line or on another."""

    evaluator: Evaluator
    base: float
    rng: np.random.Generator
    direction: FloatArray | Repeated = field(init=False, repr=False)
    seen: list[FloatArray] = field(default_factory=list)
    grids: list[tuple[float, FloatArray]] = field(default_factory=list)
    at_bounds: NDArray[np.bool_] | None = None
    exact: bool = False  # the last grid's uneven place is a vector of floats, too

    def __post_init__(self) -> None:
        theta = self.evaluator.theta
        self._unit = float(np.spacing(max(float(theta.max(initial=0.0)), -float(theta.min(initial=0.0)))))
        self.turn()

    def turn(self) -> None:
        """Take another direction: through all parameters, in proportion to their magnitudes, some by as much."""
        self.direction = drawn = _drawn(self.evaluator, self.rng)
        if isinstance(drawn, Repeated):
            return
        largest = max(float(drawn.max(initial=0.0)), -float(drawn.min(initial=0.0)))
        if 0 < largest < 1:  # few parameters: a small draw would make a wide grid a close one
            drawn /= largest
        scale_by_magnitudes(self.evaluator, drawn)
        if self.at_bounds is not None and not self.at_bounds.all():
            drawn[self.at_bounds] = 0.0

    def values(self, spacing: float, places: FloatArray = PLACES) -> FloatArray:
        """Return J at theta and at some places of the grid, to one side: a kink at theta itself is no noise."""
        self.exact = self.spacings(spacing) > SPACINGS_OF_THETA * PARTS
        parts = PARTS if self.exact else 1
        if isinstance(self.direction, Repeated):
            self.direction.spacing, self.direction.parts = spacing, parts
        else:
            _round(self.evaluator.theta, self.direction, spacing, parts)
        values = np.concatenate([[self.base], self.evaluator.along(0, self.direction, spacing * places)])
        if self.spacings(spacing) > SPACINGS_OF_THETA:  # closer by, the golden section is rounded to a lattice
            self.seen.append(values[np.isfinite(values)])
        if len(places) == len(PLACES):
            self.grids.append((spacing, values[EVEN]))
        return values

    def spacings(self, spacing: float) -> float:
        """Return how many spacings of floats the largest parameter moves by, from place to place of a grid."""
        v = self.direction
        most = v.largest if isinstance(v, Repeated) else max(float(v.max(initial=0.0)), -float(v.min(initial=0.0)))
        return spacing * most / self._unit

    def level(self, grid: FloatArray) -> float:
        """Return the noise of the last grid as `difference_table_noise`, or its uneven place, if that shows far more.

        A J that moves by a whole number of roundings from place to place is without noise on an even grid: one in ten
        is, nearly. Its uneven place then misses the polynomial through the others by what was rounded. Where it does
        not, J has no grain, and nothing is left beyond its rounding, no other grid would show more.
        """
        even = grid[EVEN]
        level, left = difference_table_noise(even), _left_over(even)
        if level == 0 or not self.exact:
            return level
        missed = abs(float(grid[UNEVEN_ONE] - even[0] - INTERPOLATED @ (even - even[0])))
        if level > 0 and missed > thresholds.STANDS_OUT * max(level, left):
            return missed / math.sqrt(1 + float(INTERPOLATED @ INTERPOLATED))
        nothing = left <= ROUNDED * FLOAT64_EPS * float(np.abs(even).max()) and missed <= thresholds.STANDS_OUT * left
        if math.isnan(level) and nothing and not grain_of(self.seen):
            return left
        return level

    def away(self, spacing: float) -> float:
        """Return the most noise that a grid shows which theta is not on: J may jump there, or have a kink."""
        values = self.values(spacing, np.concatenate([[1.0], PLACES + 1]))[1:]
        level = self.level(values)
        return _left_over(values[EVEN]) if math.isnan(level) else level

    def all(self) -> FloatArray:
        """Return the different values seen, rising."""
        return np.unique(np.concatenate([*self.seen, [self.base]]))


def measure_noise(
    evaluator: Evaluator,
    base: float,
    rng: np.random.Generator,
    repeat: float = 0.0,
    at_bounds: NDArray[np.bool_] | None = None,
) -> Noise:
    """Measure the noise of J along one random direction through theta; usually 6 evaluations.

    `repeat` is the |difference| of two calls at the same theta, a noise of its own. Coordinates `at_bounds`, a mask of
    shape (P,), stay where they are if there are others: a square root or a logarithm that ends there has a shape on
    every scale.
    """
    line = _Line(evaluator, base, rng, at_bounds=at_bounds)
    spacing, level = _where_it_shows(line)
    grain = grain_of(line.seen)
    for closer in CLOSER if grain else ():
        fine = closer * min(spacing, FIRST_SPACING)
        moved = bool(np.ptp(line.values(fine)) > 0)
        if moved and grain_of(line.seen) < grain:  # by less where it is looked at more closely: that was its shape
            spacing, level = _where_it_shows(line, fine)
            line.seen = line.seen[-1:]
            grain = grain_of(line.seen)
    floor = max(ROUNDED * FLOAT64_EPS * abs(base), repeat)
    seen = line.all()
    if len(seen) > 2 and np.array_equal(seen, seen.astype(np.float32)):
        floor = max(floor, 0.5 * FLOAT32_EPS * abs(base))  # every value is a float32: J has no more digits
    resolved = level > 0
    if not resolved:
        # Flat as far as it can be seen: its terms may cancel, so their rounding is that of numbers of size one. Where
        # there are a few different values, their distance is the grain of J.
        apart = float(np.diff(seen).min()) if len(seen) > 1 else 0.0
        level = max(apart, FLOAT64_EPS * max(1.0, float(np.abs(seen).max())))
    elif level > ROUNDINGS * FLOAT64_EPS * abs(base):
        spacing, level = _less_its_shape(line, spacing, level)
    if level > thresholds.IMPRECISE * abs(base):
        level = _on_wider_grids(line, spacing, level)
    if level <= grain and _exactly_rounded(line, grain):
        level = BESIDE_GRAIN * grain
    still = sum(len(grid) - 1 for grid in line.seen if not np.ptp(grid))
    noise = _record(max(level, floor), grain, base, resolved, still)
    argument, stationary = _argument(line, noise, spacing)
    return replace(noise, argument=argument, stationary=stationary)


def _argument(line: _Line, noise: Noise, shown: float) -> tuple[float, bool]:
    """Return `Noise.argument` and `Noise.stationary`, of a noise that a grid of the spacing `shown` told.

    A rounding on the way to J is like a move of the parameters, by a share e of their size: it moves J by e J' and its
    slope by e J''. The noise tells e, which is no more than the unit roundoff, and far less where parameters are
    counted from afar (a time). Where J'' is far above J', both in units of moves as large as the parameters, other
    lines are asked as well: one through few parameters may miss all curvature, and one may have met a kink.
    """
    slope, bend, spacing = max((_slope_and_bend(*grid, noise) for grid in line.grids), key=lambda told: told[1])
    near = slope < thresholds.STATIONARY * bend
    slopes, bends = [slope], [bend]
    while near and len(bends) < LINES:
        line.turn()
        slope, bend, _ = _slope_and_bend(spacing, line.values(spacing)[EVEN], noise)
        slopes.append(slope)
        bends.append(bend)
    slope, bend = float(np.median(slopes)), float(np.median(bends))
    if not bend:
        return 0.0, False
    far = POINTS // 2 * shown
    moved_by = min(FLOAT64_EPS, FROM_NOISE * noise.typical / (slope + bend * far))
    argument = thresholds.ARGUMENT * moved_by * bend
    stationary = near and slope < thresholds.STATIONARY * bend and argument > NOTABLE * slope
    if stationary:  # where J bends so only close by (sqrt(x^2 + 1e-12)), it is no such point
        middle, end = line.evaluator.along(0, line.direction, np.array([FAR / 2, FAR]))
        stationary = abs(float(line.base - 2 * middle + end)) > bend * (FAR / 2) ** 2 / COARSER
    return argument, stationary


def _slope_and_bend(spacing: float, values: FloatArray, noise: Noise) -> tuple[float, float, float]:
    """Return the first and the second derivative at theta on a grid, the second less what the noise may be of it."""
    step, (here, middle, end) = 3 * spacing, values[[0, 3, 6]]
    lost = 4 * (noise.error(thresholds.SAFETY) + FLOAT64_EPS * float(np.abs(values).max()))
    bend = abs(float(here - 2 * middle + end)) - lost
    slope = abs(float(4 * (middle - here) - (end - here))) / (2 * step)
    return (slope, bend / step**2, spacing) if bend > 0 else (slope, 0.0, spacing)  # NaN: no value there


def _record(level: float, grain: float, base: float, resolved: bool, still: int) -> Noise:
    bare = Noise(level, 0.0, resolved, grain)
    relative = bare.typical / abs(base) if base else 0.0
    words = _words(level, grain, base, relative)
    jumps = still if relative > (WHOLE if "printed" in words else 100 * FLOAT32_EPS) else 0
    return Noise(level, relative, resolved, grain, words, jumps)


def _words(level: float, grain: float, base: float, relative: float) -> str:
    """Say what was measured, and name causes as what they are: possibilities."""
    if grain > level:
        return grain_in_words(grain, base)
    if relative < 1e3 * FLOAT64_EPS:
        return "float64 rounding"
    what = f"values close to each other scatter by {level:.1g}"
    if 0.01 * FLOAT32_EPS < relative < 100 * FLOAT32_EPS:
        return f"{what}, as float32 arithmetic inside the loss leaves it, or a solver that stops early"
    return f"{what}, as an iterative solver, a random or a low-precision part leaves it"


def _where_it_shows(line: _Line, spacing: float = FIRST_SPACING) -> tuple[float, float]:
    """Return the spacing of a grid that shows a noise, and the noise; 0 or NaN where none does.

    Where J is smooth on every grid on which it moves, the noise is at most what the last columns leave of it.
    """
    level, least = 0.0, (math.inf, spacing)
    coarsest, finest = 0.0, math.inf  # grids known to be too fine, too coarse
    for _ in range(SPACINGS):
        grid = line.values(spacing)
        values, level = grid[EVEN], line.level(grid)
        if level > 0:
            break
        if math.isnan(level) and np.isfinite(values).all():
            least = min(least, (_left_over(values), spacing))
        passed = values[0] != values[-1] and np.ptp(values[POINTS // 2 :]) == 0  # a bump that the grid strides over
        if level == 0 and not passed:
            coarsest = spacing
            spacing = COARSER * spacing if finest == math.inf else _between(coarsest, finest)
        else:  # too coarse, or no value there: stay closer
            finest = spacing
            spacing = spacing / COARSER if coarsest == 0 else _between(coarsest, finest)
        if line.spacings(spacing) < CLOSEST:
            break
    return (spacing, level) if level > 0 or math.isinf(least[0]) else least[::-1]


def _between(low: float, high: float) -> float:
    return float(2.0 ** np.round(0.5 * np.log2(low * high)))


def _less_its_shape(line: _Line, spacing: float, level: float) -> tuple[float, float]:
    """Return the noise without what is the shape of J (a kink near theta, an oscillation shorter than the grid).

    Another direction crosses a kink elsewhere or not at all, and a closer grid fits into the oscillation. What falls
    no faster than the grid gets closer may be noise all the same: at a minimum, roundings on the way to J count by how
    far J is from it, and within a few hundred spacings of floats rounding is a smooth function too. The spacing of the
    grid that told it comes first.
    """
    fine = min(spacing, FIRST_SPACING)
    for grid in (spacing, *(closer * fine for closer in CLOSER)):
        if level <= ROUNDINGS * FLOAT64_EPS * abs(line.base):
            break
        again = 0.0
        # On one line in six or so, the rounding of an argument is a slope of its own: two have to agree.
        for _ in range(2):
            line.turn()
            if line.spacings(grid) < CLOSEST or not again < level / SHAPE * min(1.0, grid / spacing):
                break
            there = line.away(grid)
            if not there > 0:  # it does not move any more: it rounds its parameters, or has a grain
                return spacing, level
            again = max(again, there)
        if 0 < again < level / SHAPE * min(1.0, grid / spacing):
            spacing, level = grid, again
    return spacing, level


def _on_wider_grids(line: _Line, spacing: float, level: float) -> float:
    """Return the noise of a loss of few digits on grids as wide as the steps that it asks for.

    Low precision rounds the parameters too: a fine grid moves few of them across a rounding, and shows too little. The
    largest of a few estimates is too large: only what their own uncertainty does not explain counts. And what grows
    faster than the grid is wide is the shape of J: kinks, an oscillation, a pole nearby.
    """
    for wider in WIDER:
        again = line.away(wider)
        if thresholds.SAFETY * level < again <= level * wider / spacing:
            level, spacing = again, wider
    return level


def _exactly_rounded(line: _Line, grain: float) -> bool:
    """Say whether J is a smooth function rounded to its grain and nothing else, from more values close by."""
    spacing = FIRST_SPACING
    while np.ptp(line.values(spacing)) < QUANTA * grain and spacing < 1 / COARSER:
        spacing *= math.sqrt(COARSER)
    places: FloatArray = np.arange(1.0, WITNESSES + 1) * (POINTS / WITNESSES)
    return exactly_rounded(np.concatenate([[0.0], places]), line.values(spacing, places), grain)
