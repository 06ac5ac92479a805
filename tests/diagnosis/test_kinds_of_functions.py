"""Ten kinds of bug that users meet, each planted in five nets and named first, in every mode that can tell."""

import functools

import numpy as np
import pytest

import fastcheck
from tests.diagnosis.planted import convolution, dense

SQUARE = [
    dense(0, (6, 7, 7, 3)),
    dense(1, (5, 5, 4), "sin", one_hot=True),
    dense(2, (8, 6, 6, 6, 4), "softplus", m=20),
    dense(3, (4, 9, 9, 2), "tanh", output="squares"),
    dense(4, (6, 5, 5, 3), "sin", l2=0.1),
]
CLASSIFIERS = [
    dense(10, (6, 7, 4)),
    dense(11, (5, 8, 5), "sin", one_hot=True),
    dense(12, (8, 6, 6, 3), "softplus", m=30),
    dense(13, (4, 6), m=15),
    dense(14, (6, 5, 5, 4), l2=0.1, m=9),
]
MASKED = [
    dense(20, (6, 12, 4), keep=0.5),
    dense(21, (5, 10, 6, 3), "sin", keep=0.8, masked=False),
    dense(22, (8, 16, 3), "softplus", keep=0.75, output="squares"),
    dense(23, (6, 9, 5), keep=0.6, one_hot=True),
    dense(24, (4, 14, 4), keep=0.5, masked=False, l2=0.05),
]
KERNELS = [(4, 3, 3, 3), (2, 2, 5, 5), (3, 3, 4), (5, 5), (3, 1, 3, 2)]


def checked(net, bug, mode="full", **more):
    loss, gradient, params, args = net
    return fastcheck.check(loss, functools.partial(gradient, bug=bug, **more), params, args=args, mode=mode)


def tree(loss, params, args, change, mode="full"):
    right = {name: np.array(value) for name, value in fastcheck.numerical_gradient(loss, params, args=args).items()}
    assert fastcheck.check(loss, right, params, args=args, tolerance=1e-6).passed
    return fastcheck.check(loss, change(right), params, args=args, mode=mode)


def first(report):
    assert report.verdict.refuted
    return report.findings[0]


@pytest.mark.parametrize("net", [*SQUARE, *CLASSIFIERS, *MASKED])
def test_without_a_bug_they_pass(net):
    assert checked(net, None).passed


@pytest.mark.parametrize("mode", ["full", "screen"])
@pytest.mark.parametrize("net", SQUARE)
def test_a_matrix_for_its_transpose(net, mode):
    at = next(k for k in range(2, 9) if len(set(net[2][f"W{k}"].shape)) == 1) if len(net[2]) > 4 else 1
    if at == 1:  # the only square matrix is the first: nothing is before it, so the second is made square
        net, at = dense(5, (3, 5, 5), "sin", one_hot=True), 2
    finding = first(checked(net, "transpose", mode, at=at))
    assert (finding.kind, finding.evidence["matrix"]) == ("backward_transpose", f"W{at}")


@pytest.mark.parametrize("mode", ["full", "screen"])
@pytest.mark.parametrize("net", CLASSIFIERS)
@pytest.mark.parametrize(
    ("bug", "kind"), [("labels", "labels_shifted"), ("target", "target_missing"), ("shift", "softmax_shift")]
)
def test_bugs_of_a_softmax(net, bug, kind, mode):
    finding = first(checked(net, bug, mode))
    assert finding.kind == kind, finding.message


@pytest.mark.parametrize("mode", ["full", "screen"])
@pytest.mark.parametrize("net", MASKED)
@pytest.mark.parametrize("bug", ["mask", "scale"])
def test_the_mask_or_the_scale_of_a_dropout(net, bug, mode):
    finding = first(checked(net, bug, mode))
    assert finding.kind == "dropout_backward", finding.message


