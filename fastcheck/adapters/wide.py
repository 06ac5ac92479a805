"""A traced function of jax, evaluated in double precision: every float of its jaxpr is replaced by one of 64 bits.

The user's function is only ever traced as the user runs it, derivatives included; what is widened is the program that
comes out. So its casts, its float32 constants and the arrays in its closures are kept wide, random draws stay the same
ones, and no cache of jax ever sees a trace of the user's functions with 64 bits enabled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fastcheck.adapters import framework

__all__ = ["Unsupported", "evaluate", "fingerprint", "wide_dtype"]

INLINED = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
    "custom_vmap_call": "call",
}
"""Primitives that call a function, and the parameter that holds it."""

BITS = ("bitcast_convert_type", "nextafter", "rng_uniform")  # of the numbers as they are
OPAQUE = ("callback", "ffi", "pallas", "shard_map", "custom_partitioning", "infeed", "outfeed", "custom_call")
VAGUE = (" at 0x", "rray(", "{ lambda")  # in the text of a parameter: another one may look the same
SCATTERS = ("scatter", "scatter_add", "scatter_mul", "scatter_min", "scatter_max")  # or with a hyphen


class Unsupported(Exception):
    """A primitive that can't be widened."""


def wide_dtype(dtype: Any) -> Any:
    """Return the double precision of a floating or complex dtype of jax; others as they are."""
    issubdtype = framework("jax").numpy.issubdtype
    if issubdtype(dtype, np.floating):
        return np.dtype(np.float64)
    return np.dtype(np.complex128) if issubdtype(dtype, np.complexfloating) else dtype


def evaluate(jaxpr: Any, consts: Sequence[Any], given: Sequence[Any], narrowed: set[str]) -> list[Any]:
    """Evaluate a jaxpr in double precision, its floating inputs widened; to be traced with 64 bits enabled.

    `narrowed` is given the dtypes that wider numbers are cast to.

    Raises
    ------
    Unsupported
        There is a primitive in it that can't be followed: a callback, a kernel.
    """
    found: dict[Any, Any] = {}
    for variable, value in zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *given], strict=True):
        found[variable] = _wide(value, variable.aval)

    def read(atom: Any) -> Any:
        return _wide(atom.val, atom.aval) if hasattr(atom, "val") else found[atom]

    for eqn in jaxpr.eqns:
        outs = _apply(eqn, [read(atom) for atom in eqn.invars], narrowed)
        for variable, value in zip(eqn.outvars, outs, strict=True):
            found[variable] = value
    return [read(atom) for atom in jaxpr.outvars]


def fingerprint(closed: Any) -> bytes | None:
    """Return what tells a traced program from others, its own constants left out; None where that can't be told."""
    hasher = hashlib.sha256()
    try:
        for part in _told(closed.jaxpr):
            data = part if isinstance(part, bytes) else repr(part).encode()
            hasher.update(b"%d:" % len(data))
            hasher.update(data)
    except (Unsupported, TypeError, KeyError):  # a key of random numbers has no bytes, another jax other parameters
        return None
    return hasher.digest()


def _told(jaxpr: Any) -> Iterator[Any]:
    """Yield, as text and bytes, what is computed, of which variables and with which parameters.

    That is what a printed jaxpr tells, in a fifth of the time, and the constants inside.
    """
    numbers = {variable: number for number, variable in enumerate((*jaxpr.constvars, *jaxpr.invars))}

    def place(atom: Any) -> Any:
        return (str(atom.aval), np.asarray(atom.val).tobytes()) if hasattr(atom, "val") else numbers[atom]

    yield [str(variable.aval) for variable in jaxpr.constvars]
    for eqn in jaxpr.eqns:
        name, params = eqn.primitive.name, eqn.params
        if any(word in name for word in OPAQUE):
            raise Unsupported(name)
        if name.startswith("custom_") and name in INLINED:  # its rules have been applied, or are not used
            params = {INLINED[name]: params[INLINED[name]]}
        yield name, *map(place, eqn.invars)
        for key, value in params.items():
            subs = list(_subs(value))
            text = f"{key}={len(subs) or repr(value)}"
            if not subs and any(sign in text for sign in VAGUE):
                raise Unsupported(key)
            yield text
            for sub, consts in subs:
                yield from (np.asarray(const).tobytes() for const in consts)
                yield from _told(sub)
        for variable in eqn.outvars:
            numbers[variable] = len(numbers)
    yield [place(atom) for atom in jaxpr.outvars]


def _subs(value: Any) -> Iterator[tuple[Any, Sequence[Any]]]:
    """Yield the jaxprs, with their constants, that a parameter of a primitive is, or holds."""
    for each in value if isinstance(value, (tuple, list)) else (value,):
        if hasattr(each, "jaxpr") and hasattr(each, "consts"):
            yield each.jaxpr, each.consts
        elif hasattr(each, "eqns"):
            yield each, ()


def _wide(value: Any, aval: Any) -> Any:
    jax = framework("jax")
    dtype = getattr(aval, "dtype", None)
    if dtype is None or jax.numpy.issubdtype(dtype, jax.dtypes.extended):
        return value
    target = wide_dtype(dtype)
    if isinstance(value, jax.Array):  # a tracer too
        return value if value.dtype == target else value.astype(target)
    return jax.numpy.asarray(np.asarray(value), dtype=target)


