"""Evidence in, findings out, the most telling first."""

from __future__ import annotations

from collections.abc import Sequence

from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.hypothesis import Explained, Rule, explain
from fastcheck.diagnosis.linear import LINEAR
from fastcheck.diagnosis.order import ORDER
from fastcheck.diagnosis.origin import in_order, origin
from fastcheck.diagnosis.places import PLACES
from fastcheck.diagnosis.softmax import SOFTMAX
from fastcheck.diagnosis.values import VALUES
from fastcheck.finding import Finding

__all__ = ["RULES", "diagnose"]

RULES: tuple[Rule, ...] = VALUES + LINEAR + PLACES + ORDER + SOFTMAX


def diagnose(evidence: Evidence, rules: Sequence[Rule] = RULES) -> tuple[Finding, ...]:
    """Say what kind of bug the wrong blocks have, and where in the backward pass to look.

    Parameters
    ----------
    evidence : Evidence
        All blocks, with which of them are wrong.
    rules : sequence of Rule
        The kinds of bug to try.

    Returns
    -------
    tuple of Finding
        One for each cause, of one block or more, nearest to the output first; then where the rest comes from. Empty
        where nothing is wrong.
    """
    wrong = [block for block in in_order(evidence.blocks) if block.wrong]
    if not wrong:
        return ()
    explained = {block.name: explain(block, evidence, rules) for block in wrong}
    known = [e for e in explained.values() if e is not None and not e.hypothesis.pattern]
    patterns = [e for e in explained.values() if e is not None and e.hypothesis.pattern]
    unknown = [block for block in wrong if explained[block.name] is None]
    causes = [group[0].rule.tell(group, evidence) for group in _groups(known[::-1])]
    places = [group[0].rule.tell(group, evidence) for group in _groups(patterns[::-1])]
    if not unknown and len(patterns) <= 1:
        return (*causes, *places)
    vague = [*unknown, *(e.block for e in patterns)]
    where = origin(evidence, vague)
    nearest = explained[wrong[-1].name]
    if nearest is None or (nearest.hypothesis.pattern and not nearest.hypothesis.cause):
        return (where, *causes, *places)
    if nearest.hypothesis.cause:
        return (places[0], where, *causes, *places[1:])
    return (*causes, where, *places)


def _groups(explained: Sequence[Explained]) -> list[list[Explained]]:
    """Return hypotheses of one kind and number together, in the order in which the first of each stands."""
    groups: list[list[Explained]] = []
    for one in explained:
        for group in groups:
            if _same(group[0], one):
                group.append(one)
                break
        else:
            groups.append([one])
    return groups


def _same(a: Explained, b: Explained) -> bool:
    first, second = a.hypothesis, b.hypothesis
    if first.kind != second.kind or a.rule.tell is not b.rule.tell or first.pattern != second.pattern:
        return False
    if first.number is not None and second.number is not None:
        return first.number.agrees(second.number)
    return not first.alone and first.facts.get("words") == second.facts.get("words")


