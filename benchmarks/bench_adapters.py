"""The adapters beside the checkers of the frameworks themselves, on a net of 7,510 and one of 235,146 parameters."""

from __future__ import annotations

import importlib
import statistics
import sys
import time
import warnings
from contextlib import contextmanager, suppress
from itertools import pairwise

import numpy as np
import pytest

import fastcheck

SMALL, MEDIUM = (64, 100, 10), (784, 256, 128, 10)


def arrays_of(dims, batch=64):
    rng = np.random.default_rng(0)
    layers = [(rng.normal(size=(a, b)) / np.sqrt(a), 0.1 * rng.normal(size=b)) for a, b in pairwise(dims)]
    return layers, rng.normal(size=(batch, dims[0])), rng.integers(0, dims[-1], batch)


def torch_net(dims):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layers, X, y = arrays_of(dims)
    parts = []
    for W, b in layers:
        parts += [torch.nn.Linear(*W.shape).double(), torch.nn.Tanh()]
        parts[-2].weight.data, parts[-2].bias.data = torch.tensor(W.T.copy()), torch.tensor(b)
    model = torch.nn.Sequential(*parts[:-1])
    X, y = torch.tensor(X), torch.tensor(y)

    def loss(model, X, y):
        return torch.nn.functional.cross_entropy(model(X), y)

    names = [name for name, _ in model.named_parameters()]
    inputs = [p.detach().clone().requires_grad_() for p in model.parameters()]

    def function(*params):
        values = dict(zip(names, params, strict=True))
        return torch.nn.functional.cross_entropy(torch.func.functional_call(model, values, (X,)), y)

    return torch, model, (X, y), loss, function, inputs


@contextmanager
def one_thread(torch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("dims", "mode", "fast"), [(SMALL, "full", False), (SMALL, "screen", True), (MEDIUM, "screen", True)]
)
def test_torch_against_gradcheck(ratio, dims, mode, fast):
    torch, model, args, loss, function, inputs = torch_net(dims)
    with one_thread(torch):
        ratio(
            f"torch {'-'.join(map(str, dims))} {mode}, against gradcheck(fast_mode={fast})"
            f"{' (one direction)' if fast else ''}",
            lambda: fastcheck.torch.check(loss, model, args=args, mode=mode).raise_if_wrong(),
            lambda: torch.autograd.gradcheck(function, inputs, fast_mode=fast),
            0,
            rounds=3,
            unit="check",
        )


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize(("dims", "mode"), [(SMALL, "full"), (SMALL, "screen"), (MEDIUM, "screen")])
def test_jax_against_check_grads(ratio, dims, mode, jitted):
    """Both are given the same loss, as it is written or jitted."""
    jax = pytest.importorskip("jax")
    jnp = jax.numpy
    check_grads = pytest.importorskip("jax.test_util").check_grads
    with jax.enable_x64(True):
        layers, X, y = arrays_of(dims)
        params = [tuple(map(jnp.asarray, layer)) for layer in layers]
        X, y = jnp.asarray(X), jnp.asarray(y)

        def loss(params, X, y):
            for W, b in params[:-1]:
                X = jnp.tanh(X @ W + b)
            scores = X @ params[-1][0] + params[-1][1]
            return jnp.mean(jax.nn.logsumexp(scores, axis=1) - scores[jnp.arange(len(y)), y])

        def written(params):
            return loss(params, X, y)

        known = jax.jit(written) if jitted else written

        def theirs():
            with suppress(AssertionError):  # it calls some right gradients wrong; what is timed is the same
                check_grads(known, (params,), order=1, modes=["rev"])

        ratio(
            f"jax {'-'.join(map(str, dims))} {mode}{', jitted' if jitted else ''}, "
            "against check_grads(order=1, modes=['rev']) (one direction)",
            lambda: fastcheck.jax.check(known, params, mode=mode).raise_if_wrong(),
            theirs,
            0,
            rounds=3,
            unit="check",
        )


@pytest.mark.parametrize("dims", [SMALL, MEDIUM])
def test_an_evaluation_costs_little_more_than_the_forward_pass(dims, benchmark):
    """Report a screen's seconds over its evaluations, in forward passes of the module under no_grad."""
    torch, model, args, loss, _, _ = torch_net(dims)
    with one_thread(torch):
        with torch.no_grad():
            passes = []
            for _ in range(50):
                began = time.perf_counter()
                loss(model, *args).item()
                passes.append(time.perf_counter() - began)
        report = benchmark.pedantic(lambda: fastcheck.torch.check(loss, model, args=args, mode="full", blocks="*.bias"))
        benchmark.extra_info["forward passes per evaluation"] = (
            report.seconds / report.evaluations / statistics.median(passes)
        )


@pytest.mark.parametrize("name", ["gpt2", "resnet18"])
def test_large_modules_of_torch(ratio, name):
    torch = pytest.importorskip("torch")
    nets = importlib.import_module("benchmarks.torch_nets")
    loss, model, args = getattr(nets, f"{name}_subject")()
    names = [f"model.{name}" for name, _ in model.named_parameters()]
    inputs = [p.detach().clone().requires_grad_() for p in model.parameters()]
    whole = nets.Loss(loss, model)

    def function(*params):
        return torch.func.functional_call(whole, dict(zip(names, params, strict=True)), args)

    size = sum(p.numel() for p in inputs)
    with one_thread(torch):
        ratio(
            f"torch {name}-like, {size:,} parameters, screen, against gradcheck(fast_mode=True)",
            lambda: fastcheck.torch.check(loss, model, args=args, mode="screen").raise_if_wrong(),
            lambda: torch.autograd.gradcheck(function, inputs, fast_mode=True),
            0,
            rounds=2,
            unit="check",
        )


def test_a_kernel_of_float32_with_a_reference(ratio):
    """gradcheck's tolerances are too narrow for float32: it calls the right one wrong."""
    torch = pytest.importorskip("torch")
    subjects = importlib.import_module("benchmarks.torch_subjects")
    x, w = subjects.low(torch.float32, 256, 128)
    given = [x.requires_grad_(), w.requires_grad_()]
    kernel = subjects.kernel()

    def theirs():
        numeric = sys.modules["torch.autograd.gradcheck"]
        with pytest.MonkeyPatch.context() as patch, suppress(RuntimeError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the precision
            patch.setattr(numeric, "_run_slow_mode_and_get_error", lambda *args, **options: "")  # its answer stands
            torch.autograd.gradcheck(kernel, given, fast_mode=True)

    with one_thread(torch):
        ratio(
            "torch layer norm in float32, 32,896 inputs, with a reference, against gradcheck(fast_mode=True) without",
            lambda: fastcheck.torch.check_function(kernel, given, reference=subjects.normed).raise_if_wrong(),
            theirs,
            0,
            unit="check",
        )
