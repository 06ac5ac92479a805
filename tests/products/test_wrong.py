"""Wrong products are found, and the finding says what is wrong and for which output."""

import numpy as np
import pytest

import fastcheck
from fastcheck import Verdict
from tests.products.functions import cases

CASES = {case.name: case for case in cases(0)}
REFUTED = (Verdict.WRONG, Verdict.SUSPICIOUS)


def kinds(report):
    return [finding.kind for finding in report.findings]


def ones(tree):
    if isinstance(tree, dict):
        return {key: ones(value) for key, value in tree.items()}
    if isinstance(tree, tuple):
        return tuple(map(ones, tree))
    return np.ones_like(tree)


@pytest.mark.parametrize("name", CASES)
def test_the_upstream_gradient_that_is_never_multiplied_in(name):
    case = CASES[name]
    report = fastcheck.check_vjp(case.function, lambda x, u: case.vjp(x, ones(u)), case.inputs)
    if name == "softmax":  # whose J^T 1 is zero: what is ignored leaves nothing
        assert report.verdict in REFUTED
        return
    assert report.verdict is Verdict.WRONG
    assert kinds(report)[0] == "vector_ignored"
    assert str(report).startswith("WRONG: vjp ignores the cotangent")


def test_it_is_found_for_a_loss_too_where_the_product_is_right():
    report = fastcheck.check_vjp(lambda x: x @ x, lambda x, u: 2 * x, np.ones(3))
    assert kinds(report)[0] == "vector_ignored"


def test_it_is_found_in_one_input_alone():
    case = CASES["dense"]
    report = fastcheck.check_vjp(
        case.function, lambda p, u: {**case.vjp(p, u), "W": case.vjp(p, np.ones_like(u))["W"]}, case.inputs
    )
    assert report.findings[0].evidence["blocks"] == ["W"]
    assert report.blocks["W"].verdict is Verdict.WRONG
    assert report.blocks["x"].verdict is Verdict.CORRECT


@pytest.mark.parametrize("name", CASES)
def test_a_tangent_that_is_ignored(name):
    case = CASES[name]
    fixed = case.jvp(case.inputs, case.inputs)
    report = fastcheck.check_jvp(case.function, lambda x, v: fixed, case.inputs)
    assert kinds(report)[0] == "vector_ignored"
    assert report.verdict is Verdict.WRONG


BUGS = {
    "twice": (lambda f: lambda x, u: f(x, u * u), "vector_degree"),
    "normalised": (lambda f: lambda x, u: f(x, u / np.linalg.norm(u)), "vector_degree"),
    "clipped": (lambda f: lambda x, u: f(x, np.clip(u, -1, 1)), "vector_degree"),
    "magnitude": (lambda f: lambda x, u: f(x, np.abs(u)), "vector_sign"),
    "largest": (lambda f: lambda x, u: f(x, np.where(np.abs(u) == np.abs(u).max(), u, 0)), "vector_nonlinear"),
    "summed": (lambda f: lambda x, u: f(x, np.full_like(u, u.sum())), "vector_summed"),
    "averaged": (lambda f: lambda x, u: f(x, np.full_like(u, u.mean())), "vector_summed"),
    "sign": (lambda f: lambda x, u: f(x, -u), "sign"),
    "factor": (lambda f: lambda x, u: f(x, 2 * u), "factor"),
}  # fmt: skip


@pytest.mark.parametrize("bug", BUGS)
def test_kinds_of_bugs_are_named(bug):
    spoil, kind = BUGS[bug]
    case = CASES["linear"]
    report = fastcheck.check_vjp(case.function, spoil(case.vjp), case.inputs)
    assert report.verdict is Verdict.WRONG
    assert kind in kinds(report), str(report)


def test_a_part_that_the_cotangent_does_not_multiply():
    case = CASES["dense"]
    report = fastcheck.check_vjp(
        case.function, lambda p, u: {k: v + 1e-3 * p[k] for k, v in case.vjp(p, u).items()}, case.inputs
    )
    assert kinds(report)[0] == "vector_offset"
    assert report.verdict is Verdict.WRONG


def test_a_transposed_matrix():
    rng = np.random.default_rng(5)
    A, x = rng.normal(size=(5, 5)), rng.normal(size=5)
    assert fastcheck.check_vjp(lambda x: A @ x, lambda x, u: A @ u, x).verdict is Verdict.WRONG
    assert fastcheck.check_jvp(lambda x: A @ x, lambda x, v: A.T @ v, x).verdict is Verdict.WRONG


