"""The gradients of torch: of a module's parameters, and of any differentiable function of tensors.

What is checked is what autograd returns, with everything that takes part in it: custom ``torch.autograd.Function``,
kernels, hooks on tensors. The loss it is compared with is run forward only. torch is imported when it is first needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fastcheck import products
from fastcheck.adapters import framework, refuse_forms
from fastcheck.adapters.borrowed import Borrowed
from fastcheck.adapters.calls import called_otherwise, under_vmap
from fastcheck.adapters.checking import alone, call_of, concluded, measured, multiplied, named, refuse_no_function
from fastcheck.adapters.curvature import curvature
from fastcheck.adapters.described import measured_by_layers
from fastcheck.adapters.hints import frozen, hinted, remarks, replayed
from fastcheck.adapters.precision import in_double
from fastcheck.adapters.second import (
    FIRST,
    backward_of,
    cut_off_named,
    twice_differentiable,
    validated_order,
)
from fastcheck.adapters.tensor_function import TensorFunction
from fastcheck.adapters.tensors import Start, dtype_of, undisturbed
from fastcheck.errors import InputError
from fastcheck.products.kernels import compared
from fastcheck.report import Report
from fastcheck.settings import as_args

__all__ = ["check", "check_function", "check_hvp", "check_jvp"]


def check(
    loss: Callable[..., Any],
    model: Any,
    *,
    args: tuple[Any, ...] = (),
    gradient: Any = None,
    dtype: Any = None,
    fixed_rng: bool = False,
    threads: int = 1,
    **options: Any,
) -> Report:
    """Compare the gradient of a module's parameters with finite differences of the loss.

    Parameters
    ----------
    loss : callable
        ``loss(model, *args)``, or ``loss()`` which refers to the model itself; returns a scalar tensor.
    model : torch.nn.Module, or nested dict, list, tuple of tensors
        Its parameters that require a gradient are checked where they are; blocks are named as in
        ``named_parameters()``: ``"encoder.0.weight"``. Tied weights are one block.
    args : tuple
        Further positional arguments of the loss: the batch.
    gradient : mapping or callable, optional
        The gradient to check, by name (``{name: p.grad for name, p in model.named_parameters()}``), or a function
        of ``(model, *args)`` that returns it. By default what autograd returns for the loss.
    dtype : torch.dtype, optional
        In which to evaluate. By default parameters of less than float64, the buffers and the floating tensors of args
        are converted to that, and autograd's gradient in their own precision is then compared with the one checked;
        if the loss refuses float64, it is checked as it is. ``torch.float64`` and ``torch.float32`` allow that alone.
    fixed_rng : bool
        Give every evaluation the same random draws (of dropout, say), those of ``torch.manual_seed(seed)``.
    threads : int
        Threads of torch in an evaluation. More than one pay for large modules on an idle machine; on a busy one they
        wait for each other.
    **options
        As for `fastcheck.check`: mode, samples, blocks, step, scheme, tolerance, confidence, seed, budget, checkpoint,
        progress, throw. There are no workers: a module can't be at two places at once.

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
        torch is not installed.

    Notes
    -----
    Parameters, their ``grad``, buffers (running statistics), training modes and the states of torch's generators are
    bit for bit what they were when this returns or raises. During the check the ``data`` of the parameters are views
    into a private copy, and every evaluation starts from the same buffers.
    """
    torch = framework("torch")
    refuse_forms(model, gradient)
    began, throw = time.perf_counter(), bool(options.pop("throw", False))
    if not callable(loss) or (isinstance(loss, torch.nn.Module) and not isinstance(model, torch.nn.Module)):
        raise InputError(
            f"loss (type={type(loss).__name__}) must be a function that returns a scalar tensor: call "
            "check(loss, model), the loss first."
        )
    start = _start(torch, threads, fixed_rng, options, replays=options.get("replay", True) is not False)
    borrowed = Borrowed(loss, model, gradient, as_args(args), dtype_of(torch, dtype), start)
    with undisturbed(torch, threads), borrowed:
        call = call_of(
            "torch.check(loss, model" + (", args=args" if args else ""),
            gradient=None if gradient is None else named("gradient"),
            dtype=dtype,
            fixed_rng=fixed_rng or None,
            threads=threads if threads > 1 else None,
        )
        report = measured_by_layers(borrowed, options, call)
        if report is None or not report.passed:  # a gradient is accused by its loss alone
            report = measured(borrowed.value, borrowed.gradient, borrowed.params(), borrowed.args, options, call)
        report = hinted(report, borrowed) if gradient is None else report
        own = borrowed if gradient is None and dtype is None else None
        return concluded(report, own, [*remarks(borrowed, report), *replayed(start)], throw, began)


def check_function(
    function: Callable[..., Any],
    inputs: Any,
    *,
    reference: Callable[..., Any] | None = None,
    order: int = 1,
    forward: bool = False,
    batched: bool = False,
    dtype: Any = None,
    fixed_rng: bool = False,
    threads: int = 1,
    **options: Any,
) -> Report:
    """Check the derivative of a function of tensors; called like ``torch.autograd.gradcheck(function, inputs)``.

    Parameters
    ----------
    function : callable
        ``function(*inputs)``: a tensor, or a tuple or list of them. ``apply`` of a ``torch.autograd.Function``, say.
    inputs : tensor or sequence
        The tensors that require a gradient are checked; all floating ones, if none does. Blocks have the names of the
        function's parameters, or ``"input0"``, ``"input1"``.
    reference : callable, optional
        The same function, written plainly, for a kernel that runs in low precision alone. Its own backward pass is
        checked in float64 against differences; the kernel's outputs and gradients, in the precision of the inputs, are
        then compared with it, in units of what the reference itself loses in that precision.
    order : {1, 2}
        2: check the derivative of the backward pass, a function of the inputs and of the cotangent, as
        ``gradgradcheck``; the first derivative is checked before.
    forward : bool
        Check forward mode (a custom ``jvp``) in the place of the backward pass; with ``order=2``, forward mode of the
        backward pass.
    batched : bool
        Compare the derivative under vmap (``is_grads_batched``) with that of one vector after another, too.
    dtype, fixed_rng, threads
        As in `check`.
    **options
        As for `fastcheck.check_vjp`, or `fastcheck.check_jvp`; there are no workers.

    Returns
    -------
    Report
        As of `fastcheck.check_vjp`, or `fastcheck.check_jvp`, the product being what autograd returns. With
        ``order=2`` the inputs are those of the function and the cotangents, the outputs ``grad_x``.

    Raises
    ------
    InputError
        No input or no output can be differentiated, or an option breaks a rule.
    LossError, GradientError, MissingDependencyError
        As in `check`.
    """
    torch = framework("torch")
    began, throw = time.perf_counter(), bool(options.pop("throw", False))
    refuse_no_function("function", function)
    order = validated_order(order, reference)
    start = _start(torch, threads, fixed_rng, options)
    known = alone(function, reference, dtype, forward)
    call = call_of(
        "torch.check_function(function, inputs",
        reference=named(reference),
        order=order if order > 1 else None,
        forward=forward or None,
        batched=batched or None,
        dtype=dtype,
        fixed_rng=fixed_rng or None,
        threads=threads if threads > 1 else None,
    )
    with undisturbed(torch, threads):
        kernel = TensorFunction(function, inputs, dtype_of(torch, dtype), start, pushes=forward and order == 1)
        if reference is not None:
            tensors = TensorFunction(known, inputs, None, start, kernel.names)
            report = _checked(tensors, {"mode": "screen", **options}, call, in_double(tensors.params()))
            report = compared(report, kernel, tensors, int(options.get("seed", 0)))
            return concluded(_as_called(report, kernel, batched), None, [], throw, began)
        report = _as_called(_checked(kernel, options, call), kernel, batched)
        checked = kernel
        if order == 2 and report.passed:
            checked = backward_of(kernel, start, forward)
            twice_differentiable(checked)
            report = cut_off_named(_as_called(_checked(checked, options, call), checked, batched), checked)
        elif order == 2:
            report = replace(report, findings=(FIRST, *report.findings))
        left = [frozen(kernel.left_out)] if kernel.left_out else []
        return concluded(report, checked if dtype is None else None, left, throw, began)


def check_jvp(
    function: Callable[..., Any],
    inputs: Any,
    *,
    jvp: Callable[..., Any] | None = None,
    batched: bool = False,
    dtype: Any = None,
    fixed_rng: bool = False,
    threads: int = 1,
    **options: Any,
) -> Report:
    """Check a Jacobian-vector product of a function of tensors: that of forward mode, or one of your own.

    Parameters
    ----------
    function, inputs, batched, dtype, fixed_rng, threads
        As in `check_function`.
    jvp : callable, optional
        ``jvp(inputs, tangents)`` returns J v, like what the function returns; inputs and tangents are tuples, the
        latter of the inputs that are differentiated. By default ``torch.autograd.forward_ad``.
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
    torch = framework("torch")
    began, throw = time.perf_counter(), bool(options.pop("throw", False))
    for name, given in (("function", function), ("jvp", jvp)):
        refuse_no_function(name, given)
    start = _start(torch, threads, fixed_rng, options)
    call = call_of(
        "torch.check_jvp(function, inputs",
        jvp=named(jvp),
        batched=batched or None,
        dtype=dtype,
        fixed_rng=fixed_rng or None,
        threads=threads if threads > 1 else None,
    )
    with undisturbed(torch, threads):
        tensors = TensorFunction(function, inputs, dtype_of(torch, dtype), start, pushes=True, jvp=jvp)
        report = _as_called(_checked(tensors, options, call), tensors, batched)
        left = [frozen(tensors.left_out)] if tensors.left_out else []
        return concluded(report, tensors if dtype is None else None, left, throw, began)


