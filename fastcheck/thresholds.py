"""Every number that decides a verdict: its value, where it comes from, and the test that moves it.

Read as ``thresholds.NAME``, so that a test can move one: ``tests/quality/test_thresholds.py`` doubles and halves each
and holds that no verdict of its corpus changes.
"""

from __future__ import annotations

# -- grades of a relative error clear of its uncertainty: the textbook's (CS231n notes, "Gradient checks") ------------

WRONG = 1e-2
SUSPICIOUS = 1e-4
RESOLUTION = SUSPICIOUS
"""A relative uncertainty above this leaves even the suspicious grade open: no pass can be given on it."""

# -- what a measurement and a gradient may lose -----------------------------------------------------------------------

SAFETY = 2.0
"""On the measured noise, whose own estimate from seven values is uncertain by about that factor (Moré & Wild 2011)."""
GRADIENT_ROUNDING = 32.0
"""Unit roundoffs of the block's largest entry that backpropagation may lose itself in one coordinate: sums of products
as long as the batch, rounded at random. In the norm of many coordinates it is `GRADIENT_ROUNDING_NORM`."""
GRADIENT_ROUNDING_NORM = 4.0
COMPLEX_ROUNDING = 64.0
"""Unit roundoffs of the largest derivative beside it that a complex step may lose."""
ARGUMENT = 64.0
"""Unit roundoffs of its arguments that a slope may lose, times the curvature: sums of many terms on the way to J."""
STATIONARY = 1e-6
"""Slope over curvature, of moves as large as the parameters, below which `ARGUMENT` may decide."""
NEGLIGIBLE = 1e-12
"""Relative error that the rounding of a right gradient itself may be, somewhere in a net: not worth a word."""

# -- when to look again, and what a second look proves ----------------------------------------------------------------

FIRST_LOOKS = 64
"""Coordinates of a block looked at before asking what the rest are likely to be."""
SECOND_LOOKS = 0.5
"""Share of the first pass's evaluations that second looks may cost without asking."""
STILL = 0.5
"""Share of its last change that a quotient may change by at the shortest step, and be settled; of truncation a 16th."""
BORNE_OUT = 0.1
"""A first measurement is borne out if a ladder moves it by less than this share of the error it showed."""
ALONG_MARGIN = 2.0
"""Uncertainties by which a block must differ along a direction, and a coordinate by its ladder for its first, sharper
quotient to count: many kinks bias all steps alike."""
CLEARED = 0.25
"""Share of the error that coordinates show together, up to which a look along it must bound it to refute it. An error e
that exceeds twice the uncertainty u has at least |e| (|e| - |u|) / |e + u| >= |e| / 3 along what is shown, e + u."""
HIDDEN_KINKS = 16.0
"""Roundings of the step believed that a kink closer to theta may bias it by, unseen: it hides in the noise of shorter
steps. In 150 nets with kinks at every scale and float32 inside, no second look at a right gradient was then off by more
than half of its uncertainty, and no ladder along a block by more than 1.1 times, in one of 200 others by 1.8, which
`ALONG_MARGIN` covers; where a shorter step contradicts, it is that one's roundings, without which 4 were called wrong.
`quality/test_false_alarms.py`.
"""
FALLEN = 64.0**2
"""By how much the changes down a ladder must have fallen like the square of the step for the next one to be promised:
with kinks at every scale one change was the 64th part of the one before by chance. `quality/test_false_alarms.py`."""
STANDS_OUT = 4.0
"""Roundings of a quotient, or of a gap between one-sided slopes, that a difference must be apart to be one: each of the
two that are compared has its own, at the confidence of the run."""
STAYS = 5 / 3
"""By how much the gap between the one-sided slopes may change from one rung to the next at a kink in theta, where it
stays what it is; that of a smooth J falls by the ratio of the steps, 4 or more."""
OPENS = 2.0
"""Times as much as they should that the one-sided slopes may seem to open from one step to the next: where they do, J
jumps, or changes on a scale much shorter than the step, and equal quotients mean nothing."""
TRUNCATION = 2.0
"""On a change of the quotient from rung to rung, as the truncation that is left: it falls by 3/4 of itself or more."""
LIKE_SQUARE = 2.0
"""How far from the square of the ratio of the steps a change may fall and still be truncation, whose next term is h^4;
twice as far where errors are compared, which hold the rounding of two rungs. `quality/test_false_alarms.py`."""
PROMISE = 8.0
"""On the truncation that such changes promise for a shorter step. `quality/test_false_alarms.py`."""
SMOOTHLY = 0.02
"""Relative scatter of gaps that close in proportion to the step, as f'' h does; kinks crossed one by one scatter by
more. `quality/test_false_alarms.py`."""
FLAT = 3
"""Rungs on which J has the same bits, and on which it moves evenly, that make stairs: fewer are chance."""
COINCIDE = 0.01
"""Share of the slope by which those to both sides differ where many kinks coincide, as at zero weights and biases,"""
SLOPE_MARGIN = 1e-3
"""and share of them by which a right gradient may then lie outside of what they allow: they are measured."""
JUMPS = 32.0
"""Errors of J that it must move by, at steps down to the spacing of theta, for a jump to be believed,"""
EVEN = 1.5
"""and how much larger the largest of those movements may be than the smallest: a slope moves J with the step."""
BENT = 1e-5
"""Of a typical derivative: half the gap of the one-sided slopes that is no sign of a kink."""

