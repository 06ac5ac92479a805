"""The verdicts, each owning its words, and the textbook's grades of a relative error."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from fastcheck import thresholds

__all__ = ["Verdict", "grade", "worst"]


class Verdict(enum.Enum):
    """The answer to "is this gradient right?".

    Attributes
    ----------
    message : str
        What the verdict means.
    remedy : str
        What to do next.
    severity : int
        0 for correct up to 4 for wrong.
    """

    message: str
    remedy: str
    severity: int

    CORRECT = (
        "correct",
        "The gradient agrees with the finite differences of the loss within their measured uncertainty.",
        "Nothing to do. Check again when the weights have grown: some bugs show only then.",
    )
    ACCEPTABLE = (
        "acceptable",
        "The gradient agrees with the finite differences as far as the kinks of the loss (relu, max, abs) allow.",
        "Nothing to do, unless the loss should be smooth.",
    )
    INCONCLUSIVE = (
        "inconclusive",
        "The gradient can neither be confirmed nor refuted with this loss and these settings.",
        "Evaluate the loss in float64, check where the gradient is larger, or ask for a larger tolerance.",
    )
    SUSPICIOUS = (
        "suspicious",
        "The gradient differs from the finite differences by more than their uncertainty, but not by much.",
        "A small term is missing, or computed in lower precision: compare the coordinates listed with the formula.",
    )
    WRONG = (
        "wrong",
        "The gradient is wrong.",
        "Compare the coordinates listed with the formula of their block.",
    )

    def __new__(cls, key: str, message: str, remedy: str) -> Verdict:
        """Make the key the value, and keep the words beside it."""
        member = object.__new__(cls)
        member._value_ = key
        member.message = message
        member.remedy = remedy
        member.severity = len(cls.__members__)
        return member

    @property
    def passed(self) -> bool:
        """Whether the gradient may be used: correct or acceptable."""
        return self in (Verdict.CORRECT, Verdict.ACCEPTABLE)

    @property
    def refuted(self) -> bool:
        """Whether the gradient was shown not to be right: suspicious or wrong."""
        return self in (Verdict.SUSPICIOUS, Verdict.WRONG)


def grade(error: float, tolerance: float, kinks: bool) -> Verdict:
    """Grade a relative error that stands clear of its uncertainty, on the textbook's scale.

    Only kinks excuse an error above the tolerance. The scale is that of the CS231n notes, "Neural Networks Part 3:
    Gradient checks": above 1e-2 usually wrong, above 1e-4 uncomfortable, up to 1e-4 acceptable with kinks, 1e-7 and
    below right.
    """
    if error <= tolerance:
        return Verdict.CORRECT
    if error > thresholds.WRONG:
        return Verdict.WRONG
    if error > thresholds.SUSPICIOUS:
        return Verdict.SUSPICIOUS
    return Verdict.ACCEPTABLE if kinks else Verdict.SUSPICIOUS


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the most severe of the verdicts; CORRECT if there is none."""
    return max(verdicts, key=lambda verdict: verdict.severity, default=Verdict.CORRECT)
