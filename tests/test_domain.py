"""bounds=(low, high): no evaluation leaves the box, and a derivative at a bound is as exact as elsewhere."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import fastcheck
from fastcheck.errors import InputError
from fastcheck.judge.verdict import Verdict


class Guard:
    """A function that counts how often it was called outside."""

    def __init__(self, function, low=0.0, high=1.0):
        self.function, self.low, self.high, self.outside, self.calls = function, low, high, 0, 0

    def __call__(self, p, *args):
        self.calls += 1
        self.outside += bool(np.any(np.real(p) < self.low) or np.any(np.real(p) > self.high))
        return self.function(p, *args)


def problems(n, rng):
    c, A = rng.normal(size=n), rng.normal(size=(5, n)) / n
    return {
        "sum of roots": (lambda p: np.sqrt(p + 0.1) @ c, lambda p: c / 2 / np.sqrt(p + 0.1)),
        "entropy": (lambda p: ((p + 0.01) * np.log(p + 0.01)) @ c, lambda p: c * (np.log(p + 0.01) + 1)),
        "gaussian": (
            lambda p: np.exp(-((p - 0.5) ** 2).mean()),
            lambda p: -2 * (p - 0.5) / n * np.exp(-((p - 0.5) ** 2).mean()),
        ),
        "quadratic": (lambda p: ((A @ p - 1) ** 2).sum(), lambda p: 2 * A.T @ (A @ p - 1)),
        "linear": (lambda p: c @ p, lambda p: c + 0 * p),
        "power": (lambda p: (p**3 + p) @ c, lambda p: c * (3 * p**2 + 1)),
        "sine": (lambda p: np.sin(3 * p).sum() ** 2, lambda p: 6 * np.sin(3 * p).sum() * np.cos(3 * p)),
        "odds": (lambda p: -np.log1p(-p / 2) @ c, lambda p: c / (2 - p)),
        "logistic": (
            lambda p: np.logaddexp(0, A @ p).sum(),
            lambda p: A.T @ (1 / (1 + np.exp(-(A @ p)))),
        ),
        "norm": (lambda p: np.sqrt(1 + p @ p), lambda p: p / np.sqrt(1 + p @ p)),
        "product": (lambda p: np.exp(np.log1p(p).sum() / n), lambda p: np.exp(np.log1p(p).sum() / n) / n / (1 + p)),
    }


@pytest.mark.parametrize("name", problems(2, np.random.default_rng(0)))
@pytest.mark.parametrize("mode", ["full", "screen", "sample"])
@pytest.mark.parametrize("n", [3, 60])
def test_right_and_wrong_gradients_at_bounds(name, mode, n):
    rng = np.random.default_rng(n)
    loss, gradient = problems(n, rng)[name]
    x = rng.uniform(0, 1, n)
    x[rng.random(n) < 0.4] = 0.0
    x[rng.random(n) < 0.4] = 1.0
    x[:3] = 0.0, 1 - 1e-9, 0.6  # at a bound, and nearer to one than any step
    guard = Guard(loss)
    report = fastcheck.check(guard, gradient, x, bounds=(0, 1), mode=mode)
    assert report.verdict is Verdict.CORRECT, str(report)
    assert guard.outside == 0
    assert guard.calls >= report.evaluations
    for place in (0, 1):  # planted at the bound, and beside it

        def wrong(p, place=place):
            g = gradient(p)
            g[place] += 0.05 * np.linalg.norm(g)
            return g

        report = fastcheck.check(guard, wrong, x, bounds=(0, 1), mode=mode)
        if mode != "sample" or report.coverage == 1:
            assert report.verdict.refuted, str(report)
            if n > 3 or mode != "screen":  # a screen of three may end with the block
                assert [c.name for c in report.wrong] == [f"theta[{place}]"]
    assert guard.outside == 0


@pytest.mark.parametrize("scheme", ["central", "forward", "richardson", "complex"])
@pytest.mark.parametrize("at", [0.0, 1.0])
def test_every_scheme(scheme, at):
    guard = Guard(lambda p: np.exp(p).sum() * (1 + p[0]))
    x = np.array([at, 0.5, at])

    def gradient(p):
        return np.exp(p) * (1 + p[0]) + np.array([np.exp(p).sum(), 0, 0])

    report = fastcheck.check(guard, gradient, x, bounds=(0, 1), scheme=scheme)
    assert report.passed, str(report)
    assert fastcheck.check(guard, lambda p: -gradient(p), x, bounds=(0, 1), scheme=scheme).verdict is Verdict.WRONG
    assert guard.outside == 0


def test_outside_the_loss_may_raise():
    def loss(p):
        if (p < 0).any():
            raise ValueError("negative")
        return float((p**2 + p).sum())

    x = np.zeros(4)
    assert fastcheck.check(loss, lambda p: 2 * p + 1, x, bounds=(0, None)).verdict is Verdict.CORRECT
    assert fastcheck.check(loss, lambda p: 2 * p + 2, x, bounds=(0, None)).verdict is Verdict.WRONG
    assert not fastcheck.check(loss, lambda p: 2 * p + 1, x).passed
    np.testing.assert_allclose(fastcheck.numerical_gradient(loss, x, bounds=(0, None)), 1, rtol=1e-7)


def test_a_kink_at_the_bound_is_not_seen_from_inside():
    """|p| is smooth where p >= 0 is all there is."""
    x = np.array([0.0, 0.3])
    assert fastcheck.check(lambda p: np.abs(p).sum(), lambda p: np.ones(2), x, bounds=(0, None)).passed
    assert not fastcheck.check(lambda p: np.abs(p).sum(), lambda p: -np.ones(2), x, bounds=(0, None)).passed


def test_trees_of_bounds_and_scipys():
    params = {"rate": np.array([0.0, 2.0]), "shift": np.array(1.0), "free": np.zeros((2, 2))}

    def loss(p):
        assert (p["rate"] >= 0).all()
        assert p["shift"] <= 1
        return float((p["rate"] ** 2 + p["rate"]).sum() * (1 + p["shift"]) + (p["free"] - 1).sum() ** 2)

    def gradient(p):
        return {
            "rate": (2 * p["rate"] + 1) * (1 + p["shift"]),
            "shift": (p["rate"] ** 2 + p["rate"]).sum(),
            "free": 2 * (p["free"] - 1).sum() * np.ones((2, 2)),
        }

    for bounds in (
        ({"rate": 0}, {"shift": 1}),
        [{"rate": np.zeros(2), "free": None}, {"shift": np.array(1.0), "rate": [np.inf, 5]}],
    ):
        assert fastcheck.check(loss, gradient, params, bounds=bounds, mode="full").verdict is Verdict.CORRECT
    scipys = SimpleNamespace(lb=[0, -np.inf], ub=np.inf)
    report = fastcheck.check(lambda p: p @ p + p[0], lambda p: 2 * p + [1, 0], np.array([0.0, -3.0]), bounds=scipys)
    assert report.verdict is Verdict.CORRECT
    assert report.settings["call"] == "check(loss, gradient, params, bounds=bounds"


def test_the_loss_is_given_arrays_of_its_own_shapes_and_dtypes():
    params = {"a": np.array(0.0), "b": np.zeros((2, 1), dtype=np.float32), "c": [np.ones(1)]}
    seen = set()

    def loss(p):
        seen.add(tuple((type(x), x.shape) for x in (p["a"], p["b"], p["c"][0])))
        return float(p["a"] ** 2 + p["a"] + (p["b"] ** 2 + p["b"]).sum() + p["c"][0].sum())

    def gradient(p):
        return {"a": 2 * p["a"] + 1, "b": 2 * p["b"] + 1, "c": [np.ones(1)]}

    assert fastcheck.check(loss, gradient, params, bounds=(0, None), mode="full").verdict is Verdict.CORRECT
    assert seen == {((np.ndarray, ()), (np.ndarray, (2, 1)), (np.ndarray, (1,)))}


def test_where_no_bound_is_near_the_numbers_are_the_same():
    x = np.array([0.4, 0.6, 0.5])
    options = {"mode": "full", "seed": 3}
    with_, without = (
        fastcheck.check(lambda p: np.exp(p).sum(), np.exp, x, **options, **more) for more in ({"bounds": (0, 1)}, {})
    )
    np.testing.assert_array_equal(with_.numerical, without.numerical)


@pytest.mark.parametrize("seed", range(12))
def test_values_beyond_a_bound_have_more_noise_and_accuse_nobody(seed):
    """Three rounded values add up; seed 6 was called wrong."""
    rng = np.random.default_rng(seed)
    n = int(rng.choice([4, 20]))
    A, c, x = rng.normal(size=(6, n)) / np.sqrt(n), rng.normal(size=n), rng.uniform(0, 1, n)
    x[rng.random(n) < 0.4] = 0.0
    for digits in (6, 10):
        for mode in ("full", "screen"):
            report = fastcheck.check(
                lambda p, digits=digits: round(float(np.tanh(A @ p).sum() + c @ p**2 + 1), digits),
                lambda p: A.T @ (1 - np.tanh(A @ p) ** 2) + 2 * c * p,
                x,
                bounds=(0, 1),
                mode=mode,
            )
            assert not report.verdict.refuted, str(report)


def test_a_box_narrower_than_the_steps_is_said():
    report = fastcheck.check(lambda p: np.exp(p).sum(), np.exp, np.zeros(3), bounds=(0, 1e-12), mode="full")
    assert report.verdict is Verdict.INCONCLUSIVE
    assert any("nearer to each other than the steps" in finding.message for finding in report.findings)


def test_processes_and_other_forms():
    x = np.linspace(0, 1, 30)
    one, two = (
        fastcheck.check(np.sum, lambda p: np.ones(30), x, bounds=(0, 1), mode="full", workers=n, backend="processes")
        for n in (1, 2)
    )
    assert one.verdict is Verdict.CORRECT
    np.testing.assert_array_equal(one.numerical, two.numerical)

    def both(p):
        assert (p >= 0).all()
        return float(p @ p + p.sum()), 2 * p + 1

    assert fastcheck.check(both, True, x, bounds=(0, 1)).verdict is Verdict.CORRECT


@pytest.mark.parametrize("mode", ["full", "screen"])
def test_a_random_loss_draws_the_same_on_both_sides_of_a_bound(mode):
    draw = np.random.default_rng(0)
    x = np.array([0.0, 0.5, 0.0, 1.0])

    def loss(p):
        assert (p >= 0).all()
        return float(((p**2 + p) * (draw.random(4) < 0.7)).sum())

    def gradient(p):
        return (2 * p + 1) * (draw.random(4) < 0.7)

    report = fastcheck.check(loss, gradient, x, bounds=(0, 1), mode=mode)
    assert report.verdict is Verdict.CORRECT, str(report)
    assert "replayed" in [finding.kind for finding in report.findings]
    wrong = fastcheck.check(loss, lambda p: 1.1 * gradient(p), x, bounds=(0, 1), mode=mode)
    assert wrong.verdict is Verdict.WRONG


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (0, r"bounds=0 must be \(low, high\)"),
        ((0, 1, 2), r"must be \(low, high\)"),
        ([(0, 1), (0, 1), (0, 1)], r"must be \(low, high\)"),
        ((0.5, 1), r"params\[0\]=0.0 is outside its bounds 0.5, 1.0"),
        ((0, 0.5), r"params\[2\]=1.0 is outside"),
        ((0, [1, 0, 1]), r"bounds=0.0, 0.0 of params\[1\]: low must be below high"),
        ((1, 0), "low must be below high"),
        (([np.nan, 0, 0], 1), "has a NaN"),
        (([None, 0, 0], 1), "-inf or inf"),
        (("a", 1), "must be a number, or numbers of shape"),
        (([0, 0], 1), r"numbers of shape \(3,\)"),
        (({"W": 0}, 1), "must be a number"),
    ],
)
def test_bad_bounds(bounds, message):
    with pytest.raises(InputError, match=message):
        fastcheck.check(lambda p: p @ p, lambda p: 2 * p, np.array([0.0, 0.5, 1.0]), bounds=bounds)


def test_forms_without_bounds_are_refused():
    with pytest.raises(InputError, match=r"a fastcheck\.batched loss"):
        fastcheck.check(fastcheck.batched(lambda p: p.sum(-1)), lambda p: p, np.ones(3), bounds=(0, 1))
    with pytest.raises(InputError, match="is complex"):
        fastcheck.check(lambda p: abs(p[0]), lambda p: p, np.ones(1) * 1j, bounds=(0, 1))
    with pytest.raises(InputError, match="has 'V', and params has W"):
        fastcheck.check(lambda p: 0.0, lambda p: p, {"W": np.ones(2)}, bounds=({"V": 0}, None))


ENDS = {  # functions with a vertical tangent, or next to one, where they end: f(x, eps) and its derivative
    "root": (lambda x, e: np.sqrt(x + e), lambda x, e: 0.5 / np.sqrt(x + e)),
    "entropy": (lambda x, e: x * np.log(x + e), lambda x, e: np.log(x + e) + x / (x + e)),
}


@pytest.mark.parametrize("eps", [1e-8, 1e-12, 1e-14, 2.2e-16])
@pytest.mark.parametrize("name", ENDS)
def test_a_steep_end_at_a_bound_is_no_error(name, eps):
    """Zeros under sqrt(x + eps) or x log(x + eps): no step is short beside eps, so that nothing is said of them."""
    f, slope = ENDS[name]
    for seed in range(8):
        rng = np.random.default_rng(seed)
        x, c, w = rng.uniform(0.1, 1, 10), rng.normal(size=10), rng.uniform(0.1, 1, 10)
        x[:2] = 0.0

        def loss(x, c=c, w=w):
            return float(c @ x + np.sum(w * f(x, eps)))

        right = c + w * slope(x, eps)
        for mode in ("full", "screen"):
            report = fastcheck.check(loss, right, x, mode=mode, seed=seed, bounds=(0, None))
            assert not report.verdict.refuted, (mode, seed, report)