def _apply(eqn: Any, values: list[Any], narrowed: set[str]) -> list[Any]:
    name, params = eqn.primitive.name, eqn.params
    if name in INLINED:
        sub = params[INLINED[name]]
        return (
            evaluate(sub.jaxpr, sub.consts, values, narrowed)
            if hasattr(sub, "consts")
            else evaluate(sub, (), values, narrowed)
        )
    rule = RULES.get(name)
    if rule is not None:
        return list(rule(params, values, narrowed))
    if name.replace("-", "_") in SCATTERS:
        return [_scatter(name.replace("-", "_"), params, values)]
    if name in BITS:
        return _as_they_are(eqn, values)
    if any(True for value in params.values() for _ in _subs(value)) or any(word in name for word in OPAQUE):
        raise Unsupported(name)
    if name in ("convert_element_type", "reduce_precision"):
        _note(eqn, narrowed)
        if name == "reduce_precision":
            return values
    out = eqn.primitive.bind(*values, **{key: _param(key, value) for key, value in params.items()})
    return list(out) if eqn.primitive.multiple_results else [out]


def _param(key: str, value: Any) -> Any:
    """Return a parameter of a primitive with its dtypes widened."""
    if key == "precision" and not isinstance(value, (tuple, type(None))) and "Algorithm" in type(value).__name__:
        return None
    is_dtype = isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic))
    return wide_dtype(value) if is_dtype else value


def _note(eqn: Any, narrowed: set[str]) -> None:
    """Note a cast of a float to a narrower one."""
    jax = framework("jax")
    given, made = eqn.invars[0].aval.dtype, eqn.outvars[0].aval.dtype
    floats = all(jax.numpy.issubdtype(dtype, np.inexact) for dtype in (given, made))
    if floats and jax.numpy.finfo(made).eps > jax.numpy.finfo(given).eps:
        narrowed.add(str(made))


def _as_they_are(eqn: Any, values: list[Any]) -> list[Any]:
    """Apply a primitive to the numbers in their own precision, and widen what comes out."""
    own = [value.astype(atom.aval.dtype) for value, atom in zip(values, eqn.invars, strict=True)]
    out = eqn.primitive.bind(*own, **eqn.params)
    outs = list(out) if eqn.primitive.multiple_results else [out]
    return [_wide(value, variable.aval) for value, variable in zip(outs, eqn.outvars, strict=True)]


def _scatter(name: str, params: Any, values: list[Any]) -> Any:
    scatter = getattr(framework("jax").lax, name)
    operand, indices, updates = values
    known = ("indices_are_sorted", "unique_indices", "mode")
    return scatter(operand, indices, updates, params["dimension_numbers"], **{key: params[key] for key in known})


def _scan(params: Any, values: list[Any], narrowed: set[str]) -> list[Any]:
    consts, carry, xs = _split(values, params["num_consts"], params["num_carry"])
    sub, count = params["jaxpr"], params["num_carry"]

    def body(carry: Any, x: Any) -> Any:
        outs = evaluate(sub.jaxpr, sub.consts, [*consts, *carry, *x], narrowed)
        return outs[:count], outs[count:]

    lax = framework("jax").lax
    given = {key: params[key] for key in ("length", "reverse", "unroll")}
    carry, ys = lax.scan(body, carry, xs, **given)
    return [*carry, *ys]


def _while(params: Any, values: list[Any], narrowed: set[str]) -> list[Any]:
    asked, done, carry = _split(values, params["cond_nconsts"], params["body_nconsts"])
    cond, body = params["cond_jaxpr"], params["body_jaxpr"]
    found = framework("jax").lax.while_loop(
        lambda x: evaluate(cond.jaxpr, cond.consts, [*asked, *x], narrowed)[0],
        lambda x: evaluate(body.jaxpr, body.consts, [*done, *x], narrowed),
        carry,
    )
    return list(found)


def _cond(params: Any, values: list[Any], narrowed: set[str]) -> list[Any]:
    def branch(sub: Any) -> Callable[..., Any]:
        return lambda *given: evaluate(sub.jaxpr, sub.consts, given, narrowed)

    index, *given = values
    return list(framework("jax").lax.switch(index, [branch(sub) for sub in params["branches"]], *given))


def _linear_solve(params: Any, values: list[Any], narrowed: set[str]) -> list[Any]:
    lengths, jaxprs = params["const_lengths"], params["jaxprs"]
    names, consts, rest = ("matvec", "vecmat", "solve", "transpose_solve"), {}, values
    for name in names:
        count = getattr(lengths, name)
        consts[name], rest = rest[:count], rest[count:]

    def called(name: str) -> Callable[[Any], Any]:
        sub = getattr(jaxprs, name)
        return lambda x: evaluate(sub.jaxpr, sub.consts, [*consts[name], *x], narrowed)

    solve = called("solve")
    return list(
        framework("jax").lax.custom_linear_solve(called("matvec"), list(rest), lambda _, b: solve(b), symmetric=False)
    )


def _split(values: list[Any], first: int, second: int) -> tuple[list[Any], list[Any], list[Any]]:
    return values[:first], values[first : first + second], values[first + second :]


RULES: dict[str, Callable[[Any, list[Any], set[str]], list[Any]]] = {
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "custom_linear_solve": _linear_solve,
}