def check_hvp(
    loss: Callable[..., Any],
    model: Any,
    *,
    hvp: Callable[..., Any] | None = None,
    args: tuple[Any, ...] = (),
    dtype: Any = None,
    fixed_rng: bool = False,
    threads: int = 1,
    **options: Any,
) -> Report:
    """Check a product with the Hessian of a loss by a module's parameters: autograd's, or one of your own.

    Parameters
    ----------
    loss, model, args, dtype, fixed_rng, threads
        As in `check`.
    hvp : callable, optional
        ``hvp(model, vector, *args)`` returns H v by name of the parameters; the vector is a dict of tensors by those
        names. By default the backward pass of autograd's backward pass.
    **options
        As for `fastcheck.check_hvp`; there are no workers.

    Returns
    -------
    Report
        As of `fastcheck.check_hvp`, of H v against differences of autograd's gradient; where that is not right
        itself, as of `check`, with the finding ``"first_derivative"``.

    Raises
    ------
    InputError, LossError, GradientError, MissingDependencyError
        As in `check`.
    """
    torch = framework("torch")
    refuse_forms(model, None)
    began, throw = time.perf_counter(), bool(options.pop("throw", False))
    for name, given in (("loss", loss), ("hvp", hvp)):
        refuse_no_function(name, given)
    start = _start(torch, threads, fixed_rng, options)
    borrowed = Borrowed(loss, model, None, as_args(args), dtype_of(torch, dtype), start, hvp)
    call = call_of(
        "torch.check_hvp(loss, model" + (", args=args" if args else ""),
        hvp=named(hvp),
        dtype=dtype,
        fixed_rng=fixed_rng or None,
        threads=threads if threads > 1 else None,
    )
    with undisturbed(torch, threads), borrowed:
        report, subject = curvature(borrowed, borrowed.value, options, call)
        return concluded(report, subject if dtype is None else None, remarks(borrowed, report), throw, began)


def _checked(tensors: TensorFunction, options: Mapping[str, Any], call: str, where: Any = None) -> Report:
    """Compare the product that autograd returns with differences."""
    where = tensors.params() if where is None else where
    if tensors.pushes:
        return multiplied(products.check_jvp, tensors.outputs, tensors.push_forward, where, options, call)
    return multiplied(products.check_vjp, tensors.outputs, tensors.pull_back, where, options, call)


def _as_called(report: Report, tensors: TensorFunction, batched: bool) -> Report:
    """Compare the product with itself, as autograd may call it."""
    report = report if tensors.pushes else called_otherwise(report, tensors)
    return under_vmap(report, tensors) if batched else report


def _start(torch: Any, threads: int, fixed_rng: bool, options: Mapping[str, Any], replays: bool = False) -> Start:
    """Return what every evaluation starts with."""
    return Start(torch, threads, int(options.get("seed", 0)) if fixed_rng else None, replays)
