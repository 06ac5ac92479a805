"""The kinds of gradient bugs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.bugs.mutation import NEGLIGIBLE, Mutation, Net, Planted, Rule, Subject
from fastcheck.parameters import Block

__all__ = ["BACKWARD", "LAYOUT", "PLACES", "REGULARISERS", "SCALING"]

# -- of size: factors, signs, zeros, clipping, the batch's m, precision -----------------------------------------------


def _factor(of: Callable[[Net], float], entries: int = 1) -> Rule:
    """Return the rule that multiplies one block with so many entries; a factor of 0 (unknown) or 1 makes no sense.

    One number is off by some factor whatever the bug: only a factor that bugs often have says something there.
    """

    def rule(subject: Subject, rng: np.random.Generator) -> Planted | None:
        factor, block = of(subject.net), subject.pick(rng, lambda b: subject.nonzero(b) >= entries)
        if block is None or factor in (0.0, 1.0):
            return None
        return Planted(subject.changed(block, factor * block.view(subject.g)), {"factor": factor})

    return rule


def _data_factor(of: Callable[[Net], float]) -> Rule:
    """Return the rule that multiplies the data term of every block, not the regulariser."""

    def rule(subject: Subject, rng: np.random.Generator) -> Planted | None:
        factor = of(subject.net)
        if factor in (0.0, 1.0):
            return None
        return Planted(factor * (subject.g - subject.penalty) + subject.penalty, {"factor": factor})

    return rule


def _inverse_batch(net: Net) -> float:
    return 1 / net.batch if net.batch else 0.0


def _short_last_batch(net: Net) -> float:
    """The last batch is a quarter smaller than the m that the gradient divides by."""
    nominal = net.batch + -(-net.batch // 3)
    return net.batch / nominal if net.batch else 0.0


def _zero(subject: Subject, rng: np.random.Generator) -> Planted | None:
    block = subject.pick(rng)
    return None if block is None else Planted(subject.changed(block, 0.0), {"factor": 0.0})


def _accumulated(subject: Subject, rng: np.random.Generator) -> Planted:
    return Planted(2 * subject.g, {"factor": 2.0})


def _clipped(subject: Subject, rng: np.random.Generator) -> Planted | None:
    """Clip every coordinate at the 80% quantile of the sizes of one block, so that some saturate and most do not."""
    block = subject.pick(rng, lambda block: block.size >= 10)
    if block is None:
        return None
    limit = float(np.quantile(np.abs(subject.g[block.slice]), 0.8))
    if limit == 0.0:
        return None
    return Planted(np.clip(subject.g, -limit, limit), {"limit": limit})


def _single(value: Any) -> Any:
    """Return floats as float32, inside tuples too; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(_single(item) for item in value)
    return value.astype(np.float32) if isinstance(value, np.ndarray) and value.dtype == np.float64 else value


def _float32(subject: Subject, rng: np.random.Generator) -> Planted | None:
    if not callable(subject.net.gradient):
        return None
    params = subject.layout.unflatten(subject.theta.astype(np.float32))
    return Planted(subject.flat(subject.net.gradient(params, *_single(subject.net.args))))


SCALING = (
    Mutation("factor_m", "one block without its 1/m", _factor(lambda net: float(net.batch)), ("factor",)),
    Mutation("factor_1/m", "one block divided by m twice", _factor(_inverse_batch), ("factor",)),
    Mutation("factor_2", "one block doubled, as from a square's derivative", _factor(lambda net: 2.0), ("factor",)),
    Mutation("factor_1/2", "one block halved", _factor(lambda net: 0.5), ("factor",)),
    Mutation(
        "factor_classes",
        "one block divided by the number of classes",
        _factor(lambda net: 1 / net.classes if net.classes else 0.0),
        ("factor",),
    ),
    Mutation("factor_1.01", "one block 1% too large", _factor(lambda net: 1.01, entries=3), ("factor",)),
    Mutation("sign", "one block with the wrong sign", _factor(lambda net: -1.0), ("sign", "factor")),
    Mutation("zero", "one block never filled in", _zero, ("zero",)),
    Mutation(
        "sum_over_batch",
        "the data term summed where the loss takes the mean",
        _data_factor(lambda net: float(net.batch)),
        ("sum_over_batch", "factor"),
    ),
    Mutation(
        "last_batch",
        "the data term divided by the nominal m, while the last batch is smaller",
        _data_factor(_short_last_batch),
        ("last_batch", "sum_over_batch", "factor"),
    ),
    Mutation("accumulated", "the gradient added twice to a buffer", _accumulated, ("accumulated", "factor")),
    Mutation("clipped", "every coordinate clipped at +-c", _clipped, ("clipped",)),
    Mutation("float32", "the backward pass runs in float32", _float32, ("float32",)),
)


