"""check() from end to end: the published figures, the grades at their limits, and what a report promises."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import fastcheck
from fastcheck import Verdict, examples
from fastcheck.parameters import Parameters
from tests.naive import central_differences, textbook_ratio


def check(problem, gradient=None, **options):
    return fastcheck.check(
        problem.loss, problem.gradient if gradient is None else gradient, problem.params, args=problem.args, **options
    )


def test_one_dimensional_exercise():
    report = fastcheck.check(lambda theta, x: theta * x, lambda theta, x: x, 4.0, args=(2.0,), step=1e-7)
    assert report.difference == 2.919335883291695e-10
    assert report.verdict is Verdict.CORRECT
    assert report.coverage == 1


def test_course_net_with_its_two_bugs():
    report = check(examples.course_net(bugs=True), step=1e-7)
    assert report.difference == pytest.approx(0.3134753, abs=5e-8)
    ratios = {name: block.difference for name, block in report.blocks.items()}
    assert ratios.pop("W2") == pytest.approx(0.5, abs=5e-7)
    assert ratios.pop("b1") == pytest.approx(1 / 3, abs=5e-7)
    assert len(ratios) == 4
    assert max(ratios.values()) < 1e-6
    assert report.verdict is Verdict.WRONG
    assert {name for name, block in report.blocks.items() if not block.verdict.passed} == {"W2", "b1"}
    assert {c.block for c in report.wrong} == {"W2", "b1"}


def test_course_net_with_its_two_bugs_and_the_chosen_step():
    report = check(examples.course_net(bugs=True))
    assert {name for name, block in report.blocks.items() if block.verdict is Verdict.WRONG} == {"W2", "b1"}
    assert {c.block for c in report.wrong} == {"W2", "b1"}
    factor = {"W2": 3.0, "b1": 2.0}
    for c in report.wrong:
        assert c.analytic / c.numerical == pytest.approx(factor[c.block], rel=1e-5)


def test_course_net_correct_passes_where_a_fixed_threshold_fails_it():
    report = check(examples.course_net(), step=1e-7)
    assert report.difference == pytest.approx(1.19e-7, rel=0.02)
    assert report.difference > 1e-7
    assert report.verdict is Verdict.CORRECT
    assert all(block.verdict is Verdict.CORRECT for block in report.blocks.values())


def test_course_net_correct_with_the_chosen_step():
    report = check(examples.course_net())
    assert report.difference < 1e-8
    assert report.verdict is Verdict.CORRECT
    assert report.wrong == ()


@pytest.mark.parametrize(
    ("loss", "at", "options", "said"),
    [
        (lambda x: x**2 + 3 * x, 2.0, {}, "7.0000"),
        (lambda x: x**3, 1.0, {"step": 0.01}, "3.0001"),
        (lambda x: x**2, 3.0, {"step": 0.01}, "6.0000"),
        (lambda x: x**2, 3.0, {"step": 0.01, "scheme": "forward"}, "6.0100"),
    ],
)
def test_worked_exercises(loss, at, options, said):
    assert f"{fastcheck.numerical_gradient(loss, at, **options):.4f}" == said


# A gradient that is n (1 + d) / (1 - d) has |g - n| / (|g| + |n|) = d exactly.
ALLOWED = {"below": 1 - 1e-4, "above": 1 + 1e-4}


@pytest.mark.parametrize(
    ("limit", "side", "verdict"),
    [
        (1e-7, "below", Verdict.CORRECT),
        (1e-7, "above", Verdict.SUSPICIOUS),  # a smooth loss has no excuse
        (1e-4, "below", Verdict.SUSPICIOUS),
        (1e-4, "above", Verdict.SUSPICIOUS),
        (1e-2, "below", Verdict.SUSPICIOUS),
        (1e-2, "above", Verdict.WRONG),
    ],
)
def test_grades_at_the_textbooks_limits(limit, side, verdict):
    # J = theta^2 / 2 has no truncation at any step; with a long one, rounding is far below the 1e-11 between the sides.
    d = limit * ALLOWED[side]
    truth = np.array([1.0, -2.0, 3.0])
    report = fastcheck.check(lambda t: 0.5 * float(t @ t), truth * (1 + d) / (1 - d), truth, step=0.5)
    assert report.difference == pytest.approx(d, rel=1e-6)
    assert report.verdict is verdict, report
    assert report.passed is verdict.passed


@pytest.mark.parametrize(
    ("d", "verdict"),
    [
        (0.0, Verdict.CORRECT),
        (1e-5, Verdict.ACCEPTABLE),
        (0.99e-4, Verdict.ACCEPTABLE),
        (1.01e-4, Verdict.SUSPICIOUS),
        (0.99e-2, Verdict.SUSPICIOUS),
        (1.01e-2, Verdict.WRONG),
    ],
)
def test_a_kink_within_the_step_excuses_its_own_coordinate_only(d, verdict):
    # J is |t0| + t1: the first step crosses the kink at 0, a tenth of it away.
    def loss(t):
        return float(abs(t[0]) + t[1])

    at, off = np.array([1e-4, 1.0]), (1 + d) / (1 - d)
    report = fastcheck.check(loss, np.array([off, 1.0]), at, step=1e-3)
    assert report.blocks["theta"].kinks == 1
    assert report.verdict is verdict, report
    smooth = fastcheck.check(loss, np.array([1.0, off]), at, step=1e-3)
    assert smooth.verdict is (Verdict.SUSPICIOUS if verdict is Verdict.ACCEPTABLE else verdict), smooth


@pytest.mark.parametrize("g", [-1.0, -0.3, 0.0, 1.0])
def test_a_subgradient_is_accepted(g):
    report = fastcheck.check(lambda t: float(np.abs(t).sum()), np.array([g, 1.0]), np.array([0.0, 1.0]))
    assert report.passed, report


@pytest.mark.parametrize("g", [-1.1, 1.5])
def test_what_is_no_subgradient_is_wrong(g):
    report = fastcheck.check(lambda t: float(np.abs(t).sum()), np.array([g, 1.0]), np.array([0.0, 1.0]))
    assert report.verdict is Verdict.WRONG
    assert [c.name for c in report.wrong] == ["theta[0]"]


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_weights_that_an_l1_term_holds_at_zero(factor, rng):
    X, y, w = rng.normal(size=(50, 8)), rng.normal(size=50), rng.normal(size=8)
    w[[1, 4]] = 0

    def loss(w):
        return float(0.5 * np.mean((X @ w - y) ** 2) + 0.1 * np.abs(w).sum())

    g = X.T @ (X @ w - y) / 50 + 0.1 * np.sign(w)
    g[3] *= factor
    report = fastcheck.check(loss, g, w)
    assert [c.name for c in report.wrong] == ([] if factor == 1 else ["theta[3]"])
    assert report.passed is (factor == 1)


def test_relu_of_a_sample_of_zeros_with_a_bias_of_zero(rng):
    X, y = rng.normal(size=(50, 8)), rng.normal(size=50)
    X[3] = 0
    params = {"W": rng.normal(size=(8, 6)), "b": np.zeros(6), "v": rng.normal(size=6)}

    def loss(p):
        return float(0.5 * np.mean((np.maximum(X @ p["W"] + p["b"], 0) @ p["v"] - y) ** 2))

    def gradient(p):
        Z = X @ p["W"] + p["b"]
        A = np.maximum(Z, 0)
        r = (A @ p["v"] - y) / 50
        dZ = np.outer(r, p["v"]) * (Z > 0)
        return {"W": X.T @ dZ, "b": dZ.sum(axis=0), "v": A.T @ r}

    report = fastcheck.check(loss, gradient, params)
    assert all(block.verdict.passed for block in report.blocks.values()), report


@pytest.mark.parametrize("factor", [1.0, 1.5])
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_units_of_the_loss_do_not_matter(scale, factor):
    at = np.ones(5)
    report = fastcheck.check(lambda t: scale * float(np.sum(np.sin(t))), factor * scale * np.cos(at), at)
    assert report.verdict is (Verdict.CORRECT if factor == 1 else Verdict.WRONG)


@pytest.mark.parametrize("scale", [1e-170, 1e-60])
def test_units_too_large_are_no_wrong_verdict(scale):
    at = np.ones(5)
    for factor in (1, 1.5):
        report = fastcheck.check(lambda t: scale * float(np.sum(np.sin(t))), factor * scale * np.cos(at), at)
        assert report.verdict is Verdict.INCONCLUSIVE or report.passed is (factor == 1)


@pytest.mark.parametrize("scale", [1e60, 1e170])
@pytest.mark.parametrize("mode", ["full", "screen"])
def test_units_too_small_are_refused_with_a_remedy(scale, mode):
    at = np.ones(5)
    with pytest.raises(fastcheck.LossError, match="Multiply both the loss and its gradient"):
        fastcheck.check(lambda t: scale * float(np.sum(np.sin(t))), scale * np.cos(at), at, mode=mode)
    with pytest.raises(fastcheck.LossError, match="gradient="):
        fastcheck.check(lambda t: float(np.sum(np.sin(t))), scale * np.cos(at), at, mode=mode)


@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1e6, 1e20])
def test_units_of_the_parameters_do_not_matter(scale):
    at = scale * np.linspace(0.5, 1, 5)
    for factor, verdict in ((1.0, Verdict.CORRECT), (1.5, Verdict.WRONG)):
        report = fastcheck.check(lambda t: float(np.sum(np.sin(t / scale))), factor * np.cos(at / scale) / scale, at)
        assert report.verdict is verdict


def test_the_tolerance_is_the_users():
    truth = np.array([1.0, -2.0])
    g = truth * (1 + 2e-6)
    strict, mild = (fastcheck.check(lambda t: 0.5 * float(t @ t), g, truth, tolerance=t) for t in (1e-7, 1e-5))
    assert strict.verdict is Verdict.SUSPICIOUS
    assert mild.verdict is Verdict.CORRECT
    assert "below_tolerance" in [finding.kind for finding in mild.findings]


def test_measured_gradient_is_that_of_the_slow_twin():
    net = examples.course_net()
    report = check(net)
    layout = Parameters.of(net.params)
    twin = central_differences(net.loss, net.params, net.args)
    for block in layout.blocks:
        g, n = twin[block.slice], report.numerical[block.name].ravel()
        apart = report.blocks[block.name].uncertainty * (np.linalg.norm(g) + np.linalg.norm(n))
        assert np.linalg.norm(g - n) <= apart + 1e-9  # 1e-9: the twin's own noise and truncation
    assert list(report.numerical) == list(net.params)


def test_ratio_with_a_given_step_is_that_of_the_slow_twin():
    net = examples.course_net(bugs=True)
    layout = Parameters.of(net.params)
    g = np.concatenate([net.claimed()[f"d{b.name}"].ravel() for b in layout.blocks])
    n = central_differences(net.loss, net.params, net.args, 2.0**-20)  # a power of two: theta + h has few roundings
    assert check(net, step=2.0**-20).difference == pytest.approx(textbook_ratio(g, n), rel=1e-9)


def test_same_seed_same_report():
    net = examples.course_net(bugs=True)
    first, second = (dataclasses.replace(check(net, seed=3), seconds=0.0) for _ in range(2))
    assert first == second
    assert str(first) == str(second)


def test_report_tells_how_to_repeat_it():
    report = check(examples.course_net(), step=1e-6, tolerance=1e-5, seed=7)
    assert report.settings["step"] == 1e-6
    assert report.settings["tolerance"] == 1e-5
    assert report.settings["seed"] == 7
    assert report.settings["version"] == fastcheck.__version__
    assert report.evaluations > 2 * 47
    assert report.seconds > 0


def test_evaluations_are_counted(regression):
    calls = 0

    def loss(p, X, y):
        nonlocal calls
        calls += 1
        return regression.loss(p, X, y)

    report = fastcheck.check(loss, regression.gradient, regression.params, args=regression.args)
    assert report.evaluations == calls


def test_selected_blocks_only():
    report = check(examples.course_net(bugs=True), blocks=["W1", "b3"])
    assert report.verdict is Verdict.CORRECT
    assert {name for name, block in report.blocks.items() if block.checked} == {"W1", "b3"}
    assert report.blocks["W2"].verdict is Verdict.INCONCLUSIVE
    assert report.coverage == 21 / 47
    assert report.numerical is None
    assert check(examples.course_net(bugs=True), blocks="*2").verdict is Verdict.WRONG


def test_a_block_without_influence_and_without_gradient_is_right(regression):
    params = {**regression.params, "dead": np.ones(4)}

    def gradient(p, X, y):
        return {**regression.gradient(p, X, y), "ddead": np.zeros(4)}

    report = fastcheck.check(regression.loss, gradient, params, args=regression.args)
    assert report.verdict is Verdict.CORRECT
    assert report.blocks["dead"].verdict is Verdict.CORRECT
    assert report.blocks["dead"].detectable == np.inf
    assert [f.block for f in report.findings if f.kind == "constant"] == ["dead"]


def test_a_block_below_the_noise_is_unchecked_and_fails_unless_that_is_allowed(regression):
    params = {**regression.params, "faint": np.ones(4)}

    def loss(p, X, y):
        return regression.loss(p, X, y) + 1e-19 * float(np.sum(p["faint"] ** 2))

    def gradient(p, X, y):
        return {**regression.gradient(p, X, y), "faint": -2e-19 * p["faint"]}  # the sign is wrong

    report = fastcheck.check(loss, gradient, params, args=regression.args)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert [f.block for f in report.findings if f.kind == "unchecked"] == ["faint"]
    allowed = fastcheck.check(loss, gradient, params, args=regression.args, unchecked="allow")
    assert allowed.verdict is Verdict.CORRECT
    assert allowed.blocks["faint"].verdict is Verdict.INCONCLUSIVE
    assert "unchecked: faint" in str(allowed).replace("\n", " ")


def test_all_zero_gradient_of_a_constant_is_inconclusive():
    report = fastcheck.check(lambda t: 1.0, np.zeros(3), np.ones(3))
    assert report.verdict is Verdict.INCONCLUSIVE


def test_all_zero_gradient_of_a_loss_that_moves_is_wrong():
    report = fastcheck.check(lambda t: float(t @ t), np.zeros(3), np.ones(3))
    assert report.verdict is Verdict.WRONG
    assert len(report.wrong) == 3


def test_a_large_offset_hides_small_errors_and_is_said_to():
    # Noise 1e12 * 2^-53 over a gradient of about 1: nothing below about 1e-4 can be seen.
    report = fastcheck.check(lambda t: 1e12 + float(np.sum(np.sin(t))), np.cos(np.ones(2)), np.ones(2))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert any(f.kind == "unchecked" for f in report.findings)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_wrong_coordinates_are_named_in_the_users_own_layout(order, dtype, rng):
    A = rng.normal(size=(4, 3))
    W = np.asarray(rng.normal(size=(4, 3)), dtype=dtype, order=order)
    g = A * np.cos(W.astype(float))
    g[2, 1] *= 1.5
    report = fastcheck.check(lambda p: float(np.sum(A * np.sin(p["W"]))), {"dW": g}, {"W": W})
    assert [(c.block, c.index) for c in report.wrong] == [("W", (2, 1))]
    assert report.wrong[0].name == "W[2, 1]"
    assert report.wrong[0].analytic / report.wrong[0].numerical == pytest.approx(1.5)


def test_users_arrays_are_never_changed(regression):
    params = {k: v.copy() for k, v in regression.params.items()}
    for array in (*params.values(), *regression.args):
        array.flags.writeable = False
    report = fastcheck.check(regression.loss, regression.gradient, params, args=regression.args)
    assert report.verdict is Verdict.CORRECT
    for name, array in params.items():
        np.testing.assert_array_equal(array, regression.params[name])


def test_interrupted_run_still_reports():
    calls = 0

    def loss(t):
        nonlocal calls
        calls += 1
        if calls == 120:
            raise KeyboardInterrupt
        return float(np.sum(np.sin(t)))

    at = np.linspace(0.1, 1, 200)
    report = fastcheck.check(loss, np.cos(at), at)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert 0 < report.coverage < 1
    assert report.findings[0].kind == "stopped"


def test_budget_is_kept_and_told(monkeypatch):
    # A clock of its own: no test depends on the speed of the machine.
    now = iter(np.arange(0.0, 1e6).tolist())
    monkeypatch.setattr("fastcheck.run.Run.seconds", property(lambda self: next(now)))
    at = np.linspace(0.1, 1, 500)
    report = fastcheck.check(lambda t: float(np.sum(np.sin(t))), np.cos(at), at, mode="full", budget=35)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert 0 < report.coverage < 1
    assert "after its budget of 35 s" in report.findings[0].message


def test_assert_gradient():
    right, wrong = examples.course_net(), examples.course_net(bugs=True)
    assert fastcheck.assert_gradient(right.loss, right.gradient, right.params, args=right.args).passed
    with pytest.raises(fastcheck.GradientError, match=r"WRONG: W2 ") as caught:
        fastcheck.assert_gradient(wrong.loss, wrong.gradient, wrong.params, args=wrong.args)
    assert isinstance(caught.value, AssertionError)
    assert caught.value.report.verdict is Verdict.WRONG
    assert "b1[" in str(caught.value)
    with pytest.raises(fastcheck.GradientError):
        check(wrong, throw=True)
    with pytest.raises(fastcheck.InputError, match="throw=False"):
        fastcheck.assert_gradient(right.loss, right.gradient, right.params, args=right.args, throw=False)


def test_numerical_gradient_is_a_tree_like_params(regression):
    numerical = fastcheck.numerical_gradient(regression.loss, regression.params, args=regression.args)
    claimed = regression.claimed()
    np.testing.assert_allclose(numerical["w"], claimed["dw"], rtol=1e-8)
    np.testing.assert_allclose(numerical["b"], claimed["db"], rtol=1e-8)


def test_whole_zoo_is_correct_and_its_numerical_gradients_are_close():
    for net in (examples.course_net(), examples.linear_regression(), examples.logistic_regression()):
        report = check(net)
        assert report.passed, report


def test_what_kinks_at_theta_hide_is_not_claimed_to_be_detectable():
    # Residuals of exactly zero: every subgradient passes, so no error within the slopes could have been seen.
    rng = np.random.default_rng(21)
    X, y = rng.integers(-3, 4, size=(300, 10)).astype(float), rng.integers(0, 5, 300).astype(float)
    theta = np.ones(10)
    right = X.T @ np.sign(X @ theta - y) / len(y)

    def loss(t):
        return float(np.abs(X @ t - y).mean())

    for mode, off in (("full", 0.05), ("screen", 2e-6)):
        report = fastcheck.check(loss, (1 + off) * right, theta, mode=mode)
        assert not report.passed or report.blocks["theta"].detectable > off


@pytest.mark.parametrize("step", [1e-5, 1e-4, 1e-3, 0.01, 1.0])
def test_a_step_too_long_for_some_parameters_refutes_nothing(step):
    # The textbook's epsilon, and parameters in SI units: a capacity of 1e-8 F beside a resistance of 1e6 Ohm.
    scale = 10.0 ** np.linspace(-8, 6, 15)
    theta = scale * np.random.default_rng(1).uniform(-3, 3, 15)

    def loss(t):
        return float(np.sum(np.tanh(t / scale) + np.cos(2 * t / scale)))

    def gradient(t):
        return (1 - np.tanh(t / scale) ** 2 - 2 * np.sin(2 * t / scale)) / scale

    assert fastcheck.check(loss, gradient, theta, mode="full", step=step).verdict is fastcheck.Verdict.CORRECT
    wrong = gradient(theta)
    wrong[0] *= 1.1
    assert not fastcheck.check(loss, wrong, theta, mode="full", step=step).passed


def test_a_step_longer_than_an_oscillation_refutes_nothing():
    theta = np.random.default_rng(2).normal(size=10)
    for step in (1e-3, 0.01, 0.1):
        report = fastcheck.check(
            lambda t: float(np.sin(1e4 * t).sum()), 1e4 * np.cos(1e4 * theta), theta, mode="full", step=step
        )
        assert not report.verdict.refuted


@pytest.mark.parametrize("mode", ["full", "screen", "sample"])
@pytest.mark.parametrize("at_zero", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_backprop_of_a_relu_net_that_begins_at_zero_is_not_called_wrong(seed, at_zero, mode):
    """All samples are at their kinks together: backprop's value need not lie between the one-sided slopes."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(6, 50)), rng.normal(size=(1, 50))
    params = {"W1": np.zeros((8, 6)), "b1": np.zeros((8, 1)), "W2": rng.normal(size=(1, 8))}

    def loss(p):
        return float(0.5 * np.mean((p["W2"] @ np.maximum(p["W1"] @ X + p["b1"], 0) - y) ** 2))

    def gradient(p):
        Z = p["W1"] @ X + p["b1"]
        A = np.maximum(Z, 0)
        r = (p["W2"] @ A - y) / 50
        dZ = (p["W2"].T @ r) * np.heaviside(Z, at_zero)
        return {"W1": dZ @ X.T, "b1": dZ.sum(axis=1, keepdims=True), "W2": r @ A.T}

    report = fastcheck.check(loss, gradient(params), params, mode=mode)  # an array is known at theta only
    assert report.verdict is Verdict.INCONCLUSIVE
    assert not report.wrong
    if mode == "full":
        assert "coinciding_kinks" in [finding.kind for finding in report.findings]
    report = fastcheck.check(loss, gradient, params, mode=mode)
    assert report.verdict is Verdict.CORRECT
    assert "elsewhere" in [finding.kind for finding in report.findings]
    report = fastcheck.check(loss, lambda p: gradient(p) | {"W1": -7 * gradient(p)["W1"]}, params, mode=mode)
    assert report.verdict is Verdict.WRONG
    assert report.blocks["W1"].verdict is Verdict.WRONG


