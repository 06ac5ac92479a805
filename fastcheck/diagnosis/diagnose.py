"""Evidence in, findings out, the most telling first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from fastcheck.diagnosis.evidence import Evidence
from fastcheck.diagnosis.experiments import neutral, resized_bias, samples, shifted_labels, stale
from fastcheck.diagnosis.first_wrong_layer import first_wrong_layer, in_order
from fastcheck.diagnosis.functions import OutOfTimeError, UserFunctions
from fastcheck.diagnosis.hypothesis import SCORE, Explained, Rule, explain
from fastcheck.diagnosis.linear import LINEAR
from fastcheck.diagnosis.order import ORDER
from fastcheck.diagnosis.places import PLACES
from fastcheck.diagnosis.softmax import SOFTMAX, softmax_shift
from fastcheck.diagnosis.values import VALUES
from fastcheck.findings import Finding, Kind

__all__ = ["RULES", "choose", "diagnose"]

RULES: tuple[Rule, ...] = VALUES + LINEAR + PLACES + ORDER + SOFTMAX

Experiment = Callable[[UserFunctions, Evidence], Finding | None]
CERTAIN: tuple[Experiment, ...] = (softmax_shift,)
"""Asked also where a pattern says what is wrong: they prove their kind."""
EXPERIMENTS: tuple[Experiment, ...] = (*CERTAIN, shifted_labels, neutral, resized_bias, samples, stale)
JOINS = 2.0  # digits that a number proven elsewhere must save in a block
WITNESSES = 3  # blocks that must agree on a number where none of them proves it


def diagnose(
    evidence: Evidence,
    functions: UserFunctions | None = None,
    candidates: Mapping[str, Sequence[Explained]] | None = None,
    places: Mapping[str, Sequence[Explained]] | None = None,
) -> tuple[Finding, ...]:
    """Say what kind of bug the wrong blocks have, and where in the backward pass to look.

    Parameters
    ----------
    evidence : Evidence
        All blocks, with which of them are wrong.
    functions : UserFunctions, optional
        Where further evaluations may be asked for, when no rule explains anything.
    candidates, places : mapping of str to sequence of Explained, optional
        What is known already of wrong blocks: what may explain one, best first; where its errors are, all of it.

    Returns
    -------
    tuple of Finding
        One for each cause, of one block or more, nearest to the output first; then where the rest comes from.
    """
    wrong = [block for block in in_order(evidence.blocks) if block.wrong]
    if not wrong:
        return ()
    tried, located = candidates or {}, places or {}
    explained = choose(
        [tried[b.name] if b.name in tried else explain(b, evidence, RULES) for b in wrong if b.name not in located]
    )
    every = [one for b in wrong for one in located.get(b.name, [explained[b.name]] if b.name in explained else [])]
    known = [e for e in every if not e.hypothesis.pattern]
    patterns = [e for e in every if e.hypothesis.pattern]
    unknown = [block for block in wrong if block.name not in {e.name for e in every}]
    causes = [_told(group, evidence) for group in _groups(known[::-1])]
    parts = [_told(group, evidence) for group in _groups(patterns[::-1])]
    if not unknown and len(patterns) <= 1:
        return (*causes, *parts)
    if functions is not None and not known:
        asked = CERTAIN if any(e.hypothesis.cause for e in patterns) else EXPERIMENTS
        with suppress(OutOfTimeError):
            for finding in (experiment(functions, evidence) for experiment in asked):
                if finding is not None:
                    return (finding,)
    if not unknown and all(e.hypothesis.kind is Kind.COORDINATE for e in patterns):
        return (*causes, *parts)
    vague = [*unknown, *(e.block for e in patterns if not e.hypothesis.cause)]
    where = first_wrong_layer(evidence, vague)
    nearest = next((e for e in every if e.block.name == wrong[-1].name), None)
    if nearest is None or (nearest.hypothesis.pattern and not nearest.hypothesis.cause):
        return (where, *causes, *parts)
    return (*parts[:1], where, *causes, *parts[1:]) if nearest.hypothesis.cause else (*causes, where, *parts)


def choose(candidates: Sequence[Sequence[Explained]]) -> dict[str, Explained]:
    """Return the explanation of each block: its own best, or one that it shares with other blocks.

    Blocks that are too small to prove a number of their own (one coordinate fits every factor) may agree on one.
    """
    chosen = {found[0].name: found[0] for found in candidates if found and found[0].stands}
    loose = [one for found in candidates for one in found if one.hypothesis.number and not one.hypothesis.pattern]
    for first in sorted(loose, key=lambda one: -one.score):
        present = chosen.get(first.name)
        if present is not None and not present.hypothesis.pattern and present is not first:
            continue
        sharing = {one.name: one for one in reversed(loose) if one is not first and _same(first, one)}
        sharing[first.name] = first
        gains = [one.score + one.hypothesis.paid for one in sharing.values()]
        if sum(gains) - first.hypothesis.paid < SCORE or not (first.stands or len(sharing) >= WITNESSES):
            continue
        for name, one in sharing.items():
            taken = chosen.get(name)
            if one.score + one.hypothesis.paid >= JOINS and (taken is None or taken.hypothesis.pattern):
                chosen[name] = one
    return {found[0].name: chosen[found[0].name] for found in candidates if found and found[0].name in chosen}


def _told(group: Sequence[Explained], evidence: Evidence) -> Finding:
    finding = group[0].rule.tell(group, evidence)
    exceptions, rows = (sum(n) for n in zip(*((one.exceptions, len(one.block.n)) for one in group), strict=True))
    if not exceptions:
        return finding
    return dataclasses.replace(finding, message=f"{finding.message} ({exceptions:,} of {rows:,} rows do not fit that.)")


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
    return [sorted(group, key=lambda one: one.block.block.start) for group in groups]


def _same(a: Explained, b: Explained) -> bool:
    first, second = a.hypothesis, b.hypothesis
    if first.kind != second.kind or a.rule.tell is not b.rule.tell or first.pattern != second.pattern:
        return False
    if first.number is not None and second.number is not None:
        return first.number.agrees(second.number)
    return not first.alone and first.facts.get("words") == second.facts.get("words")
