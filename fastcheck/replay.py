"""A random loss made one function: before every call, what it draws from is put into the same state.

Looked for are the global generators (Python's, numpy's, torch's where it is loaded) and every generator that the
function can reach: in its closure, defaults, attributes, arguments, the globals that it names, and in what those hold.
jax has no generators: there the place of a key that the function puts another into stands for one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import random
import sys
import threading
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from fastcheck.domain import Continued
from fastcheck.errors import LossError
from fastcheck.findings import Finding, Kind
from fastcheck.held import Slot
from fastcheck.losses import structured
from fastcheck.parallel.digest import codes, library_of

__all__ = ["Draws", "Replay", "Replayed", "global_generators", "said_of_draws", "same"]

MOST = 20_000  # values that are looked at; a generator lies near the function that uses it
RATES = (0.05, 0.95)  # of dropout
FEW = 8
_ONE_AT_A_TIME = threading.RLock()  # threads share the generators
_CLOSED = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
_BARE = (str, bytes, bytearray, int, float, complex, bool, type(None), np.ndarray, np.generic, range, slice)
_HOLDERS = (dict, OrderedDict, list, tuple, set)


class Draws:
    """The generators that some functions can reach, and the states that they were in.

    Parameters
    ----------
    *roots
        Functions and their arguments.
    """

    def __init__(self, *roots: Any) -> None:
        self._roots = roots
        self._found = {_id(source): (name, source, _state(source)) for name, source in _generators(roots)}

    def put_back(self) -> None:
        """Put all generators into the states they were in."""
        for _, source, state in self._found.values():
            _set_state(source, state)

    def moved(self) -> dict[Hashable, Any]:
        """Return the states that those are in now which are in another one, by id."""
        now = {key: _state(source) for key, (_, source, _) in self._found.items()}
        return {key: state for key, state in now.items() if not same(state, self._found[key][2])}

    def used_by(self, call: Callable[[], Any]) -> dict[Hashable, Any]:
        """Return what `moved` does after a call that starts from the states they were in."""
        self.put_back()
        call()
        return self.moved()

    def named(self, keys: Collection[Hashable]) -> str:
        """Return how some of them are called, for people."""
        return " and ".join(dict.fromkeys(name for key, (name, *_) in self._found.items() if key in keys))

    def rates(self) -> tuple[float, ...]:
        """Return the numbers that the functions know and that may be a rate of dropout."""
        low, high = RATES
        found = (value for _, value in _reached(self._roots) if type(value) is float and low <= value <= high)
        return tuple(islice(dict.fromkeys(found), FEW))

    def replayed(
        self, function: Callable[..., Any], args: tuple[Any, ...], used: Collection[Hashable] | None = None
    ) -> Callable[..., Any]:
        """Return a function whose every call starts from the states they were in: all of them, or those of some ids."""
        if isinstance(function, Continued):  # which calls it several times
            return dataclasses.replace(function, function=self.replayed(function.function, args, used))
        states = {}
        for key, (name, source) in _keyed((function, *args)).items():
            # one that was made since is replayed from where it is now
            _, _, state = self._found.setdefault(_id(source), (name, source, _state(source)))
            if used is None or _id(source) in used:
                states[key] = state
        return Replayed(function, states)

    def replayed_where_random(
        self, loss: Callable[..., Any], gradient: Any, tree: Any, args: tuple[Any, ...]
    ) -> tuple[Callable[..., Any], Any, str]:
        """Return a loss and its gradient, replayed where the loss draws, and what it draws from; one evaluation."""
        if not callable(gradient) or structured(loss):
            return loss, gradient, ""
        used: dict[Hashable, Any] = {}
        with contextlib.suppress(Exception):  # a check tells it better
            used = self.used_by(lambda: loss(tree, *args))
        self.put_back()
        if not used:
            return loss, gradient, ""
        return self.replayed(loss, args, used), self.replayed(gradient, args), self.named(used)


@dataclass(frozen=True)
class Replay:
    """What every evaluation of a random loss replays.

    Attributes
    ----------
    sources : str
        What it draws from, for people.
    anew : bool
        The gradient draws from them too, and other numbers than the loss.
    mean : Finding or None
        Where the gradient is the same whatever the loss draws: what to say if that is not the gradient of this loss.
    rates : tuple of float
        Numbers that may be a rate of its dropout.
    """

    sources: str
    anew: bool
    mean: Finding | None = None
    rates: tuple[float, ...] = ()

    @property
    def scales(self) -> tuple[float, ...]:
        """What a gradient is multiplied by that forgets the scale of one dropout, or of two."""
        kept = [share for rate in self.rates for share in (rate, 1 - rate)]
        return (*kept, *(share**2 for share in kept))


def said_of_draws(sources: str, term: str | None = None) -> Finding:
    """Return the finding of what every evaluation of a random loss, or of a term of one, replayed."""
    return Finding(
        Kind.REPLAYED,
        term,
        f"{term or 'The loss'} draws from {sources}. Every evaluation, and the gradient, replayed the same draws, each "
        f"in its own order: the verdict is of the {'term' if term else 'loss'} with those.",
        {"sources": sources},
    )


class Replayed:
    """A function of ``(params, *args)`` before each call of which its generators are put into the same states.

    In a worker process the generators are those that the function reaches there; they are found in the same order.

    Parameters
    ----------
    function : callable
        The random function.
    states : dict
        Of its generators, by their keys; see `_keyed`.
    """

    def __init__(self, function: Callable[..., Any], states: dict[str | int, Any]) -> None:
        self.function = function
        self._states = states
        self._sources: list[tuple[Any, Any]] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Replayed, (self.function, self._states)

    def __call__(self, tree: Any, *args: Any) -> Any:
        """Call the function."""
        with _ONE_AT_A_TIME:
            if self._sources is None:
                self._sources = self._found(args)
            for source, state in self._sources:
                _set_state(source, state)
            return self.function(tree, *args)

    def _found(self, args: tuple[Any, ...]) -> list[tuple[Any, Any]]:
        """Return the generators with their states."""
        found = _keyed((self.function, *args))
        if not self._states.keys() <= found.keys():
            raise LossError(
                "the loss draws at random, and a worker does not find all that it draws from. Use backend='threads' or "
                "'serial', or fix the seed inside the loss."
            )
        return [(found[key][1], state) for key, state in self._states.items()]


def _keyed(roots: tuple[Any, ...]) -> dict[str | int, tuple[str, Any]]:
    """Return names and generators by what is the same in every process: a global one's name, or in which place it is.

    A process that has not loaded torch has fewer global ones.
    """
    found = list(_generators(roots))
    own = [(name, source) for name, source in found if " global " not in name]
    return {name: (name, source) for name, source in found if " global " in name} | dict(enumerate(own))


def _generators(roots: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    """Yield the generators that can be reached, with a name each, in an order that is the same in every process."""
    torch = sys.modules.get("torch")
    own = getattr(torch, "Generator", None)
    kinds = (Slot, np.random.RandomState, np.random.BitGenerator, random.Random, *([own] if own is not None else []))
    known = [
        ("Python's global generator (random)", random.getstate.__self__),  # type: ignore[attr-defined]
        ("numpy's global generator (numpy.random)", np.random.get_state.__self__),  # type: ignore[attr-defined]
        *((f"torch's global generator ({source.device})", source) for source in global_generators(torch)),
    ]
    yield from known
    seen = {_id(source) for _, source in known}
    for name, value in _reached(roots):
        source = value.bit_generator if isinstance(value, np.random.Generator) else value
        if isinstance(source, kinds) and not isinstance(source, random.SystemRandom) and _id(source) not in seen:
            seen.add(_id(source))
            yield f"the generator {name}".rstrip(), source


def _reached(roots: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    """Yield the numbers and objects that can be reached, with their names, those nearest to the first root first."""
    waiting = deque(("", root) for root in roots)
    seen: dict[int, Any] = {}  # held, so that no other object gets the id
    for _ in range(MOST):
        if not waiting:
            return
        name, value = waiting.popleft()
        if type(value) in _HOLDERS and not value:  # most of what a module of torch has
            continue
        if isinstance(value, _BARE) or id(value) in seen or hasattr(type(value), "__array__"):
            if type(value) is float:
                yield name, value
            continue
        seen[id(value)] = value
        yield name, value
        if isinstance(value, Slot):
            continue
        with contextlib.suppress(Exception):  # an object may be of any kind, and say of itself what it likes
            waiting.extend(list(islice(_inside(value), max(0, MOST - len(waiting)))))


def global_generators(torch: Any) -> list[Any]:
    """Return the global generators of torch, where it is loaded: of the CPU, and of the GPUs that are in use."""
    if not hasattr(torch, "default_generator"):
        return []
    return [torch.default_generator, *(torch.cuda.default_generators if torch.cuda.is_initialized() else ())]


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an object holds or a function uses, with its name."""
    if isinstance(value, types.FunctionType):
        yield from _used(value)
    elif isinstance(value, types.MethodType):
        yield from (("", value.__self__), ("", value.__func__))
    elif type(value).__module__.startswith("numba.") and hasattr(value, "py_func"):
        yield "", value.py_func  # and not the compiler, which holds thousands of things
    elif isinstance(value, functools.partial):
        yield from [("", part) for part in (value.func, *value.args)]
        yield from value.keywords.items()
    elif isinstance(value, dict):
        yield from ((str(key), _place(value, key, part)) for key, part in value.items())
    elif isinstance(value, list):
        yield from (("", _place(value, k, part)) for k, part in enumerate(value))
    elif isinstance(value, (tuple, set, frozenset, deque)):
        yield from (("", part) for part in value)
    elif isinstance(value, type):
        if library_of(value.__module__) is None:
            yield from [("", base) for base in value.__bases__]
            yield from vars(value).items()
    elif not isinstance(value, (types.ModuleType, *_CLOSED)):
        yield from _held(value)


