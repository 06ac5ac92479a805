"""A finding: something the run noticed, in one sentence, with its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Finding"]


@dataclass(frozen=True)
class Finding:
    """Something the run noticed.

    Attributes
    ----------
    kind : str
        A word for programs: ``"random_loss"``, ``"kinks"``, ``"factor"`` ...
    block : str or None
        The block it is about; None for the whole.
    message : str
        One or two sentences for people, with the remedy where there is one.
    evidence : mapping
        The numbers behind it.
    """

    kind: str
    block: str | None
    message: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
