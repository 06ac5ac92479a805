"""Every sentence of a diagnosis agrees with the numbers: each claim is worked out again from the right gradient."""

import re

import numpy as np
import pytest

import fastcheck
from fastcheck import examples
from fastcheck.bugs import MUTATIONS
from fastcheck.parameters import Parameters
from tests.strategies.losses import planted, smooth

NETS = [examples.mlp((9, 8, 8, 4), l2=1e-2, batch=12), examples.mlp((20, 14, 14, 5), activation="relu", seed=4)]
NEVER = r"\binf\b|\bnan\b|×1\.000\b|(?<![-\d])1\.0000 ×|\b1 times as|no single factor|rows \d+ to|None"

ORDER = r"(.+?) (?:is|are) wrong(?:, (.+?) (?:is|are) right| \(every block\))"


class Truth:
    """The right gradient beside the wrong one."""

    def __init__(self, right, wrong, params):
        self.layout = Parameters.of(params)
        self.right, self.wrong = ({b.name: np.asarray(t[b.name]) for b in self.layout.blocks} for t in (right, wrong))
        self.theta = {b.name: np.asarray(params[b.name]) for b in self.layout.blocks}

    def off(self, name):
        """Which entries of a block are wrong."""
        g, n = self.wrong[name], self.right[name]
        return np.abs(g - n) > 1e-5 * np.maximum(np.abs(n), 1e-3 * np.abs(n).max())

    def agrees(self, finding):
        """Work the finding's claims out again; they are those of `evidence`, and of the words that name blocks."""
        evidence, kind = finding.evidence, finding.kind
        for name in evidence.get("blocks", ()):
            assert self.off(name).any(), (name, finding.message)
        if kind in ("factor", "sign", "accumulated", "sum_over_batch", "last_batch"):
            assert all(self._scaled(name, evidence) for name in evidence["blocks"]), finding.message
        elif kind in ("l2", "l1"):
            for name in evidence["blocks"]:
                of = self.theta[name] if kind == "l2" else np.sign(self.theta[name])
                error = self.wrong[name] - self.right[name]
                assert np.linalg.norm(error - evidence["rate"] * of) < 1e-3 * np.linalg.norm(error), finding.message
        elif kind == "coordinate":
            listed = {(name, tuple(index)) for name, index in evidence["places"]}
            truly = {(n, tuple(i)) for n in evidence["blocks"] for i in np.argwhere(self.off(n)).tolist()}
            some = "may be more" in finding.message or "besides" in finding.message
            assert truly >= listed if some else truly == listed, finding.message
        elif kind in ("slice", "region"):
            self._inside(finding)
        elif kind == "first_wrong_layer":
            self._order(finding)

    def _scaled(self, name, evidence):
        g, n = self.wrong[name], self.right[name]
        parts = [rate * self.theta[name] for rate in {0.0, evidence.get("lambda_l2", 0.0)}]  # biases may have none
        left = [np.linalg.norm(g - part - evidence["factor"] * (n - part)) for part in parts]
        return min(left) < 1e-3 * np.linalg.norm(g)

    def _inside(self, finding):
        """Check that nothing is wrong outside of the part, and how much is inside."""
        evidence, off = finding.evidence, self.off(finding.block)
        box = evidence.get("box") or [
            (evidence["index"], evidence["index"] + 1) if axis == evidence["axis"] else (0, length)
            for axis, length in enumerate(off.shape)
        ]
        part = tuple(slice(start, stop) for start, stop in box)
        assert off[part].any(), finding.message
        if "alone" in finding.message:
            assert off[part].sum() == off.sum(), finding.message
        if "factor" in evidence:
            expected = evidence["factor"] * self.right[finding.block][part]
            np.testing.assert_allclose(self.wrong[finding.block][part], expected, rtol=1e-3, atol=1e-9)
        counted = re.search(r"wrong in (?:all )?([\d,]+)(?: of ([\d,]+))? entries(?! measured)", finding.message)
        if counted:
            assert int(counted[1]) == off[part].sum()
            assert int(counted[2] or counted[1]) == off[part].size

    def _order(self, finding):
        """Check which blocks are called wrong, and which right."""
        wrong, right = re.match(ORDER, finding.message).groups()
        for name in re.split(r", | and ", wrong):
            assert self.off(name).any(), finding.message
        for name in re.split(r", | and ", right) if right else ():
            assert not self.off(name).any(), finding.message


@pytest.mark.parametrize("mode", ["full", "screen"])
@pytest.mark.parametrize("net", NETS, ids=["tanh", "relu"])
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.kind)
def test_the_catalogue(net, mutation, mode):
    for seed in range(1):
        mutated = mutation.apply(net, np.random.default_rng(seed))
        if mutated is None or mutation.kind == "float32":  # whose error is below what `Truth.off` calls wrong
            continue
        report = fastcheck.check(net.loss, mutated.problem.gradient, net.params, args=net.args, mode=mode)
        assert report.verdict.refuted
        told = [finding for finding in report.findings if finding.kind != "kinks"]
        assert not re.search(NEVER, " ".join(f.message for f in told)), told
        assert not re.search(NEVER, str(report).splitlines()[0])
        truth = Truth(net.claimed(), mutated.problem.gradient, net.params)
        for finding in told:
            truth.agrees(finding)


@pytest.mark.parametrize("mode", ["full", "screen"])
def test_a_row_off_by_a_factor_and_one_entry_elsewhere(mode):
    loss, gradient, params = smooth(40, 30)

    def change(tree):
        tree["W"][17] *= 2
        tree["W"][3, 5] += 0.05

    wrong = planted(gradient, params, change)
    report = fastcheck.check(loss, wrong, params, mode=mode)
    told = {finding.kind: finding for finding in report.findings}
    if mode == "screen":
        assert told["slice"].evidence["index"] == 17
        assert told["slice"].evidence["factor"] == pytest.approx(2, rel=1e-4)
        assert told["coordinate"].evidence["places"] == [("W", (3, 5))]
    assert ("W", (3, 5)) in {(c.block, c.index) for c in report.wrong}
    assert not re.search(NEVER, str(report))


@pytest.mark.parametrize("seed", range(3))
def test_rows_of_which_some_are_right_are_not_called_wrong_throughout(seed):
    loss, gradient, params = smooth(80, 30)
    rows = np.random.default_rng(seed).choice(56, 45, replace=False)
    wrong = planted(gradient, params, lambda tree: tree["W"].__setitem__(rows, tree["W"][rows][:, ::-1]))
    for mode in ("full", "screen"):
        report = fastcheck.check(loss, wrong, params, mode=mode)
        assert report.verdict.refuted
        assert not re.search("throughout|All of|rows 0 to", str(report))


def test_a_factor_close_to_one_is_not_shown_as_one():
    loss, gradient, params = smooth()
    report = fastcheck.check(loss, planted(gradient, params, lambda t: t["W"].__imul__(1 + 1e-5)), params)
    assert "(1 + 1.0e-05) × the measured one" in report.findings[0].message
    assert "×(1 + 1.0e-05) of the measured gradient" in str(report).splitlines()[0]