# -- right numbers in wrong places: transposes, memory orders, swapped blocks, moved axes -----------------------------


Move = Callable[[NDArray[Any], int, np.random.Generator], tuple[NDArray[Any], dict[str, Any]]]


def _transpose(subject: Subject, rng: np.random.Generator) -> Planted | None:
    block = subject.pick(rng, lambda b: len(b.shape) >= 2 and b.shape[-1] == b.shape[-2] > 1)
    return None if block is None else Planted(subject.changed(block, block.view(subject.g).swapaxes(-1, -2)))


def _fortran_order(subject: Subject, rng: np.random.Generator) -> Planted | None:
    """Flatten in C order and rebuild in Fortran order: on a square matrix it would be the transpose."""
    block = subject.pick(rng, lambda b: len(b.shape) >= 2 and b.shape[-1] != b.shape[-2] and min(b.shape) > 1)
    return (
        None
        if block is None
        else Planted(subject.changed(block, block.view(subject.g).ravel().reshape(block.shape, order="F")))
    )


def _swapped(subject: Subject, rng: np.random.Generator) -> Planted | None:
    blocks = subject.blocks()
    pairs = [(a, b) for i, a in enumerate(blocks) for b in blocks[i + 1 :] if a.shape == b.shape]
    if not pairs:
        return None
    a, b = pairs[rng.integers(len(pairs))]
    wrong = subject.changed(a, b.view(subject.g))
    b.view(wrong)[...] = a.view(subject.g)
    return Planted(wrong, {"blocks": (a.name, b.name)})


def _moved(move: Move, at_least: int) -> Rule:
    """Return the rule that moves the entries of one block along one axis with `at_least` entries."""

    def rule(subject: Subject, rng: np.random.Generator) -> Planted | None:
        block = subject.pick(rng, lambda b: bool(_tellable(subject, b, at_least)))
        if block is None:
            return None
        axis = int(rng.choice(_tellable(subject, block, at_least)))
        value, facts = move(block.view(subject.g), axis, rng)
        return Planted(subject.changed(block, value), {"axis": axis, **facts})

    return rule


def _tellable(subject: Subject, block: Block, at_least: int) -> list[int]:
    """Return the axes with so many slices, three of them different: of fewer, a shift may be a reversal too."""
    g = block.view(subject.g)
    return [
        axis
        for axis, n in enumerate(block.shape)
        if n >= at_least and len(np.unique(np.moveaxis(g, axis, 0).reshape(n, -1), axis=0)) >= 3
    ]


def _shift(g: NDArray[Any], axis: int, rng: np.random.Generator) -> tuple[NDArray[Any], dict[str, Any]]:
    shift = int(rng.choice([-1, 1]))
    return np.roll(g, shift, axis), {"shift": shift}


def _reverse(g: NDArray[Any], axis: int, rng: np.random.Generator) -> tuple[NDArray[Any], dict[str, Any]]:
    return np.flip(g, axis), {}


