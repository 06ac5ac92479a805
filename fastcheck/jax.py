"""The gradients of jax: of a loss by a pytree of parameters, and of any differentiable function of arrays.

What is checked is what ``jax.grad`` or ``jax.vjp`` returns, with every ``custom_vjp`` and ``custom_jvp`` in it. The
loss it is compared with is compiled, and run forward only. jax is imported when it is first needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from fastcheck import products
from fastcheck.adapters import framework, input_names, refuse_forms
from fastcheck.adapters.calls import under_vmap
from fastcheck.adapters.checking import alone, call_of, concluded, measured, multiplied, named, refuse_no_function
from fastcheck.adapters.curvature import curvature
from fastcheck.adapters.precision import in_double, remark, without_rounding
from fastcheck.adapters.pytrees import Leaves
from fastcheck.adapters.second import FIRST, cut_off_named, reverse_of, twice_differentiable, validated_order
from fastcheck.adapters.traced import FEWEST, WIDEST, TracedFunction, TracedLoss
from fastcheck.errors import InputError
from fastcheck.products.kernels import compared
from fastcheck.report import Report
from fastcheck.settings import as_args

__all__ = ["check", "check_function", "check_hvp", "check_jvp"]


def check(
    loss: Callable[..., Any],
    params: Any,
    *,
    args: tuple[Any, ...] = (),
    gradient: Any = None,
    dtype: Any = None,
    has_aux: bool = False,
    **options: Any,
) -> Report:
    """Compare the gradient of a loss with its finite differences, the loss being compiled.

    Parameters
    ----------
    loss : callable
        ``loss(params, *args)``: a scalar, or a pair of one and anything else with ``has_aux``.
    params : pytree
        Where to check: by its floating leaves, while all else in it is held fixed. Blocks are named by the keys,
        positions and attributes on the way: ``"layers.0.weight"``.
    args : tuple of pytree
        Further positional arguments of the loss. Arrays in them are traced; all else is taken as it is.
    gradient : pytree or callable, optional
        The gradient to check, like params, or ``gradient(params, *args)`` that returns it. By default what
        ``jax.grad(loss)`` returns.
    dtype : dtype, optional
        In which to evaluate. By default parameters of less than float64 and the floating arrays of args are converted
        to that, with 64 bits enabled for the time of the call, and the gradient in their own precision is then
        compared with the one checked; if the loss refuses float64, it is checked as it is. ``"float64"`` and
        ``"float32"`` allow that alone.
    has_aux : bool
        As of `jax.grad`.
    **options
        As for `fastcheck.check`: mode, samples, blocks, step, scheme, tolerance, confidence, seed, budget, checkpoint,
        progress, throw. There are no workers; jax has its own threads.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        An argument breaks a rule.
    LossError
        The loss or the gradient fails at the parameters themselves.
    GradientError
        With ``throw=True``, when the gradient did not pass.
    MissingDependencyError
        jax is not installed.
    """
    framework("jax")
    refuse_forms(params, gradient)
    began, throw = time.perf_counter(), bool(options.pop("throw", False))
    if not callable(loss):
        raise InputError(f"loss={loss!r} (type={type(loss).__name__}) is not callable: pass the function.")
    wanted = _dtype(dtype)
    leaves = Leaves(params, wanted)
    traced = TracedLoss((lambda *inputs: loss(*inputs)[0]) if has_aux else loss, leaves, as_args(args), wanted)
    widest = FEWEST if options.get("mode") == "screen" else WIDEST  # a screen asks for few at a time
    try:
        report = measured(
            traced.side_by_side(widest) if wanted in (None, np.float64) and "bounds" not in options else traced,
            _claimed(gradient, traced) if gradient is not None else traced.gradient,
            leaves.arrays,
            traced.args,
            options,
            call_of(
                "jax.check(loss, params" + (", args=args" if args else ""),
                gradient=None if gradient is None else named("gradient"),
                dtype=dtype,
                has_aux=has_aux or None,
            ),
        )
        own = traced if gradient is None and dtype is None else None
        return concluded(report, own, remark(wanted, leaves.own), throw, began, lambda: traced.seconds)
    finally:
        traced.close()


def check_function(
    function: Callable[..., Any],
    inputs: Any,
    *,
    reference: Callable[..., Any] | None = None,
    order: int = 1,
    forward: bool = False,
    batched: bool = False,
    dtype: Any = None,
    **options: Any,
) -> Report:
    """Check the derivative of a function of arrays; called like ``jax.test_util.check_grads(function, inputs)``.

    Parameters
    ----------
    function : callable
        ``function(*inputs)``: a pytree of arrays, of which the floating ones count.
    inputs : tuple of pytree
        Where to check: by their floating leaves. Blocks have the names of the function's parameters.
    reference : callable, optional
        The same function, written plainly, for a kernel that runs in low precision alone; as of
        `fastcheck.torch.check_function`.
    order : {1, 2}
        2: check the derivative of ``jax.vjp``, a function of the inputs and of the cotangent; the first derivative is
        checked before.
    forward : bool
        Check forward mode (``jax.jvp``) in the place of reverse mode (``jax.vjp``); with ``order=2``, forward mode of
        reverse mode. A ``custom_vjp`` has no forward mode of its own.
    batched : bool
        Compare the derivative under vmap with that of one vector after another, too.
    dtype
        As in `check`.
    **options
        As for `fastcheck.check_vjp`, or `fastcheck.check_jvp`; there are no workers.

    Returns
    -------
    Report
        As of `fastcheck.check_vjp`, or `fastcheck.check_jvp`, the product being what jax returns.

    Raises
    ------
    InputError
        No input or no output is floating, or an option breaks a rule.
    LossError, GradientError, MissingDependencyError
        As in `check`.
    """
    framework("jax")
    began, throw = time.perf_counter(), bool(options.pop("throw", False))
    refuse_no_function("function", function)
    wanted, leaves = _dtype(dtype), _leaves_of(function, inputs, dtype)
    known, order = alone(function, reference, dtype, forward), validated_order(order, reference)
    traced = TracedFunction(lambda tree: known(*tree), leaves, (), wanted)
    call = call_of(
        "jax.check_function(function, inputs",
        reference=named(reference),
        order=order if order > 1 else None,
        forward=forward or None,
        batched=batched or None,
        dtype=dtype,
    )
    used = [traced]
    traced.pushes = forward and order == 1
    try:
        where = leaves.arrays if reference is None else in_double(leaves.arrays)
        options = options if reference is None else {"mode": "screen", **options}
        report, subject = _checked(traced, where, options, call), traced if dtype is None else None
        if reference is not None:
            used.append(TracedFunction(lambda tree: function(*tree), leaves))
            report, subject = compared(report, used[-1], traced, int(options.get("seed", 0))), None
        report = under_vmap(report, used[-1]) if batched else report
        if order == 2 and report.passed:
            used.append(again := reverse_of(traced, wanted, forward))
            twice_differentiable(again)
            report = cut_off_named(_checked(again, again.params(), options, call), again)
            report, subject = under_vmap(report, again) if batched else report, again if dtype is None else None
        elif order == 2:
            report = replace(report, findings=(FIRST, *report.findings))
        left = remark(wanted, leaves.own) if reference is None else []
        return concluded(report, subject, left, throw, began, lambda: sum(one.seconds for one in used))
    finally:
        for one in used:
            one.close()


def check_jvp(
    function: Callable[..., Any],
    inputs: Any,
    *,
    jvp: Callable[..., Any] | None = None,
    batched: bool = False,
    dtype: Any = None,
    **options: Any,
) -> Report:
    """Check a Jacobian-vector product of a function of arrays: that of ``jax.jvp``, or one of your own.

    Parameters
    ----------
    function, inputs, batched, dtype
        As in `check_function`.
    jvp : callable, optional
        ``jvp(inputs, tangents)`` returns J v, like what the function returns; both are tuples of pytrees, in which
        the tangents have in the place of what is not floating what the inputs have. By default ``jax.jvp``.
    **options
        As for `fastcheck.check_jvp`; there are no workers.

    Returns
    -------
    Report
        As of `fastcheck.check_jvp`.

    Raises
    ------
    InputError, LossError, GradientError, MissingDependencyError
        As in `check_function`.
    """
    framework("jax")
    began, throw = time.perf_counter(), bool(options.pop("throw", False))
    for name, given in (("function", function), ("jvp", jvp)):
        refuse_no_function(name, given)
    wanted, leaves = _dtype(dtype), _leaves_of(function, inputs, dtype)
    traced = TracedFunction(lambda tree: function(*tree), leaves, (), wanted)
    traced.pushes, traced.jvp = True, jvp
    call = call_of("jax.check_jvp(function, inputs", jvp=named(jvp), batched=batched or None, dtype=dtype)
    try:
        report = _checked(traced, leaves.arrays, options, call)
        report, subject = under_vmap(report, traced) if batched else report, traced if dtype is None else None
        return concluded(report, subject, remark(wanted, leaves.own), throw, began, lambda: traced.seconds)
    finally:
        traced.close()


def check_hvp(
    loss: Callable[..., Any],
    params: Any,
    *,
    hvp: Callable[..., Any] | None = None,
    args: tuple[Any, ...] = (),
    dtype: Any = None,
    **options: Any,
) -> Report:
    """Check a product with the Hessian of a loss: that of ``jax.jvp`` of ``jax.grad``, or one of your own.

    Parameters
    ----------
    loss, params, args, dtype
        As in `check`.
    hvp : callable, optional
        ``hvp(params, vector, *args)`` returns H v, a pytree like params; so is the vector. By default forward mode of
        ``jax.grad(loss)``.
    **options
        As for `fastcheck.check_hvp`; there are no workers.

    Returns
    -------
    Report
        As of `fastcheck.check_hvp`, of H v against differences of ``jax.grad``; where that is not right itself, as of
        `check`, with the finding ``"first_derivative"``.

    Raises
    ------
    InputError, LossError, GradientError, MissingDependencyError
        As in `check`.
    """
    framework("jax")
    refuse_forms(params, None)
    began, throw = time.perf_counter(), bool(options.pop("throw", False))
    for name, given in (("loss", loss), ("hvp", hvp)):
        refuse_no_function(name, given)
    wanted = _dtype(dtype)
    leaves = Leaves(params, wanted)
    traced = TracedLoss(loss, leaves, as_args(args), wanted)
    traced.hvp = hvp
    call = call_of("jax.check_hvp(loss, params" + (", args=args" if args else ""), hvp=named(hvp), dtype=dtype)
    try:
        report, subject = curvature(traced, traced, options, call)
        own = subject if dtype is None else None
        return concluded(report, own, remark(wanted, leaves.own), throw, began, lambda: traced.seconds)
    finally:
        traced.close()


def _leaves_of(function: Callable[..., Any], inputs: Any, dtype: Any) -> Leaves:
    """Return the leaves of the inputs of a function, under the names of its parameters."""
    given = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    return Leaves(given, _dtype(dtype), tuple(input_names(function, len(given))))


def _checked(traced: TracedFunction, where: Mapping[str, Any], options: Mapping[str, Any], call: str) -> Report:
    """Compare the product that jax returns with differences."""
    if traced.pushes:
        return multiplied(products.check_jvp, traced.outputs, traced.push_forward, where, options, call)
    return multiplied(products.check_vjp, traced.outputs, traced.pull_back, where, options, call)


def _claimed(gradient: Any, traced: TracedLoss) -> Any:
    """Return a function that returns the claimed gradient by name."""

    def given(tree: Mapping[str, Any], *args: Any) -> dict[str, Any]:
        found = traced.leaves.named(gradient)
        with suppress(Exception):  # where jax has nothing to say, the claim stands as it is
            return without_rounding(found, traced.gradient(tree, *args))
        return found

    def called(tree: Mapping[str, Any], *args: Any) -> dict[str, Any]:
        return traced.leaves.named(traced.run(claimed, tree, args))

    def claimed(*inputs: Any) -> Any:
        return gradient(*traced.inputs(*inputs))

    return called if callable(gradient) else given


def _dtype(dtype: Any) -> Any:
    found = None if dtype is None else np.dtype(dtype)
    if found in (None, np.float64, np.float32, np.float16):
        return found
    raise InputError(f"dtype={dtype!r} must be 'float64', 'float32' or 'float16', or None to have it chosen.")