def test_a_wrong_reduction_over_a_broadcast_axis():
    case = CASES["broadcast"]

    def averaged(p, u):
        x, b, s = case.vjp(p, u)
        return x, b / 3, s

    report = fastcheck.check_vjp(case.function, averaged, case.inputs)
    assert [name for name, block in report.blocks.items() if not block.verdict.passed] == ["1"]
    assert "factor" in kinds(report)
    with pytest.raises(fastcheck.InputError, match=r"vjp\['1'\] has shape \(3, 4\), but inputs\['1'\] has \(4,\)"):
        fastcheck.check_vjp(case.function, lambda p, u: (u * p[2], u * p[2], case.vjp(p, u)[2]), case.inputs)


@pytest.mark.parametrize(
    ("size", "place", "factor"), [(5, 3, 1.01), (8, 0, -1.0), (60, 41, 1.01), (3000, 1234, 1 + 1e-4)]
)
def test_a_wrong_output_is_located(size, place, factor):
    rng = np.random.default_rng(size)
    A, x = rng.normal(size=(size, 6)), rng.normal(size=6)
    weights = np.ones(size)
    weights[place] = factor

    def f(x):
        return np.tanh(A @ x)

    def vjp(x, u):
        return A.T @ (u * weights * (1 - f(x) ** 2))

    def jvp(x, v):
        return weights * (1 - f(x) ** 2) * (A @ v)

    for check, product in ((fastcheck.check_vjp, vjp), (fastcheck.check_jvp, jvp)):
        report = check(f, product, x)
        assert report.verdict in REFUTED
        (outputs,) = (finding for finding in report.findings if finding.kind == "outputs")
        assert outputs.evidence["outputs"] == [f"output[{place}]"]
        assert outputs.evidence["others_agree"]


def test_an_output_whose_cotangent_is_not_used():
    def f(x):
        return {"mean": x.mean(), "square": x**2}

    report = fastcheck.check_vjp(f, lambda x, u: 2 * x * u["square"], np.arange(1.0, 5.0))
    (outputs,) = (finding for finding in report.findings if finding.kind == "outputs")
    assert outputs.evidence["outputs"] == ["output mean"]
    assert "What it returns for output mean is zero" in outputs.message


def test_a_small_output_beside_a_large_one():
    case = CASES["several_outputs"]

    def vjp(x, u):
        return case.vjp(x, {**u, "small": 1.01 * u["small"]})

    report = fastcheck.check_vjp(case.function, vjp, case.inputs)
    assert report.verdict in REFUTED
    (outputs,) = (finding for finding in report.findings if finding.kind == "outputs")
    assert outputs.evidence["outputs"] == [f"output small[{k}]" for k in range(3)]


@pytest.mark.parametrize("place", [(0, 0), (7, 3), (11, 8)])
def test_a_wrong_entry_of_a_large_block_is_located_along_tangents(place):
    case = CASES["layer"]

    def jvp(p, v):
        W = v["W"].copy()
        W[place] *= 1.01
        return case.jvp(p, {**v, "W": W})

    report = fastcheck.check_jvp(case.function, jvp, case.inputs)
    assert [c.name for c in report.wrong] == [f"W[{place[0]}, {place[1]}]"]
    (wrong,) = report.wrong
    assert wrong.analytic == pytest.approx(1.01 * wrong.numerical, rel=1e-6)
    assert report.blocks["b"].verdict is Verdict.CORRECT
    assert report.blocks["W"].shape == (12, 9)
    full = fastcheck.check_jvp(case.function, jvp, case.inputs, mode="full")
    assert [c.name for c in full.wrong] == [f"W[{place[0]}, {place[1]}]"]


def test_hessian_bugs():
    rng = np.random.default_rng(6)
    A = rng.normal(size=(8, 8))
    S, x = A + A.T, rng.normal(size=8)
    one = S.copy()
    one[2, 5] *= 1.1
    report = fastcheck.check_hvp(lambda x: S @ x, lambda x, v: one @ v, x)
    assert report.verdict is Verdict.WRONG
    assert {"asymmetric", "outputs"} <= set(kinds(report))
    assert [c.name for c in report.wrong] == ["theta[5]"]
    # the product agrees with the gradient, which is that of no loss
    report = fastcheck.check_hvp(lambda x: A @ x, lambda x, v: A @ v, x)
    assert report.verdict is Verdict.WRONG
    assert kinds(report) == ["asymmetric"]
    assert report.findings[0].evidence["asymmetry"] > 0.1
    # symmetric, and wrong all the same
    report = fastcheck.check_hvp(lambda x: S @ x, lambda x, v: 2 * S @ v, x)
    assert report.verdict is Verdict.WRONG
    assert "asymmetric" not in kinds(report)
    # ignores the vector
    report = fastcheck.check_hvp(lambda x: S @ x, lambda x, v: S @ x, x)
    assert kinds(report)[0] == "vector_ignored"