def _permute(g: NDArray[Any], axis: int, rng: np.random.Generator) -> tuple[NDArray[Any], dict[str, Any]]:
    n = g.shape[axis]
    while True:  # neither a shift nor a reversal (nor both), which have names of their own
        order = rng.permutation(n)
        steps = np.unique(np.diff(order) % n)
        if len(steps) > 1:
            return np.take(g, order, axis), {"order": tuple(order.tolist())}


LAYOUT = (
    Mutation("transpose", "one square block transposed", _transpose, ("transpose",)),
    Mutation("fortran_order", "one block reshaped in the other memory order", _fortran_order, ("order", "transpose")),
    Mutation("swapped", "two blocks of one shape taken for each other", _swapped, ("swapped",)),
    Mutation("shifted", "one axis shifted by one (off by one, cyclic)", _moved(_shift, 3), ("shifted", "permuted")),
    Mutation("reversed", "one axis in reverse order", _moved(_reverse, 3), ("reversed", "permuted")),
    Mutation("permuted", "one axis in another order", _moved(_permute, 4), ("permuted",)),
)


# -- in one place of a block, or of some samples only -----------------------------------------------------------------


def _slice(factor: float) -> Rule:
    """Return the rule that multiplies one row, column or channel whose gradient is not negligible."""

    def rule(subject: Subject, rng: np.random.Generator) -> Planted | None:
        block = subject.pick(rng, lambda b: len(b.shape) >= 2 and min(b.shape) > 1)
        if block is None:
            return None
        axis = int(rng.integers(len(block.shape)))
        g = np.moveaxis(block.view(subject.g), axis, 0)
        sizes = np.abs(g.reshape(len(g), -1))
        norms = np.linalg.norm(sizes, axis=1)
        # two entries at least, or it is a single coordinate; and others beside it, or it is the block
        full = np.count_nonzero(sizes > NEGLIGIBLE * norms.max(), axis=1) >= 2
        telling = full & (norms >= 0.1 * norms.max())
        if np.count_nonzero(norms > NEGLIGIBLE * norms.max()) < 2 or not telling.any():
            return None
        index = int(rng.choice(np.flatnonzero(telling)))
        wrong = subject.g.copy()
        np.moveaxis(block.view(wrong), axis, 0)[index] *= factor
        return Planted(wrong, {"axis": axis, "index": index, "factor": factor})

    return rule


def _coordinate(factor: float) -> Rule:
    """Return the rule that multiplies one coordinate, of at least the root mean square size of its block."""

    def rule(subject: Subject, rng: np.random.Generator) -> Planted | None:
        block = subject.pick(rng, lambda b: subject.nonzero(b) > 1)
        if block is None:
            return None
        size = np.abs(subject.g[block.slice])
        coordinate = block.start + int(rng.choice(np.flatnonzero(size >= np.sqrt(np.mean(size**2)))))
        wrong = subject.g.copy()
        wrong[coordinate] *= factor
        return Planted(wrong, {"index": block.multi_index(coordinate), "factor": factor})

    return rule


def _contribution(subject: Subject, samples: IntArray) -> FloatArray | None:
    """Return what some samples contribute to the data term's gradient, shape (P,); None where they act on others."""
    net = subject.net
    if net.take is None or net.batch < 2:
        return None
    mean = subject.flat(net.gradient(net.params, *net.take(net.args, samples))) - subject.penalty
    return mean * (len(samples) / net.batch)


def _rare_branch(subject: Subject, rng: np.random.Generator) -> Planted | None:
    sample = int(rng.integers(max(subject.net.batch, 1)))
    part = _contribution(subject, np.array([sample]))
    return None if part is None else Planted(subject.g - part, {"sample": sample})


PLACES = (
    Mutation("slice_zeroed", "one row, column or channel never filled in", _slice(0.0), ("slice",)),
    Mutation("slice_scaled", "one row, column or channel 1.5 times too large", _slice(1.5), ("slice",)),
    Mutation("coordinate_scaled", "one coordinate 1% too large", _coordinate(1.01), ("coordinate",)),
    Mutation("coordinate_sign", "one coordinate with the wrong sign", _coordinate(-1.0), ("coordinate",)),
    Mutation(
        "rare_branch", "one sample takes a branch whose derivative is forgotten", _rare_branch, ("sample_missing",)
    ),
)