def test_far_outside_of_both_slopes_is_wrong_at_a_kink_too():
    at = np.zeros(3)
    report = fastcheck.check(lambda t: float(np.abs(t).sum()), np.full(3, 5.0), at)
    assert report.verdict is Verdict.WRONG


@pytest.mark.parametrize("seed", range(4))
def test_kinks_near_theta_do_not_spoil_a_numerical_gradient(seed):
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(200, 6)), rng.normal(size=(200, 1))
    params = {"W1": rng.normal(size=(6, 30)), "b1": rng.normal(size=30), "W2": rng.normal(size=(30, 1))}

    def loss(p):
        return float(0.5 * np.mean((np.maximum(X @ p["W1"] + p["b1"], 0) @ p["W2"] - y) ** 2))

    def gradient(p):
        A = np.maximum(X @ p["W1"] + p["b1"], 0)
        r = (A @ p["W2"] - y) / 200
        dZ = (r @ p["W2"].T) * (A > 0)
        return {"W1": X.T @ dZ, "b1": dZ.sum(axis=0), "W2": A.T @ r}

    found, exact = fastcheck.numerical_gradient(loss, params, backend="serial"), gradient(params)
    for name, value in exact.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5 * np.abs(value).max())


def test_a_numerical_gradient_with_a_step_of_ones_own_is_the_plain_quotient():
    at = np.array([1e-6, 0.5])
    found = fastcheck.numerical_gradient(lambda t: float(np.abs(t).sum()), at, step=1e-5)
    assert found[0] == pytest.approx(0.1, rel=1e-6)
    assert fastcheck.numerical_gradient(lambda t: float(np.abs(t).sum()), at)[0] == pytest.approx(1, rel=1e-6)
