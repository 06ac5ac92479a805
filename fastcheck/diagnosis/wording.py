"""What the findings of all rules have in common: whose error they explain, and how well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.hypothesis import Explained
from fastcheck.findings import Finding, Kind

__all__ = ["about_wrong", "advice", "listed", "named", "numbers", "only", "wrong_in"]

NAMED = 6  # blocks named in a sentence


def advice(kind: Kind) -> str:
    """Return what to do about a kind of bug, as the end of a sentence."""
    return kind.remedy[:1].lower() + kind.remedy[1:]


def listed(names: Sequence[str]) -> str:
    """Return ``"W1, W2 and W3"``, or the first few and how many more."""
    if len(names) > NAMED:
        return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def named(group: Sequence[Explained]) -> str:
    """Return the names of the blocks as `listed`."""
    return listed([explained.name for explained in group])


def wrong_in(evidence: Evidence) -> str:
    """Return the names of all wrong blocks as `listed`."""
    return listed([block.name for block in evidence.wrong])


def about_wrong(kind: Kind, evidence: Evidence, message: str, **more: Any) -> Finding:
    """Return a finding about all wrong blocks together."""
    blocks = [block.name for block in evidence.wrong]
    return Finding(kind, blocks[0] if len(blocks) == 1 else None, message, {"blocks": blocks, **more})


def only(group: Sequence[Explained]) -> str | None:
    """Return the block's name if it is a single one."""
    return group[0].name if len(group) == 1 else None


def numbers(group: Sequence[Explained], **more: Any) -> dict[str, Any]:
    """Return the evidence of a finding.

    ``explained`` is the share of the squared error that it explains in the block where that is least, ``exceptions``
    the rows it does not explain, ``score`` the digits it saves (an error of another kind fits it by accident with a
    probability of about 10^-score), ``short`` the words for the headline.
    """
    return {
        "blocks": [explained.name for explained in group],
        "explained": min(explained.share for explained in group),
        "exceptions": sum(explained.exceptions for explained in group),
        "score": round(sum(explained.score for explained in group), 1),
        **more,
    }