# -- of L2 and L1: the gradient is off by a multiple of theta, or of its sign -----------------------------------------


def _decay_times(of: Callable[[Net], float]) -> Rule:
    """Return the rule under which the L2 term of every block is multiplied by ``of(net)``."""

    def rule(subject: Subject, rng: np.random.Generator) -> Planted | None:
        if not subject.net.decay:
            return None
        times, wrong = of(subject.net), subject.g.copy()
        for name, rate in subject.net.decay.items():
            where = subject.layout[name].slice
            wrong[where] += (times - 1) * rate * subject.theta[where]
        return Planted(wrong, {"times": times, "lambda": dict(subject.net.decay)})

    return rule


def _missing_in_one(subject: Subject, rng: np.random.Generator) -> Planted | None:
    block = subject.pick(rng, lambda b: b.name in subject.net.decay)
    if block is None:
        return None
    rate = subject.net.decay[block.name]
    wrong = subject.changed(block, block.view(subject.g) - rate * block.view(subject.theta))
    return Planted(wrong, {"times": 0.0, "lambda": {block.name: rate}})


def _regularised_biases(subject: Subject, rng: np.random.Generator) -> Planted | None:
    if not subject.net.decay:
        return None
    rate, wrong = max(subject.net.decay.values()), subject.g.copy()
    for name in subject.net.biases:
        where = subject.layout[name].slice
        wrong[where] += rate * subject.theta[where]
    return Planted(wrong, {"lambda": dict.fromkeys(subject.net.biases, rate)})


def _missing_lasso(subject: Subject, rng: np.random.Generator) -> Planted | None:
    if not subject.net.lasso:
        return None
    wrong = subject.g.copy()
    for name, rate in subject.net.lasso.items():
        where = subject.layout[name].slice
        wrong[where] -= rate * np.sign(subject.theta[where])
    return Planted(wrong, {"lambda": dict(subject.net.lasso)})


REGULARISERS = (
    Mutation("l2_missing", "L2 is in the loss, not in the gradient", _decay_times(lambda net: 0.0), ("l2",)),
    Mutation("l2_missing_in_one", "L2 forgotten in the gradient of one block", _missing_in_one, ("l2",)),
    Mutation("l2_doubled", "2 lambda W where lambda W belongs", _decay_times(lambda net: 2.0), ("l2",)),
    Mutation("l2_sign", "L2 subtracted in the gradient", _decay_times(lambda net: -1.0), ("l2",)),
    Mutation(
        "l2_averaged",
        "L2 divided by m in the gradient only",
        _decay_times(lambda net: 1 / net.batch if net.batch else 1.0),
        ("l2",),
    ),
    Mutation("l2_biases", "L2 of the biases in the gradient only", _regularised_biases, ("l2",)),
    Mutation("l1_missing", "L1 is in the loss, not in the gradient", _missing_lasso, ("l1",)),
)


# -- of the backward pass itself: wrong sums, wrong derivatives, wrong moments ----------------------------------------


def _bias_over_all(subject: Subject, rng: np.random.Generator) -> Planted | None:
    """Sum dZ over its units too (``np.sum`` without an axis): one number, broadcast to every unit.

    Behind a softmax that number is zero, and the bug no other than a block never filled in: not planted here.
    """

    def fits(block: Block) -> bool:
        g = subject.g[block.slice]
        return block.name in subject.net.biases and block.size > 1 and abs(g.sum()) > 1e-3 * np.linalg.norm(g)

    block = subject.pick(rng, fits)
    return None if block is None else Planted(subject.changed(block, block.view(subject.g).sum()))


def _bias_last_sample(subject: Subject, rng: np.random.Generator) -> Planted | None:
    """Assign dZ where it should be summed: the last sample alone is left."""
    block = subject.pick(rng, lambda b: b.name in subject.net.biases)
    part = _contribution(subject, np.array([subject.net.batch - 1]))
    return None if block is None or part is None else Planted(subject.changed(block, block.view(part)))