def test_a_product_that_changes_its_vector_is_told():
    def vjp(x, u):
        u *= np.cos(x)
        return u

    report = fastcheck.check_vjp(np.sin, vjp, np.ones(3))
    assert report.passed
    assert "vector_changed" in kinds(report)
    assert "vector_changed" in kinds(fastcheck.check_jvp(np.sin, vjp, np.ones(3)))


def test_a_pass_is_refused_where_something_was_not_looked_at():
    case = CASES["layer"]
    report = fastcheck.check_vjp(case.function, case.vjp, case.inputs, mode="screen", budget=1e-4)
    assert report.verdict is Verdict.INCONCLUSIVE
    report = fastcheck.check_vjp(lambda x: np.maximum(x, 0), lambda x, u: u * (x > 0), -np.ones(3))
    assert report.verdict is Verdict.INCONCLUSIVE
    report = fastcheck.check_vjp(case.function, case.vjp, case.inputs, blocks="b")
    assert report.blocks["b"].verdict is Verdict.CORRECT
    assert report.blocks["W"].verdict is Verdict.INCONCLUSIVE
    for tangents in (None, 3):
        report = fastcheck.check_jvp(case.function, case.jvp, case.inputs, blocks="b", tangents=tangents)
        assert report.passed
        assert report.blocks["W"].verdict is Verdict.INCONCLUSIVE


def test_an_output_that_is_off_alone_does_not_spoil_a_pass_but_is_named():
    report = fastcheck.check_vjp(lambda x: np.maximum(x, 0), lambda x, u: u * (x > 0), np.array([1.0, -1, 2, -3]))
    assert report.passed
    (silent,) = (finding for finding in report.findings if finding.kind == "silent_outputs")
    assert silent.evidence["outputs"] == ["output[1]", "output[3]"]
    # and is looked at all the same
    report = fastcheck.check_vjp(lambda x: np.maximum(x, 0), lambda x, u: u * (x > -2), np.array([1.0, -1, 2, -3]))
    assert [c.name for c in report.wrong] == ["theta[1]"]


def test_a_random_function():
    rng = np.random.default_rng(7)
    report = fastcheck.check_vjp(lambda x: x * (rng.random(3) > 0.5) * 2, lambda x, u: u, np.ones(3))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert kinds(report)[0] == "random_loss"


@pytest.mark.parametrize("size", [1, 20])
def test_a_product_of_random_draws_is_not_called_nonlinear(size):
    """Of one unit, kept or not: 3 calls of the function and 9 of the product are alike with a chance of 1e-3."""
    rng = np.random.default_rng(8)

    def masked(x, u=1.0):
        return 2 * u * (rng.random(x.shape) > 0.5)

    x = np.ones(size)
    for check in (fastcheck.check_vjp, fastcheck.check_jvp):
        for _ in range(5):
            report = check(lambda x: x * masked(x), masked, x)
            assert report.verdict is Verdict.INCONCLUSIVE, str(report)


def test_a_hessian_of_random_draws_is_not_called_asymmetric():
    rng = np.random.default_rng(9)

    def masked(x, v):
        return 2 * v * (rng.random(x.shape) > 0.5)

    report = fastcheck.check_hvp(lambda x: masked(x, x), masked, np.ones(20))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert kinds(report)[0] == "random_loss"
    assert not {"asymmetric", "vector_unsteady"} & set(kinds(report))


def test_a_buffer_that_is_kept_between_calls():
    kept = np.zeros(3)

    def vjp(x, u):
        nonlocal kept
        kept = kept + u * np.cos(x)
        return kept

    report = fastcheck.check_vjp(np.sin, vjp, np.ones(3))
    assert report.verdict is Verdict.WRONG
    assert kinds(report)[0] == "vector_unsteady"