# -- a screen ---------------------------------------------------------------------------------------------------------

LOOKS = (3, 6, 12)
"""Directions after which a block is judged; each look has its share of the confidence."""
PROBES = 100
"""Residuals of a block that may be judged in one run, at any step, in any part of it (for Bonferroni)."""
GOOD = 10.0
"""A bound of so many tolerances ends the measuring."""
REPEATED = 3.0
"""Uncertainties of a residual above which it stands out and another step repeats it, whatever the noise does: one for
the residual, one for its own noise, one for the other step's."""
IMPRECISE = 1e-11
"""Relative noise above which a loss is not evaluated in float64; kinks and rounded parameters may then bias a direction
at all steps alike, so that it proves only errors larger than `UNMISTAKABLE`, or that a coordinate confirms."""
UNMISTAKABLE = 0.2
"""Relative error of a block that no such bias reaches: a sign, a factor of two, a missing block,"""
NO_DIGITS = 1e-4
"""unless the relative noise is above this: what is taken for noise may then be the loss itself, an oscillation."""
OSCILLATION = 1e-2
"""And above this a slope within its noise is none, along a direction or at a coordinate: J may go up and down many
times within each step."""
FITTED = 3
"""Directions that must agree on a factor: two are fitted by one in a hundred as well,"""
ROUGHLY = 1e-6
"""to within this of each residual, which truncation may leave."""

# -- blocks on which the loss does not seem to depend -----------------------------------------------------------------

ELSEWHERE = ((1.0, 0.0), (1.0, 0.1), (1.0, 0.5), *((0.0, 10.0**decade) for decade in range(-5, 3)))
"""Points at which a structural zero is looked for: the share of theta that is kept, and the random move added, in units
of the parameters. Those of share zero are as fresh initialisations of many sizes, where saturated units live again,
and so are signals that had died out on the way."""
FAR = (2.0**-10, 0.5, -1.0, 8.0)
"""Moves of a block, in units of its parameters, that must all leave J where it is."""
NEARBY = ((1.0, 0.03), (1.0, 0.3), (0.3, 0.3))
"""The generic points to which a degenerate one is left, one after the other, as in `ELSEWHERE`."""

# -- the Taylor test --------------------------------------------------------------------------------------------------

TAYLOR_CLEAR = 32.0
"""Errors that a remainder must stand above: they then bend the order by 0.02 at most."""
TAYLOR_LOST = 4.0
"""Unit roundoffs of its block's largest entry that a gradient's product with the direction may have lost."""
LINEAR = (0.75, 1.5)
"""Orders of the remainder of a wrong gradient, 1 in the limit,"""
SQUARE = 1.75
"""and from where on the order is that of a right one, 2 in the limit."""
CONTRADICTS = 4.0
"""Times what the verdict claims that the remainders must show, or the other way round, to contradict it; and how much
less the two sides may differ at an error, whose remainders are of opposite signs, than at a kink."""

# -- smooth disagreement ----------------------------------------------------------------------------------------------

EVERYWHERE = 0.75
"""Share of the measured coordinates, of `SEVERAL` at least, that differ clear of their uncertainty where a loss and a
gradient disagree as a solver's tolerance, a truncated series or a lower precision makes them,"""
SEVERAL = 4
ALLOWED = 1e-6
"""A tolerance from here on allows for such a difference: it is then that of the block, and of no coordinate alone."""
ALIKE = 30.0
"""and how far above the typical error of its block the error of a single entry may then be for the same reason."""
CANCELLED = 1e-10
"""Typical error of a block, in units of its norm, up to which it is what float64 lost by cancellation, as p - y does in
a trained net: it is of no coordinate alone either. float32 loses a hundred times as much."""