@pytest.mark.parametrize("mode", ["full", "screen"])
@pytest.mark.parametrize("net", [SQUARE[0], SQUARE[2], SQUARE[3], CLASSIFIERS[2], MASKED[1]])
def test_a_bias_summed_over_the_wrong_axis_and_resized(net, mode):
    finding = first(checked(net, "bias", mode, at=1 if len(net[2]) < 6 else 2))
    assert (finding.kind, len(finding.blocks)) == ("bias_resized", 1), finding.message


@pytest.mark.parametrize("mode", ["full", "screen"])
@pytest.mark.parametrize("shape", KERNELS)
def test_a_kernel_flipped_in_both_axes(shape, mode):
    loss, gradient, params, args = convolution(30, shape)
    assert fastcheck.check(loss, gradient, params, args=args).passed
    finding = first(
        fastcheck.check(loss, {"K": gradient(params, *args)["K"][..., ::-1, ::-1]}, params, args=args, mode=mode)
    )
    assert finding.kind == "kernel_flipped", finding.message


@pytest.mark.parametrize("mode", ["full", "screen"])
@pytest.mark.parametrize("net", CLASSIFIERS)
def test_an_integer_buffer(net, mode):
    loss, gradient, params, args = net

    def scaled(p, *args):
        return 300 * loss(p, *args)

    wrong = {name: (300 * g).astype(int) for name, g in gradient(params, *args).items()}
    finding = first(fastcheck.check(scaled, wrong, params, args=args, mode=mode))
    assert finding.kind == "integer", finding.message


def test_an_integer_buffer_that_cuts_all_off():
    loss, gradient, params, args = CLASSIFIERS[0]
    wrong = {name: g.astype(int) if name == "W1" else g for name, g in gradient(params, *args).items()}
    assert not wrong["W1"].any()
    finding = first(fastcheck.check(loss, wrong, params, args=args))
    assert (finding.kind, finding.block) == ("integer", "W1")


def wave(seed, n):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n + 2, n)) + 1j * rng.standard_normal((n + 2, n))
    y = rng.standard_normal(n + 2)

    def of(z):
        return float(np.sum(np.tanh(np.abs(A @ z) - y)))

    return of, rng.standard_normal((n, 2))


@pytest.mark.parametrize("mode", ["full", "screen"])
@pytest.mark.parametrize("seed", range(5))
def test_a_conjugate(seed, mode):
    of, z = wave(seed, 12)
    if seed < 3:
        params, right = {"z": z}, lambda p: of(p["z"][:, 0] + 1j * p["z"][:, 1])
        conjugate = lambda g: {"z": g["z"] * [1, -1]}  # noqa: E731
    else:
        names = ("z_re", "z_im") if seed == 3 else ("real", "imag")
        params = dict(zip(names, z.T.copy(), strict=True))
        right = lambda p: of(p[names[0]] + 1j * p[names[1]])  # noqa: E731
        conjugate = lambda g: {names[0]: g[names[0]], names[1]: -g[names[1]]}  # noqa: E731
    finding = first(tree(right, params, (), conjugate, mode))
    assert finding.kind == "conjugate", finding.message


def unit(q):
    return q / np.linalg.norm(q, axis=-1, keepdims=True)


def pulled(q, C):
    return float(np.sum(np.sin(C * q)))


@pytest.mark.parametrize("mode", ["full", "screen"])
@pytest.mark.parametrize("shape", [(4,), (20,), (7, 4), (30, 3), (5, 6)])
@pytest.mark.parametrize("in_loss", [True, False])
def test_a_projected_gradient(shape, in_loss, mode):
    rng = np.random.default_rng(len(shape) + shape[0])
    q, C = unit(rng.standard_normal(shape)), rng.standard_normal(shape)
    if in_loss:  # the loss normalises, the gradient does not know
        report = fastcheck.check(lambda p: pulled(unit(p["q"]), C), {"q": C * np.cos(C * q)}, {"q": q}, mode=mode)
    else:
        g = C * np.cos(C * q)
        g -= np.sum(g * q, axis=-1, keepdims=True) * q
        report = fastcheck.check(lambda p: pulled(p["q"], C), {"q": g}, {"q": q}, mode=mode)
    finding = first(report)
    assert finding.kind == "projected", finding.message
    assert "lambda" not in finding.message
