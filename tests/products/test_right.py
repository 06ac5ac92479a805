"""Right products pass, and what a pass says is so."""

import numpy as np
import pytest

import fastcheck
from fastcheck import Verdict
from tests.products.functions import cases

RIGHT = cases(0)
NAMES = [case.name for case in RIGHT]


@pytest.mark.parametrize("case", RIGHT, ids=NAMES)
def test_right_products_pass(case):
    for check, product in ((fastcheck.check_vjp, case.vjp), (fastcheck.check_jvp, case.jvp)):
        report = check(case.function, product, case.inputs)
        assert report.passed, str(report)
        assert report.wrong == ()
        assert not {f.kind for f in report.findings} - {"kinks", "silent_outputs", "noisy_loss", "below_tolerance"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 21))
def test_no_false_alarm_on_400_right_products(seed):
    all_pass(seed)


@pytest.mark.explore
def test_no_false_alarm_on_fresh_right_products(fresh):
    for seed in fresh(8):
        all_pass(seed)


def all_pass(seed):
    for case in cases(seed):
        for check, product in ((fastcheck.check_vjp, case.vjp), (fastcheck.check_jvp, case.jvp)):
            report = check(case.function, product, case.inputs, seed=seed)
            assert report.passed, f"{case.name}: {report}"


@pytest.mark.parametrize("mode", ["full", "sample", "screen"])
def test_in_every_mode(mode):
    case = cases(5)[NAMES.index("layer")]
    for check, product in ((fastcheck.check_vjp, case.vjp), (fastcheck.check_jvp, case.jvp)):
        assert check(case.function, product, case.inputs, mode=mode).passed


def test_hessian_products():
    rng = np.random.default_rng(1)
    X, params = rng.normal(size=(20, 4)), {"w": rng.normal(size=4), "b": np.zeros(1)}

    def gradient(p, X):
        y = np.tanh(X @ p["w"] + p["b"])
        return {"dw": X.T @ y, "db": y.sum(keepdims=True)}

    def hvp(p, v, X):
        d = (1 - np.tanh(X @ p["w"] + p["b"]) ** 2) * (X @ v["w"] + v["b"])
        return {"w": X.T @ d, "b": d.sum(keepdims=True)}

    report = fastcheck.check_hvp(gradient, hvp, params, args=(X,))
    assert report.verdict is Verdict.CORRECT
    assert list(report.blocks) == ["w", "b"]
    assert report.coverage == 1.0
    many = fastcheck.check_hvp(gradient, hvp, params, args=(X,), tangents=2)
    assert many.passed
    assert many.coverage == 0.0


def test_float32_outputs_and_inputs():
    rng = np.random.default_rng(2)
    W, x = rng.normal(size=(6, 9)).astype(np.float32), rng.normal(size=9).astype(np.float32)

    def slope(x):
        return 1 - np.tanh(W @ x) ** 2

    def vjp(x, u):
        assert u.dtype == slope(x).dtype
        return (W.T @ (u * slope(x))).astype(np.float32)

    def jvp(x, v):
        return (slope(x) * (W @ v)).astype(np.float32)

    for check, product in ((fastcheck.check_vjp, vjp), (fastcheck.check_jvp, jvp)):
        assert check(lambda x: np.tanh(W @ x), product, x).passed
        wrong = check(lambda x: np.tanh(W @ x), lambda x, u, p=product: 1.01 * p(x, u), x)
        assert wrong.verdict in (Verdict.WRONG, Verdict.SUSPICIOUS)


def test_a_function_that_takes_float32_only():
    def f(x):
        if x.dtype != np.float32:
            raise TypeError("float32 only")
        return np.tanh(x)

    x = np.linspace(0.1, 1, 10, dtype=np.float32)

    def product(x, u):
        assert x.dtype == u.dtype == np.float32
        return u * (1 - np.tanh(x) ** 2)

    for check in (fastcheck.check_vjp, fastcheck.check_jvp):
        assert check(f, product, x, tolerance=1e-3).passed
        assert not check(f, lambda x, u: 1.1 * product(x, u), x, tolerance=1e-3).passed
    many = np.linspace(0.1, 1, 100, dtype=np.float32)  # along random tangents
    for check in (fastcheck.check_vjp, fastcheck.check_jvp):
        said = [finding.message for finding in check(f, product, many).findings if finding.kind == "low_precision"]
        assert len(said) == 1
        assert "TypeError: float32 only" in said[0]