def _used(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield what a function of the user's finds in its closure, defaults and attributes, and the globals it names."""
    if library_of(function.__module__ or "") is not None:
        return
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, _place(cell, "cell_contents", cell.cell_contents)
        except ValueError:  # not filled yet
            continue
    yield from [("", part) for part in function.__defaults__ or ()]
    yield from (function.__kwdefaults__ or {}).items()
    yield from vars(function).items()
    yield from [("", part) for part in function.__code__.co_consts if type(part) is float]
    names = dict.fromkeys(name for code in codes(function.__code__) for name in code.co_names)
    for name in names:
        value = function.__globals__.get(name)
        yield name, _place(function.__globals__, name, value)
        if isinstance(value, types.ModuleType) and library_of(value.__name__) is None:
            yield from [(part, vars(value)[part]) for part in names if part in vars(value)]


def _held(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of an object, what it wraps, and its class."""
    yield from ((name, _place(value, name, part)) for name, part in getattr(value, "__dict__", {}).items())
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            yield name, getattr(value, name, None)
    for name in ("__wrapped__", "__func__", "__self__"):  # of a cache, a static method, a method of a generator
        if hasattr(type(value), name):
            yield "", getattr(value, name, None)
    yield "", type(value)


def _place(holder: Any, key: Any, value: Any) -> Any:
    """Return what is in a place; the place itself where that is a key of jax."""
    jax: Any = sys.modules.get("jax")
    array: Any = getattr(jax, "Array", ())
    if isinstance(value, _BARE) or not isinstance(value, array):
        return value
    typed = jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)
    return Slot(holder, key) if typed or (value.dtype == np.uint32 and value.shape == (2,)) else value


def _id(source: Any) -> Hashable:
    return (id(source.holder), source.key) if isinstance(source, Slot) else id(source)


def _state(source: Any) -> Any:
    """Return the state of a generator, as plain data."""
    if isinstance(source, Slot):
        return source.get()
    if isinstance(source, np.random.RandomState):
        return source.get_state(legacy=False)
    if isinstance(source, np.random.BitGenerator):
        return source.state
    return source.getstate() if isinstance(source, random.Random) else source.get_state().numpy()


def _set_state(source: Any, state: Any) -> None:
    """Put a generator into a state."""
    if isinstance(source, Slot):
        source.set(state)
    elif isinstance(source, np.random.RandomState):
        source.set_state(state)
    elif isinstance(source, np.random.BitGenerator):
        source.state = state
    elif isinstance(source, random.Random):
        source.setstate(state)
    else:
        source.set_state(sys.modules["torch"].from_numpy(state.copy()))


def same(a: Any, b: Any) -> bool:
    """Say whether two states are the same."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(np.all(a == b))
