"""No verdict hinges on a factor of two in a threshold: each is doubled and halved, over a corpus of right and wrong."""

from pathlib import Path

import pytest

import fastcheck
from fastcheck import Verdict, thresholds
from tests import zoo

NAMES = [name for name in vars(thresholds) if name.isupper()]
MODES = ("full", "screen")


def corpus():
    """Yield nets, smooth and kinked, with their right gradient and with errors of every kind and size."""
    for net in [net for net in zoo.nets() if isinstance(net.params, dict)][:4]:
        right = net.gradient(net.params, *net.args)
        keys = {name: next(k for k in (name, f"d{name}") if k in right) for name in net.params}
        right = {name: right[key] for name, key in keys.items()}
        name = next(iter(right))
        one = {**right, name: right[name].copy()}
        one[name].flat[abs(one[name]).argmax()] *= 1.5
        yield net, right, Verdict.CORRECT
        yield net, {n: -g for n, g in right.items()}, Verdict.WRONG
        yield net, {**right, name: 3 * right[name]}, Verdict.WRONG
        yield net, one, Verdict.WRONG


CORPUS = list(corpus())


def verdicts():
    return [
        fastcheck.check(net.loss, gradient, net.params, args=net.args, mode=mode).verdict
        for net, gradient, _ in CORPUS
        for mode in MODES
    ]


EXPECTED = [verdict for _, _, verdict in CORPUS for _ in MODES]


def test_every_threshold_says_where_it_comes_from():
    text = Path(thresholds.__file__).read_text(encoding="utf-8")
    for name in NAMES:
        after = text.partition(f"\n{name} = ")[2].split("\n", 1)[1]
        assert after.lstrip("\n").startswith(('"""', *NAMES)), name


def test_the_corpus_as_it_is():
    assert verdicts() == EXPECTED


def times(value, factor):
    return tuple(times(v, factor) for v in value) if isinstance(value, tuple) else type(value)(factor * value)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.5, 2.0])
@pytest.mark.parametrize("name", NAMES)
def test_no_verdict_hinges_on_a_factor_of_two(name, factor, monkeypatch):
    value = getattr(thresholds, name)
    moved = times(value, factor)
    if name == "EVERYWHERE":
        moved = min(moved, 1.0)
    monkeypatch.setattr(thresholds, name, moved)
    found = verdicts()
    off = [k for k, (a, b) in enumerate(zip(found, EXPECTED, strict=True)) if a is not b]
    assert not off, [(CORPUS[k // 2][0].name, MODES[k % 2], found[k], EXPECTED[k]) for k in off]