def test_throw():
    with pytest.raises(fastcheck.GradientError, match="ignores the cotangent") as caught:
        fastcheck.check_vjp(np.sin, lambda x, u: np.cos(x), np.ones(3), throw=True)
    assert caught.value.report.verdict is Verdict.WRONG
    with pytest.raises(fastcheck.GradientError):
        fastcheck.check_jvp(np.sin, lambda x, u: np.cos(x), np.ones(3), throw=True)
    with pytest.raises(fastcheck.GradientError):
        fastcheck.check_hvp(np.sin, lambda x, u: np.cos(x), np.ones(3), throw=True)


def right(x, u):
    return np.cos(x) * u


@pytest.mark.parametrize(
    ("function", "product", "inputs", "options", "said"),
    [
        (1, right, np.ones(3), {}, r"function=1 \(type=int\) is not callable"),
        (np.sin, np.ones(3), np.ones(3), {}, r"type=ndarray\) is not callable: pass the function"),
        (np.sin, right, np.ones(3, int), {}, "inputs has dtype int64"),
        (np.sin, right, [], {}, "inputs has no coordinate"),
        (np.sin, right, np.array([1.0, np.nan]), {}, r"inputs\[1\]=nan is not finite"),
        (lambda x: x > 0, right, np.ones(3), {}, r"function\(inputs\) has dtype bool, which has no derivative"),
        (lambda x: {"i": np.arange(3)}, right, np.ones(3), {}, r"function\(inputs\)\['i'\] has dtype int64"),
        (lambda x: None, right, np.ones(3), {}, r"function\(inputs\)=None .* is not a float array"),
        (lambda x: x * 1j, right, np.ones(3), {}, "split a complex one"),
        (np.sin, lambda x, u: None, np.ones(3), {}, "=None: is its `return` missing"),
        (np.sin, lambda x, u: u[:2], np.ones(3), {}, r"has shape \(2,\), but .*has \(3,\)"),
        (np.sin, lambda x, u: u * 1j, np.ones(3), {}, "dtype complex128"),
        (np.sin, lambda x, u: {"y": u}, np.ones(3), {}, "has no block 'theta'"),
        (np.sin, right, np.ones(3), {"cotangents": 0}, "cotangents=0 must be a positive integer"),
        (np.sin, right, np.ones(3), {"cotangents": 1.5}, "cotangents=1.5 must be"),
        (np.sin, right, np.ones(3), {"mode": "fast"}, "mode='fast' must be one of"),
        (np.sin, right, np.ones(3), {"tolerence": 1}, "has no option 'tolerence'"),
        (np.sin, right, np.ones(3), {"checkpoint": "x"}, "is several short checks"),
        (np.sin, right, np.ones(3), {"blocks": "W"}, "blocks='W' matches no block"),
        (np.sin, right, np.ones(3), {"args": np.ones(3)}, "must be a tuple"),
    ],
)
def test_bad_input_is_named(function, product, inputs, options, said):
    for check in (fastcheck.check_vjp, fastcheck.check_jvp):
        with pytest.raises(fastcheck.InputError, match=said):
            check(function, product, inputs, **options)


def test_bad_input_of_hessian_products():
    with pytest.raises(fastcheck.InputError, match=r"gradient=array.* is not callable"):
        fastcheck.check_hvp(np.ones(3), right, np.ones(3))
    with pytest.raises(fastcheck.InputError, match=r"gradient\['theta'\] has shape"):
        fastcheck.check_hvp(lambda x: x[:2], right, np.ones(3))
    with pytest.raises(fastcheck.InputError, match="tangents=True must be"):
        fastcheck.check_hvp(np.sin, right, np.ones(3), tangents=True)
    with pytest.raises(fastcheck.InputError, match=r"hvp=3 .* is not callable"):
        fastcheck.check_hvp(np.sin, 3, np.ones(3))


def fails(*_):
    raise ValueError("no such thing")


def test_what_raises_is_named():
    with pytest.raises(fastcheck.LossError, match=r"function raised ValueError at inputs: no such thing"):
        fastcheck.check_vjp(fails, right, np.ones(3))
    with pytest.raises(fastcheck.LossError, match="vjp raised ValueError"):
        fastcheck.check_vjp(np.sin, fails, np.ones(3))
    with pytest.raises(fastcheck.LossError, match=r"vjp\['theta'\] is nan at index"):
        fastcheck.check_vjp(np.sin, lambda x, u: np.nan * u, np.ones(3))
    with pytest.raises(fastcheck.LossError, match="is not finite everywhere"):
        fastcheck.check_vjp(lambda x: x * np.inf, right, np.ones(3))
