"""Findings: what a run noticed, each of a kind that owns its words."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Finding", "Kind", "first_of"]


class Kind(enum.StrEnum):
    """What can be found; a string, so that ``finding.kind == "kinks"`` holds.

    Attributes
    ----------
    meaning : str
        What a finding of this kind says, in one sentence.
    remedy : str
        What to do about it; empty where there is nothing to do.
    """

    meaning: str
    remedy: str

    def __new__(cls, key: str, meaning: str = "", remedy: str = "") -> Kind:
        """Make the key the value, and keep the words beside it."""
        member = str.__new__(cls, key)
        member._value_ = key
        member.meaning, member.remedy = meaning, remedy
        return member

    def __repr__(self) -> str:
        """Return the word, as any string does."""
        return repr(self.value)

    # -- what is wrong with a gradient: the whole of it, or whole blocks -------------------------------------------

    ZERO = (
        "zero",
        "The gradient of a block is all zeros, the measured one is not.",
        "Never filled in, a missing return of a buffer, or cut off by a detach or a stop_gradient?",
    )
    FACTOR = (
        "factor",
        "The gradient is the measured one times one number.",
        "A constant is missing, or counted twice: 1/m, a 2, a learning rate?",
    )
    SIGN = (
        "sign",
        "The gradient is minus the measured one.",
        "Look for y - p where p - y belongs, or for a gradient that was already negated for descent.",
    )
    ACCUMULATED = (
        "accumulated",
        "The whole gradient is twice the measured one.",
        "Added twice to a buffer that was not zeroed? Or a 1/2 forgotten.",
    )
    SUM_OVER_BATCH = (
        "sum_over_batch",
        "The whole gradient is the measured one times the batch size.",
        "Summed over the batch where the loss takes the mean: divide by m.",
    )
    LAST_BATCH = (
        "last_batch",
        "The whole gradient is divided by another number of samples than this batch has.",
        "Divide by the size of the batch at hand: the last one is smaller.",
    )
    L2 = (
        "l2",
        "The error is a number times the parameters.",
        "An L2 term is missing, counted twice, or scaled otherwise than in the loss.",
    )
    L1 = (
        "l1",
        "The error is a number times the signs of the parameters.",
        "An L1 term is missing, counted twice, or scaled otherwise than in the loss.",
    )
    INDEPENDENT = (
        "independent",
        "The loss does not depend on a block whose gradient is not zero.",
        "A block that the loss does not use, or whose effect is cancelled (a bias before batch normalisation)?",
    )
    COPIED = (
        "copied",
        "The gradient of a block is a copy of that of another, which is right.",
        "A name or an index taken twice, or one buffer for both?",
    )
    BIAS_SUM = (
        "bias_sum",
        "The gradient of a block has the same value in every entry.",
        "Sum over the samples only (axis=..., keepdims=True).",
    )
    CLIPPED = (
        "clipped",
        "The gradient is clipped: what lies beyond a limit stands at the limit.",
        "Check the gradient before it is clipped.",
    )
    FLOAT32 = (
        "float32",
        "The gradient consists of float32 numbers and is off by as much as float32 arithmetic is.",
        "Look for an astype, a dtype= or a default of float32 on the way back.",
    )
    SOFTMAX = (
        "softmax",
        "Behind a softmax, the gradient is that of independent outputs.",
        "Put in the cross terms -p_i p_j of its Jacobian; with cross-entropy the step back is p - y.",
    )

    TARGET_MISSING = (
        "target_missing",
        "Behind a softmax, the gradient is that of the probabilities alone: the labels are not subtracted.",
        "With cross-entropy the step back is p - y.",
    )
    SOFTMAX_SHIFT = (
        "softmax_shift",
        "The gradient changes when all scores are shifted alike, the loss does not.",
        "Subtract the largest score in the numerator and in the denominator of the softmax.",
    )
    LABELS_SHIFTED = (
        "labels_shifted",
        "The gradient is right for labels that are off by one.",
        "Classes counted from 1 in one place and from 0 in the other, or a sample's label taken for the next one's?",
    )
    INTEGER = (
        "integer",
        "The gradient is cut off to whole numbers.",
        "Give the buffer a float dtype: np.zeros_like of an integer array, or np.full(shape, 0), makes integers.",
    )
    CONJUGATE = (
        "conjugate",
        "The gradient is right in its real parts and has the wrong sign in its imaginary parts.",
        "It is the conjugate: look at the convention for complex derivatives.",
    )
    PROJECTED = (
        "projected",
        "The error is along the parameters: one of loss and gradient does not see their length.",
        "A projection or a normalisation is in one of the two only.",
    )
    BACKWARD_TRANSPOSE = (
        "backward_transpose",
        "With a square matrix made symmetric the gradient is right.",
        "The step back multiplies by W where W.T belongs, or by W.T where W belongs.",
    )
    DROPOUT_BACKWARD = (
        "dropout_backward",
        "The mask of a dropout, or its scale, is not applied on the way back.",
        "Multiply by the same mask, and the same scale, as on the way forward.",
    )
    DRAWN_ANEW = (
        "drawn_anew",
        "The gradient draws other random numbers than the loss.",
        "Keep the masks that the forward pass drew, and use them on the way back.",
    )
    BIAS_RESIZED = (
        "bias_resized",
        "The gradient of a bias is summed over the units of each sample, and resized.",
        "Sum over the samples, the other axis.",
    )

    # -- right numbers in wrong places -----------------------------------------------------------------------------

    TRANSPOSE = (
        "transpose",
        "The gradient is the measured one with two axes exchanged.",
        "A .T too much or too few, or the two factors of the product in the wrong order?",
    )
    ORDER = (
        "order",
        "The gradient is the measured one, reshaped where a transpose belongs.",
        "Look at the reshape, ravel or flatten of this block, and at its order=.",
    )
    KERNEL_FLIPPED = (
        "kernel_flipped",
        "The gradient of a kernel is the measured one, flipped along two axes.",
        "A convolution where a correlation belongs, or the other way round?",
    )
    REVERSED = (
        "reversed",
        "The gradient is the measured one, reversed along an axis.",
        "A loop or a slice that runs the other way?",
    )
    SHIFTED = (
        "shifted",
        "The gradient is the measured one, shifted along an axis.",
        "An index off by one?",
    )
    PERMUTED = (
        "permuted",
        "The gradient is the measured one in another order along an axis.",
        "Look at how this axis is indexed, sorted or stacked.",
    )
    SWAPPED = (
        "swapped",
        "The gradient of one block is the measured one of another.",
        "Look at the order in which they are stored, returned or unpacked.",
    )

    # -- parts of a block ------------------------------------------------------------------------------------------

    COORDINATE = (
        "coordinate",
        "Single coordinates are wrong, and the rest of the block agrees.",
        "A special case, a border, an entry written twice or overwritten?",
    )
    SLICE = (
        "slice",
        "One row, column or channel is wrong, and the rest of the block agrees.",
        "A loop or a slice that ends early, a unit treated apart?",
    )
    REGION = (
        "region",
        "A part of a block is wrong, and the rest of the block agrees.",
        "A loop or a slice over a part of the block, a concatenation, a padding?",
    )
    AXIS_FACTOR = (
        "axis_factor",
        "The gradient is off by a factor of its own for every index of one axis.",
        "Something for each unit is missing, such as an activation's derivative, a scale or a mask.",
    )

    # -- the samples, and other parameters -------------------------------------------------------------------------

    SAMPLE_MISSING = (
        "sample_missing",
        "The gradient lacks one sample.",
        "A branch that only it takes, or a loop that ends early?",
    )
    ONE_SAMPLE = (
        "one_sample",
        "The gradient is that of one sample alone.",
        "Assigned in a loop where it should be added, or not summed?",
    )
    PART_OF_BATCH = (
        "part_of_batch",
        "The gradient is that of the first samples only.",
        "A loop or a slice that ends early?",
    )
    MEAN_OF_MEANS = (
        "mean_of_means",
        "The gradient is the plain mean of the gradients of batches of unequal sizes.",
        "Weigh each batch by its size.",
    )
    STALE = (
        "stale",
        "The gradient is that of other parameters.",
        "Run the forward pass inside the gradient, or before each call, and take the gradient before the update.",
    )

    # -- where an error without a name comes from ------------------------------------------------------------------

    FIRST_WRONG_LAYER = (
        "first_wrong_layer",
        "No known kind of bug fits; of the blocks that are wrong, this one comes first on the way back.",
        "Look at the step that is named; the blocks before it may be wrong only because of it.",
    )
    UNKNOWN = (
        "unknown",
        "A block is wrong, and no known kind of bug fits.",
        "Compare the coordinates listed with the formula.",
    )
    NOT_LOCATED = (
        "not_located",
        "A block is wrong, but not all of its wrong coordinates were found.",
        "Measure the block coordinate by coordinate with mode='full'.",
    )

    # -- products --------------------------------------------------------------------------------------------------

    VECTOR_IGNORED = (
        "vector_ignored",
        "A product is the same for every cotangent, tangent or vector.",
        "Multiply the vector in, entry by entry; the upstream gradient is 1 for a loss only.",
    )
    VECTOR_OFFSET = (
        "vector_offset",
        "A part of a product is there for a zero vector, too.",
        "A regulariser's gradient added in, or a buffer that is not cleared?",
    )
    VECTOR_DEGREE = (
        "vector_degree",
        "A product is not proportional to its vector: multiplied in twice, normalised, clipped.",
        "Multiply the vector itself in, once.",
    )
    VECTOR_SIGN = (
        "vector_sign",
        "A product does not change its sign with its vector.",
        "Look for an absolute value, a square or a clip of the vector.",
    )
    VECTOR_NONLINEAR = (
        "vector_nonlinear",
        "The product of a sum of two vectors is not the sum of the two.",
        "A maximum or a clip of the vector, or a buffer kept between calls?",
    )
    VECTOR_UNSTEADY = (
        "vector_unsteady",
        "The product of the same vector is another one at each call, so whether it is linear can't be said.",
        "Random draws (dropout), or a buffer kept between calls: fix them.",
    )
    VECTOR_SUMMED = (
        "vector_summed",
        "Only the sum or mean of the cotangent's entries is used.",
        "Multiply entry by entry before summing.",
    )
    VECTOR_CHANGED = (
        "vector_changed",
        "A product changes the vector it is given.",
        "Work on a copy: elsewhere another branch may need it.",
    )
    ASYMMETRIC = (
        "asymmetric",
        "A Hessian-vector product is not symmetric, as a Hessian is.",
        "If it agrees with the differences of the gradient, that is not the gradient of any loss: check it first.",
    )
    OUTPUTS = ("outputs", "A product is wrong for some of the outputs.", "Look at the code of those outputs.")
    ENTRIES = (
        "entries",
        "Single entries of a Jacobian matrix are wrong, or missing in the pattern of a sparse one.",
        "Compare the entries listed with the formula, and the pattern with what each output uses.",
    )
    SILENT_OUTPUTS = (
        "silent_outputs",
        "The derivative of some outputs is too small to be judged alone.",
        "",
    )

    # -- terms of a loss -------------------------------------------------------------------------------------------

    MASKED = (
        "masked",
        "A term's gradient is wrong, yet that of the sum passes.",
        "Repair the term: its error is hidden beside a larger term, or by another's error.",
    )
    DROWNED = (
        "drowned",
        "A term's gradient is so small beside another's that the sum alone would not show its errors.",
        "Check the terms alone.",
    )

    # -- the loss and the gradient as functions --------------------------------------------------------------------

    LOSS_CHANGES_PARAMS = (
        "loss_changes_params",
        "The loss changes the parameters it is given.",
        "Let it work on a copy (W = W / norm instead of W /= norm).",
    )
    LOSS_CHANGES_ARGS = (
        "loss_changes_args",
        "The loss changes its data (an array of args), so every evaluation sees other data.",
        "Let it work on a copy.",
    )
    GRADIENT_CHANGES_PARAMS = (
        "gradient_changes_params",
        "The gradient function changes the parameters it is given.",
        "A training step inside? Let it work on a copy.",
    )
    GRADIENT_CHANGES_LOSS = (
        "gradient_changes_loss",
        "Calling the gradient changes the loss: the two share state.",
        "Let the gradient work on copies, or build its cache anew in each call.",
    )
    EXTRA_GRADIENT = ("extra_gradient", "The gradient has entries that belong to no parameter.", "")
    RANDOM_LOSS = (
        "random_loss",
        "The loss is another one at the same parameters.",
        "Dropout? Set keep_prob=1 (evaluation mode); otherwise fix the seed inside the loss.",
    )
    REPLAYED = ("replayed", "The loss draws at random; every evaluation replayed the same draws.", "")
    STATEFUL_LOSS = (
        "stateful_loss",
        "The loss depends on the calls before it: running statistics or a cache.",
        "Switch the layer to evaluation mode, or reset it.",
    )
    COUNTING_LOSS = (
        "counting_loss",
        "The loss changes by the same amount with every call.",
        "Make it a function of the parameters alone, without a counter or a global.",
    )
    LOSS_FAILED = ("loss_failed", "Away from theta the loss raises, or has no finite value.", "")
    DROPOUT = ("dropout", "Dropout is on in a torch module.", "Call model.eval(), or pass fixed_rng=True.")
    MOVING_BUFFERS = (
        "moving_buffers",
        "The forward pass of a module writes buffers and computes with them; autograd takes them for constants.",
        "Call model.eval(), in which they are constants.",
    )
    PADDING_ROW = (
        "padding_row",
        "The row of an embedding that is its padding_idx is used, and torch leaves its gradient zero by design.",
        "Mask the padded positions out of the loss, or leave padding_idx out.",
    )
    DESCRIBED = ("described", "A module of known layers was measured as the Network that it is.", "")
    FROZEN = ("frozen", "Parameters that require no gradient were left out.", "")
    CONVERTED = ("converted", "The check ran in another dtype than that of the parameters, on a copy.", "")
    OWN_PRECISION = (
        "own_precision",
        "How far the gradient in its own precision is from the one that was checked in float64.",
        "",
    )

    REFERENCE = (
        "reference",
        "A kernel was compared with a reference, whose own backward pass was checked in float64.",
        "",
    )
    COTANGENT_LAYOUT = (
        "cotangent_layout",
        "A backward pass returns another gradient when the upstream gradient lies otherwise in memory.",
        "Index it by its strides, or call .contiguous() first.",
    )
    UNUSED_OUTPUT = (
        "unused_output",
        "A backward pass returns another gradient when one output alone is used.",
        "Take the gradients of unused outputs, None with set_materialize_grads(False), for zero.",
    )
    NEEDS_INPUT_GRAD = (
        "needs_input_grad",
        "A backward pass returns another gradient when one input alone requires it.",
        "Return one entry for every input, and save what each needs whatever the others do.",
    )
    NOT_MARKED_DIRTY = (
        "not_marked_dirty",
        "A function writes to its inputs without telling autograd.",
        "Call ctx.mark_dirty, or work on a copy.",
    )
    DETACHED = (
        "detached",
        "What a backward pass returns depends on an input, and the framework does not know: its derivative is zero.",
        "Leave out the detach, .data or stop_gradient; save inputs and outputs, and compute with them on the way back.",
    )
    FIRST_DERIVATIVE = (
        "first_derivative",
        "The second derivative was not checked, since the first does not pass.",
        "",
    )
    BATCHED = (
        "batched",
        "A derivative under vmap is another one than vector by vector.",
        "Look at the vmap rule, and at shapes, sums and buffers that count on a single vector.",
    )
    KERNEL_FACTOR = (
        "kernel_factor",
        "What a kernel returns is that of the reference times a number, in all of it or in a row or column.",
        "Look for a constant, a scale or a number of entries that is off.",
    )
    KERNEL_ENTRIES = (
        "kernel_entries",
        "Single entries of what a kernel returns are off by far more than rounding.",
        "Look at borders, the last entries, and rows that are written to the wrong place.",
    )
    KERNEL_ROUNDING = (
        "kernel_rounding",
        "A kernel rounds far more than its reference does in the same precision.",
        "Sum in a higher precision than the inputs have.",
    )

    # -- the measurement -------------------------------------------------------------------------------------------

    LOW_PRECISION = (
        "low_precision",
        "The loss refuses float64 parameters, so few digits of its derivatives can be measured.",
        "Let it follow the dtype of its parameters.",
    )
    NOISY_LOSS = (
        "noisy_loss",
        "The loss has few digits.",
        "Evaluate it in float64, or solve more tightly, to see smaller errors.",
    )
    STATIONARY = (
        "stationary",
        "The loss is all but stationary at theta, so that its gradient is little more than rounding.",
        "Check it a little way off, or give the gradient as a function.",
    )
    PIECEWISE_CONSTANT = (
        "piecewise_constant",
        "The loss stays exactly what it is close to theta, and jumps further away.",
        "Take the rounding, the quantisation or the argmax out for the check; a straight-through gradient is not that "
        "of the loss.",
    )
    JUMP = (
        "jump",
        "The loss jumps, so it has no derivative there.",
        "Look for an argmax, a rounding or a comparison in the loss.",
    )
    KINKS = ("kinks", "The loss has kinks (relu, max, abs) near theta; they were stepped around.", "")
    COINCIDING_KINKS = (
        "coinciding_kinks",
        "The parameters are exactly on several kinks at once, where a gradient may be neither one-sided slope.",
        "Initialise the parameters non-zero.",
    )
    UNCHECKED = (
        "unchecked",
        "A block could not be checked: its derivative is below what the measurement can tell.",
        "Check it where its gradient is larger, or with a more precise loss.",
    )
    DOUBTFUL = (
        "doubtful",
        "A block stands out along directions only, in a loss that could do that without an error.",
        "Measure its coordinates with mode='full'.",
    )
    DISAGREEMENT = (
        "disagreement",
        "The loss and the gradient differ by a little nearly everywhere: two functions that are not quite the same.",
        "Solve more tightly, or allow for it with tolerance=.",
    )
    ELSEWHERE = (
        "elsewhere",
        "At theta a block's gradient is zero, in the noise or at kinks, so it was checked at a generic point nearby.",
        "",
    )
    CONSTANT = (
        "constant",
        "The loss does not depend on a block at all, and its gradient is zero: right, and nothing to measure.",
        "",
    )
    ROUNDING = (
        "rounding",
        "A block differs by no more than the rounding of its own arithmetic may.",
        "Compute the gradient in float64.",
    )
    BELOW_TOLERANCE = (
        "below_tolerance",
        "A block differs by more than its uncertainty explains, but by less than is tolerated.",
        "",
    )
    TAYLOR = (
        "taylor",
        "The Taylor test along a random direction contradicts the verdict.",
        "Check the block that it names with mode='full'.",
    )
    SAMPLE = (
        "sample",
        "How many coordinates of all can be wrong, as far as a sample tells.",
        "",
    )
    WORKERS_GONE = (
        "workers_gone",
        "The workers, or their scheduler, are gone; the report is about what they had measured.",
        "Look at their logs, start them again, and go on from a checkpoint.",
    )
    CHECKPOINT_LOST = (
        "checkpoint_lost",
        "The checkpoint could not be written to the end; the run went on without it.",
        "Make room on the disk, or name another path.",
    )
    STOPPED = ("stopped", "The run ended early; the verdict is about what was measured.", "Give it a larger budget.")


@dataclass(frozen=True)
class Finding:
    """Something the run noticed.

    Attributes
    ----------
    kind : Kind
        What it is; compares equal to its word: ``"random_loss"``, ``"kinks"``, ``"factor"`` ...
    block : str or None
        The block it is about; None for the whole, or for several.
    message : str
        One or two sentences for people, with the remedy where there is one.
    evidence : mapping
        The numbers behind it.
    """

    kind: Kind
    block: str | None
    message: str
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def blocks(self) -> tuple[str, ...]:
        """All blocks it is about; empty where it is about the whole run."""
        return tuple(self.evidence.get("blocks", (self.block,) if self.block is not None else ()))


def first_of(names: Sequence[str], most: int) -> str:
    """Return the first few names of a list, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