def _stale(subject: Subject, rng: np.random.Generator) -> Planted | None:
    """Return the gradient at the parameters of one descent step earlier, 1% of theta away: theta + rate * gradient."""
    if not callable(subject.net.gradient) or not np.any(subject.g):
        return None
    rate = 0.01 * np.linalg.norm(subject.theta) / np.linalg.norm(subject.g)
    before = subject.g
    for _ in range(200):
        after = subject.at(subject.theta + rate * before)
        if np.linalg.norm(after - before) <= 1e-14 * np.linalg.norm(after):
            return Planted(after, {"rate": float(rate)})
        before = after
    return None


def _mean_of_means(subject: Subject, rng: np.random.Generator) -> Planted | None:
    """Average the means of smaller batches, as if the last were not smaller than the others."""
    batch = subject.net.batch
    size = -(-2 * batch // 5)
    chunks = [np.arange(start, min(start + size, batch)) for start in range(0, batch, size or 1)]
    wrong = subject.penalty.copy()
    for chunk in chunks:
        part = _contribution(subject, chunk)
        if part is None:
            return None
        wrong += part * (batch / len(chunk) / len(chunks))
    return Planted(wrong, {"sizes": tuple(len(chunk) for chunk in chunks)}) if chunks else None


def _made_in_backward(kind: str) -> Rule:
    """Return the rule that runs the net's own backward pass with a bug in it."""

    def rule(subject: Subject, rng: np.random.Generator) -> Planted | None:
        net = subject.net
        return Planted(subject.flat(net.bugs[kind](net.params, *net.args))) if kind in net.bugs else None

    return rule


def _own(kind: str, description: str, *findings: str, told_in: Callable[[Subject], str] | None = None) -> Mutation:
    return Mutation(kind, description, _made_in_backward(kind), findings, told_in)


def _last_block(subject: Subject) -> str:
    """Return the name of the scores' bias: only of the output is it known that it stands before a softmax."""
    return subject.layout.blocks[-1].name


BACKWARD = (
    Mutation("bias_over_all", "a bias gradient summed over its units too", _bias_over_all, ("bias_sum",)),
    Mutation("bias_last_sample", "a bias gradient of the last sample, not the sum", _bias_last_sample, ("one_sample",)),
    Mutation("stale", "the gradient at the parameters before the last update", _stale, ("stale",)),
    Mutation("mean_of_means", "a mean over batches of which the last is smaller", _mean_of_means, ("mean_of_means",)),
    _own("missing_activation_derivative", "the activation's derivative is forgotten"),
    _own("wrong_activation_derivative", "the derivative of another activation"),
    _own("missing_output_derivative", "the output sigmoid's derivative counted wrongly"),
    _own("softmax_diagonal", "a softmax Jacobian without its cross terms", "softmax", told_in=_last_block),
    _own("dropout_backward", "a dropout mask applied forward only"),
    _own("off_by_one_time", "the state after a time step taken for the one before"),
    _own("truncated_time", "backprop through time stopped after three steps"),
    _own("reshaped_not_transposed", "a reshape where a transpose belongs, in every weight", "order", "transpose"),
    _own("leak_dropped", "relu's derivative for leaky relu's"),
    _own("hinge_counted_once", "the true class pushed once, not once for every violated margin"),
    _own("pool_everywhere", "max pooling's gradient handed to the whole window"),
    _own("missing_scale", "attention's 1/sqrt(d) forgotten backward", "factor"),
    _own("query_key_swapped", "query and key exchanged backward", "swapped"),
    _own("constant_statistics", "batch mean and variance taken for constants"),
    _own("repeats_overwritten", "repeated words of an embedding added once"),
    _own("skip_forgotten", "the gradient through the skip connection is forgotten"),
    _own("tied_once", "tied weights: the encoder's part is forgotten"),
)
