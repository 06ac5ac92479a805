"""Everything that can be handed over wrongly: each a clear error or finding, and never a wrong verdict."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

import fastcheck
from fastcheck import InputError, LossError, Verdict
from fastcheck.settings import Settings, as_args

AT = np.array([0.5, 0.7, 1.0, 1.2])


def sines(t):
    return float(np.sum(np.sin(t)))


def kinds(report):
    return [finding.kind for finding in report.findings]


# What a loss may return -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (math.nan, "loss returned nan at theta itself"),
        (math.inf, "loss returned inf at theta itself"),
        (-math.inf, "loss returned -inf"),
        (np.float64("nan"), "loss returned nan"),
        (np.ones(3), r"loss returned an array of shape \(3,\); it must return one real number"),
        (np.ones((1, 2)), r"shape \(1, 2\)"),
        (np.zeros(0), r"shape \(0,\)"),
        (None, r"loss returned None \(type=NoneType\); .* Is its `return` missing\?"),
        (np.array([1j]), r"type=ndarray"),
        (np.array([True]), r"type=ndarray"),
        ("0.5", r"loss returned '0\.5' \(type=str\)"),
        (1 + 0j, r"type=complex\).* Return J\.real"),
        (np.complex128(1), r"type=complex128\).* Return J\.real"),
        (True, r"loss returned True \(type=bool\)"),
        ([[1.0]], r"type=list"),
        ([1.0, 2.0, 3.0], r"type=list"),
        ((1.0, AT), r"a tuple of 2; .* pass gradient=True: check\(loss, True, params\)"),
        ({"loss": 1.0}, r"type=dict"),
        (object(), r"type=object"),
    ],
)
def test_loss_returns_no_number(value, said):
    with pytest.raises(LossError, match=said):
        fastcheck.check(lambda t: value, np.ones(4), AT)
    with pytest.raises(LossError, match=said):
        fastcheck.numerical_gradient(lambda t: value, AT)


@pytest.mark.parametrize("kind", [float, np.float64, np.float32, np.array])
def test_loss_may_return_any_real_scalar(kind):
    tolerance = 1e-7 if kind is not np.float32 else 1e-2
    assert fastcheck.check(lambda t: kind(sines(t)), np.cos(AT), AT, tolerance=tolerance).passed


def test_loss_raises_at_theta_itself():
    def loss(t):
        raise ZeroDivisionError("m is 0")

    with pytest.raises(LossError, match=r"loss raised ZeroDivisionError at theta itself: m is 0") as caught:
        fastcheck.check(loss, np.ones(4), AT)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("loss", [None, 3.0, "loss", np.ones(3)])
def test_loss_is_no_function(loss):
    with pytest.raises(InputError, match="is not callable: pass the function, not its value"):
        fastcheck.check(loss, np.ones(4), AT)


# A loss without a value at some theta: the coordinate is named, the rest is kept ---------------------------------


def raises(t):
    raise ValueError("out of domain")


MANY = np.linspace(0.1, 1, 60)


@pytest.mark.parametrize("bad", [lambda t: math.nan, lambda t: math.inf, raises])
def test_loss_fails_beside_one_coordinate(bad):
    g = np.cos(MANY)

    def loss(t):
        return bad(t) if t[17] > MANY[17] else sines(t)

    report = fastcheck.check(loss, g, MANY)
    assert report.verdict is Verdict.INCONCLUSIVE  # never a pass: one coordinate was not seen
    assert report.blocks["theta"].checked == 59
    failed = next(finding for finding in report.findings if finding.kind == "loss_failed")
    assert failed.evidence["coordinates"] == [17]
    assert "theta[17]" in failed.message
    assert "theta[17]" in str(report)

    g[40] *= 1.3
    report = fastcheck.check(loss, g, MANY)
    assert report.verdict is Verdict.WRONG
    assert [c.name for c in report.wrong] == ["theta[40]"]
    assert "loss_failed" in kinds(report)


def test_loss_fails_beside_a_coordinate_of_the_pilot():
    g = np.cos(AT)
    g[0] *= 1.1
    report = fastcheck.check(lambda t: raises(t) if t[2] > 1 else sines(t), g, AT)
    assert [c.name for c in report.wrong] == ["theta[0]"]


def test_loss_has_a_narrow_domain():
    def loss(t):
        return raises(t) if abs(t[2] - 1) > 1e-3 else sines(t)

    assert fastcheck.check(loss, np.cos(AT), AT).passed
    report = fastcheck.check(loss, np.cos(AT), AT, step=1e-2)
    assert report.passed
    assert "ValueError: out of domain" in next(f.message for f in report.findings if f.kind == "loss_failed")


def test_a_block_on_the_edge_of_its_domain_leaves_the_other_blocks_alone():
    params = {"inside": MANY, "edge": np.ones(1)}

    def loss(p):
        return math.nan if p["edge"][0] > 1 else sines(p["inside"]) + float(p["edge"][0])

    report = fastcheck.check(loss, {"inside": np.cos(MANY), "edge": np.ones(1)}, params)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.blocks["inside"].verdict is Verdict.CORRECT
    assert report.blocks["edge"].verdict is Verdict.INCONCLUSIVE
    assert "edge[0]" in str(report)


# A loss that is no function of theta -------------------------------------------------------------------------------


def fatal(report, kind):
    assert report.verdict is Verdict.INCONCLUSIVE
    assert not report.passed
    assert report.findings[0].kind == kind, report.findings
    assert np.isnan(report.difference)
    assert report.coverage == 0
    assert str(report).startswith("INCONCLUSIVE: ")


def test_a_random_loss_that_gives_the_same_three_times_is_not_called_constant():
    # Nobody can know yet that it is random; but what it scatters by is noise, and no move within that says anything.
    at = np.array([1.0, 2.5, 4.7, 8.1])
    for seed in range(150, 350):
        own = np.random.RandomState(seed)
        report = fastcheck.check(lambda t, own=own: float(np.sum(t * (own.random_sample(4) < 0.5))), np.ones(4), at)
        assert "constant" not in [finding.kind for finding in report.findings], seed
        assert not report.blocks["theta"].verdict.passed


@pytest.mark.parametrize("source", ["numpy global", "python global", "own generator"])
def test_random_loss(source):
    own = np.random.default_rng(0)
    random.seed(0)  # one in 250 draws the same four bits three times in a row
    np.random.seed(0)  # noqa: NPY002
    draw = {
        "numpy global": lambda: np.random.random(4),  # noqa: NPY002
        "python global": lambda: np.array([random.random() for _ in range(4)]),
        "own generator": lambda: own.random(4),
    }[source]
    at = np.array([1.0, 2.5, 4.7, 8.1])
    report = fastcheck.check(lambda t: float(np.sum(t * (draw() < 0.5))), np.ones(4), at)
    fatal(report, "random_loss")
    assert "Pass the function" in report.findings[0].message  # the gradient is an array, of other draws
    report = fastcheck.check(lambda t: float(np.sum(t * (draw() < 0.5))), lambda t: np.ones(4), at, replay=False)
    fatal(report, "random_loss")
    assert "keep_prob=1" in report.findings[0].message
    assert {"numpy global": "numpy.random", "python global": "(random)", "own generator": "generator own"}[
        source
    ] in report.findings[0].evidence["sources"]
    with pytest.raises(LossError, match="The loss is random"):
        fastcheck.numerical_gradient(lambda t: float(np.sum(t)) + own.random(), AT)


def test_looking_for_the_cause_leaves_the_global_generators_as_they_were():
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    expected = np.random.random(), random.random()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    own = np.random.default_rng(0)
    fatal(fastcheck.check(lambda t: float(np.sum(t)) + own.random(), np.ones(4), AT), "random_loss")
    assert (np.random.random(), random.random()) == expected  # noqa: NPY002


def test_loss_that_counts_its_calls():
    calls = 0

    def loss(t):
        nonlocal calls
        calls += 1
        return sines(t) + 0.01 * calls

    fatal(fastcheck.check(loss, np.cos(AT), AT), "counting_loss")


def test_loss_with_running_statistics():
    mean = np.zeros(4)

    def loss(t):
        mean[:] = 0.9 * mean + 0.1 * t
        return float(np.sum((t - mean) ** 2))

    fatal(fastcheck.check(loss, 2 * AT, AT), "stateful_loss")


def test_loss_that_remembers_a_step_away():
    cache = {}

    def loss(t):  # the hidden activations of the last two calls
        seen = cache.get("last", t.copy())
        cache["last"] = t.copy()
        return sines(t) + float(np.sum(seen))

    fatal(fastcheck.check(loss, np.cos(AT), AT), "stateful_loss")


def test_loss_that_changes_theta():
    params = {"w": AT.copy()}

    def loss(p):
        p["w"] /= np.linalg.norm(p["w"])
        return sines(p["w"])

    fatal(fastcheck.check(loss, {"w": np.cos(AT)}, params), "loss_changes_params")
    np.testing.assert_array_equal(params["w"], AT)
    with pytest.raises(LossError, match="changes the parameters it is given"):
        fastcheck.numerical_gradient(loss, params)


def normalised(p):
    p["w"] = p["w"] / np.linalg.norm(p["w"])
    return float(p["w"] @ AT)


def test_loss_that_puts_other_arrays_into_its_tree():
    fatal(fastcheck.check(normalised, {"w": np.cos(AT)}, {"w": AT + 1}), "loss_changes_params")


def test_loss_that_puts_other_arrays_into_its_tree_leaves_the_users_alone():
    params = {"w": AT + 1}
    fastcheck.check(normalised, {"w": np.cos(AT)}, params)
    np.testing.assert_array_equal(params["w"], AT + 1)


@pytest.mark.parametrize("wrap", [lambda X: (X,), lambda X: ({"X": [X]},), lambda X: ([1, (X, "a")],)])
def test_loss_that_changes_its_data(wrap):
    X = np.arange(4.0)

    def loss(t, data):
        X[0] += 1.0
        return float(t @ X)

    fatal(fastcheck.check(loss, X.copy(), AT, args=wrap(X)), "loss_changes_args")


def test_loss_that_centres_its_data_once():
    X = np.arange(4.0)

    def loss(t, X):
        X -= X.mean()
        return float(t @ X)

    fatal(fastcheck.check(loss, np.ones(4), AT, args=(X,)), "loss_changes_args")


@pytest.mark.parametrize(
    "data",
    [
        np.zeros((0, 3)),
        np.array(["a", "bc"]),
        np.array(["2020-01-01"], dtype="M8[D]"),
        np.arange(3, dtype=">f8"),
        np.array([None, {}], dtype=object),
        np.zeros(2, dtype=[("a", float), ("b", "U3")]),
        np.array(3.0),
        np.ones((2, 3, 4))[:, ::2].T,
        "text",
        None,
        {"labels": [1, 2], 3: object()},
    ],
)
def test_data_of_any_kind(data):
    assert fastcheck.check(lambda t, data: sines(t), np.cos(AT), AT, args=(data,)).passed


# The gradient ------------------------------------------------------------------------------------------------------


def test_gradient_that_changes_the_loss():
    cache = {"scale": 1.0}

    def gradient(t):
        cache["scale"] = 2.0
        return np.cos(t)

    fatal(fastcheck.check(lambda t: cache["scale"] * sines(t), gradient, AT), "gradient_changes_loss")


@pytest.mark.parametrize("style", ["in place", "other array", "removed"])
def test_gradient_that_changes_its_parameters(style):
    params = {"w": AT.copy()}

    def gradient(p):
        g = np.cos(p["w"])
        if style == "in place":
            p["w"] -= 0.1 * g
        elif style == "other array":
            p["w"] = p["w"] - 0.1 * g
        else:
            del p["w"]
        return {"dw": g}

    report = fastcheck.check(lambda p: sines(p["w"]), gradient, params)
    assert report.verdict is Verdict.CORRECT  # of the theta it was given
    assert "gradient_changes_params" in kinds(report)
    np.testing.assert_array_equal(params["w"], AT)


def test_gradient_may_keep_a_cache_in_its_parameters():
    def gradient(p):
        p["cache"] = np.ones(7)
        return {"dw": np.cos(p["w"])}

    report = fastcheck.check(lambda p: sines(p["w"]), gradient, {"w": AT})
    assert report.verdict is Verdict.CORRECT
    assert kinds(report) == []


def test_gradient_that_returns_its_parameters():
    assert fastcheck.check(lambda t: 0.5 * float(t @ t), lambda t: t, AT).verdict is Verdict.CORRECT


def test_gradient_raises():
    with pytest.raises(LossError, match="gradient raised ValueError at theta: out of domain"):
        fastcheck.check(sines, raises, AT)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_gradient_with_nan(value):
    g = {"dW": np.ones((2, 3))}
    g["dW"][1, 2] = value
    with pytest.raises(LossError, match=rf"gradient\['dW'\] is {value} at index \[1, 2\] \(1 of 6 entries"):
        fastcheck.check(lambda p: float(np.sum(p["W"])), g, {"W": np.ones((2, 3))})


TWO = {"W": np.ones((2, 3)), "b": np.ones(2)}


@pytest.mark.parametrize(
    ("gradient", "error", "said"),
    [
        ({"W": np.ones((2, 3))}, InputError, r"gradient has no block 'b' \(nor 'db'\); it has: 'W'"),
        ({}, InputError, r"gradient has no block 'W' \(nor 'dW'\); it has: nothing"),
        ({"W": np.ones((3, 2)), "b": np.ones(2)}, InputError, r"shape \(3, 2\), but .* \(2, 3\)\. It is the transpose"),
        ({"W": np.ones(6), "b": np.ones(2)}, InputError, r"gradient\['W'\] has shape \(6,\), but params\['W'\] has"),
        ({"W": np.ones((2, 3)), "db": np.ones((2, 1))}, InputError, r"gradient\['db'\] has shape \(2, 1\)"),
        ({"W": 1.0, "b": np.ones(2)}, InputError, r"gradient\['W'\] has shape \(\)"),
        ({"W": None, "b": np.ones(2)}, InputError, r"gradient\['W'\]=None"),
        ({"W": "grad", "b": np.ones(2)}, InputError, r"gradient\['W'\]='grad' \(type=str\)"),
        ({"W": np.ones((2, 3)) * 1j, "b": np.ones(2)}, InputError, r"dtype complex128"),
        ({"W": np.ones((2, 3), dtype=object), "b": np.ones(2)}, InputError, r"dtype object"),
        ({"W": np.ones((2, 3), dtype=bool), "b": np.ones(2)}, InputError, r"dtype bool"),
        (
            {"dW": np.ones((2, 3)), "grad_W": np.ones((2, 3)), "b": np.ones(2)},
            InputError,
            r"gradient has dW and grad_W: which is the gradient of 'W'",
        ),
        ([np.ones((2, 3)), np.ones(2)], InputError, r"gradient has no block 'W' .* it has: '0', '1'"),
        (np.ones(8), InputError, r"gradient has no block 'W'"),
        (None, InputError, r"gradient"),
    ],
)
@pytest.mark.parametrize("called", [True, False])
def test_gradient_that_does_not_fit(gradient, error, said, called):
    def loss(p):
        return float(np.sum(p["W"]) + np.sum(p["b"]))

    with pytest.raises(error, match=said):
        fastcheck.check(loss, (lambda p: gradient) if called else gradient, TWO)


def test_extra_entries_are_noted_and_ignored():
    g = {"dW": np.ones((2, 3)), "db": np.ones(2), "dZ": np.ones(9), "cache": object(), "m": 3}
    report = fastcheck.check(lambda p: float(np.sum(p["W"]) + np.sum(p["b"])), g, TWO)
    assert report.verdict is Verdict.CORRECT
    assert report.findings[0].kind == "extra_gradient"
    assert report.findings[0].evidence["names"] == ("dZ", "cache", "m")


# Parameters and settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, "params has no coordinate to check"),
        ((), "params has no coordinate to check"),
        (None, "params=None"),
        ({"W": np.arange(3)}, "adding a small step to integers does nothing"),
        ({"W": [1, 2]}, "dtype int64"),
        ({"W": np.array([1.0, "a"], dtype=object)}, "dtype object"),
        ({"W": np.array([np.nan])}, "is not finite"),
        ("W", "params='W'"),
    ],
)
def test_bad_params(params, said):
    with pytest.raises(InputError, match=said):
        fastcheck.check(lambda p: 1.0, {}, params)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_low_precision_params_work(dtype):
    at = AT.astype(dtype)
    right = np.cos(at.astype(float))
    assert fastcheck.check(sines, right, at).passed
    report = fastcheck.check(sines, right * [1, 1, 1.5, 1], at)
    assert [c.name for c in report.wrong] == ["theta[2]"]


def test_read_only_params_and_data_work():
    t, X = AT.copy(), np.arange(4.0)
    t.flags.writeable = X.flags.writeable = False
    assert fastcheck.check(lambda t, X: float(np.sin(t) @ X), lambda t, X: X * np.cos(t), t, args=(X,)).passed
    assert fastcheck.check(lambda t, X: float(np.sin(t) @ X), X * np.cos(t), t, args=[X]).passed


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mode": "fast"}, r"mode='fast' must be one of 'auto', 'full', 'sample', 'screen'"),
        ({"mode": ["full"]}, r"mode=\['full'\] must be one of"),
        ({"scheme": "backward"}, r"scheme='backward' must be one of"),
        ({"step": 0}, r"step=0 must lie strictly between 0 and inf"),
        ({"step": -1e-7}, r"step=-1e-07"),
        ({"step": math.nan}, r"step=nan"),
        ({"step": "1e-7"}, r"step='1e-7' \(type=str\) must be a number"),
        ({"tolerance": 0}, r"tolerance=0 must lie strictly between 0 and 1"),
        ({"tolerance": True}, r"tolerance=True \(type=bool\)"),
        ({"confidence": 1.0}, r"confidence=1\.0 must lie"),
        ({"seed": -1}, r"seed=-1 must be >= 0"),
        ({"seed": 1.5}, r"seed=1\.5 \(type=float\) must be an integer"),
        ({"samples": 0, "mode": "sample"}, r"samples=0 must be >= 1"),
        ({"samples": 10, "mode": "full"}, r"samples=10 goes with mode='sample'"),
        ({"workers": 0}, r"workers=0 must be >= 1 \(or -1"),
        ({"workers": 2.0}, r"workers=2\.0"),
        ({"backend": 2}, r"backend=2 \(type=int\) must be a name"),
        ({"budget": 0}, r"budget=0 must lie"),
        ({"progress": "yes"}, r"progress='yes' must be True, False, or None"),
        ({"progress": 2}, r"progress=2 must be"),
        ({"checkpoint": 3}, r"checkpoint=3 \(type=int\) must be a path"),
    ],
)
def test_bad_settings(options, said):
    with pytest.raises(InputError, match=said):
        Settings(**options)
    with pytest.raises(InputError, match=said):
        fastcheck.check(sines, np.cos(AT), AT, **options)


def test_bad_blocks():
    with pytest.raises(InputError, match="blocks='V' matches no block; the blocks are: theta"):
        fastcheck.check(sines, np.cos(AT), AT, blocks="V")
    with pytest.raises(InputError, match=r"blocks=3 \(type=int\)"):
        fastcheck.check(sines, np.cos(AT), AT, blocks=3)


def test_as_args():
    X = np.ones((5, 3))
    assert as_args((X, 1)) == (X, 1)
    assert as_args([X])[0] is X
    for wrong in (X, None, "ab", {"X": X}, 3):
        with pytest.raises(InputError, match=r"args \(type=\w+\) must be a tuple .* args=\(X,\)"):
            as_args(wrong)


@pytest.mark.parametrize("args", [np.ones((5, 4)), None, 3])
def test_args_that_are_no_tuple(args):
    with pytest.raises(InputError, match="must be a tuple"):
        fastcheck.check(lambda t, X: sines(t), np.cos(AT), AT, args=args)
    with pytest.raises(InputError, match="must be a tuple"):
        fastcheck.numerical_gradient(lambda t, X: sines(t), AT, args=args)


@pytest.mark.parametrize("scheme", ["central", "forward"])
def test_every_scheme_that_settings_allow(scheme):
    assert fastcheck.check(sines, np.cos(AT), AT, scheme=scheme, tolerance=1e-5).passed


@pytest.mark.parametrize("scheme", ["complex", "richardson"])
def test_other_schemes(scheme):
    assert fastcheck.check(lambda t: np.sum(np.sin(t)), np.cos(AT), AT, scheme=scheme).passed


def test_a_step_so_short_that_nothing_can_be_known():
    assert fastcheck.check(sines, np.cos(AT), AT, step=1e-300).verdict is Verdict.INCONCLUSIVE


def test_a_step_too_short_to_move_theta_is_never_a_pass_nor_wrong():
    assert fastcheck.check(sines, np.cos(AT), AT, step=1e-17).verdict is Verdict.INCONCLUSIVE


def test_a_report_is_no_truth_value():
    with pytest.raises(InputError, match=r"ask report\.passed"):
        bool(fastcheck.check(sines, np.cos(AT), AT))