def test_float32_inside_a_float64_function_is_never_called_wrong():
    rng = np.random.default_rng(3)
    x = rng.normal(size=20)

    def f(x):
        return np.tanh(x.astype(np.float32))

    report = fastcheck.check_vjp(f, lambda x, u: u * (1 - np.tanh(x) ** 2), x)
    assert report.passed or report.verdict is Verdict.INCONCLUSIVE


def test_inputs_are_never_changed():
    for case in cases(4):
        before = [leaf.tobytes() for leaf in _arrays(case.inputs)]
        fastcheck.check_vjp(case.function, case.vjp, case.inputs)
        fastcheck.check_jvp(case.function, case.jvp, case.inputs, tangents=2)
        assert [leaf.tobytes() for leaf in _arrays(case.inputs)] == before


def _arrays(tree):
    if isinstance(tree, dict):
        return list(tree.values())
    return list(tree) if isinstance(tree, tuple) else [tree]


def test_the_same_seed_gives_the_same_report():
    case = RIGHT[NAMES.index("layer")]
    one, two, other = (fastcheck.check_vjp(case.function, case.vjp, case.inputs, seed=s) for s in (3, 3, 4))
    assert one.difference == two.difference != other.difference


def test_the_report_can_be_saved_and_says_how_to_repeat_it(tmp_path):
    case = RIGHT[NAMES.index("dense")]
    report = fastcheck.check_vjp(case.function, case.vjp, case.inputs, seed=7)
    loaded = fastcheck.Report.load(report.save(tmp_path / "r.json"))
    assert loaded.verdict is report.verdict
    assert loaded.settings["cotangents"][0] == "all outputs"
    assert "fastcheck.check_vjp(function, vjp, inputs, seed=7)" in report.save(tmp_path / "r.html").read_text()
    calls = {
        fastcheck.check_jvp(case.function, case.jvp, case.inputs).settings["call"],
        fastcheck.check_hvp(lambda x: 2 * x, lambda x, v: 2 * v, np.ones(2)).settings["call"],
    }
    assert calls == {"check_jvp(function, jvp, inputs", "check_hvp(gradient, hvp, params"}


def test_evaluations_are_all_counted():
    case, calls = RIGHT[NAMES.index("dense")], 0

    def counted(p):
        nonlocal calls
        calls += 1
        return case.function(p)

    for check, product in ((fastcheck.check_vjp, case.vjp), (fastcheck.check_jvp, case.jvp)):
        for claimed in (product, lambda p, u, f=product: _scaled(f(p, u), 1.5)):
            calls = 0
            assert check(counted, claimed, case.inputs).evaluations == calls


def _scaled(tree, factor):
    return {k: factor * v for k, v in tree.items()} if isinstance(tree, dict) else factor * tree


def test_complex_step():
    assert fastcheck.check_vjp(np.sin, lambda x, u: np.cos(x) * u, np.ones(3), scheme="complex").passed
    assert fastcheck.check_jvp(np.sin, lambda x, u: np.cos(x) * u, np.ones(100), scheme="complex").passed


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("eps", "passes"), [(1e-5, True), (0.0, False)])
def test_a_product_that_is_rounding_alone_is_not_called_nonlinear(dtype, eps, passes):
    """Batch normalisation of two samples: what is left after cancellation is small, or nothing at all."""

    def parts(x):
        centred = x - x.mean(axis=0)
        scale = np.sqrt((centred**2).mean(axis=0) + x.dtype.type(eps))
        return centred / scale, scale

    def product(x, u):
        y, scale = parts(x)
        return ((u - u.mean(axis=0) - y * (u * y).mean(axis=0)) / scale).astype(dtype)

    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=(2, 3)).astype(dtype)
        for check in (fastcheck.check_vjp, fastcheck.check_jvp):
            report = check(lambda x: parts(x)[0], product, x)
            assert report.passed is passes
            assert report.verdict in (Verdict.CORRECT, Verdict.INCONCLUSIVE)


def test_a_function_that_fails_elsewhere_is_no_crash():
    """The square root has no value to the left of zero; the product is wrong at a place where it has."""

    def f(x):
        if (x < 0).any():
            raise ValueError("negative")
        return np.sqrt(x)

    x = np.array([1e-12, *np.ones(20)])
    wrong = np.ones(21)
    wrong[0] = 2.0
    report = fastcheck.check_vjp(f, lambda x, u: u * wrong * 0.5 / np.sqrt(x), x)
    assert not report.passed
