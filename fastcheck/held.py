"""attributes(): parameters that an object holds; its functions are called with ``args`` alone.

Before each call the attributes are set to the arrays of a private theta, and afterwards to what they were. An array
that the object holds under a second name or in a list is replaced there too. Where others are views of its memory
(one flat vector and its parts), the values are written into that memory instead, and back.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.errors import InputError

__all__ = ["Attributes", "Called", "Slot", "attributes"]

# -- places in the user's objects: attributes, items of dicts and of lists --------------------------------------------


DEEP = 4  # containers inside containers that are looked into for a second name of an array
_LIBRARIES = {*sys.stdlib_module_names, "numpy", "scipy", "pandas", "torch", "jax", "tensorflow"} - {"types"}


@dataclass(frozen=True)
class Slot:
    """One place that holds an array: an attribute, an item of a dict, or of a list."""

    holder: Any
    key: Any

    def get(self) -> Any:
        """Return what is there."""
        if isinstance(self.holder, (Mapping, list)):
            return self.holder[self.key]
        return getattr(self.holder, self.key)

    def set(self, value: Any) -> None:
        """Put something else there."""
        if isinstance(self.holder, (MutableMapping, list)):
            self.holder[self.key] = value
        else:
            setattr(self.holder, self.key, value)


def _slot_of(target: Any, name: str) -> Slot:
    """Return the place that a name with dots leads to."""
    holder = target
    if not (isinstance(target, Mapping) and name in target):
        *path, name_there = name.split(".")
        try:
            for part in path:
                holder = Slot(holder, int(part) if isinstance(holder, list) else part).get()
            slot = Slot(holder, int(name_there) if isinstance(holder, list) else name_there)
            slot.get()
        except (AttributeError, KeyError, IndexError, ValueError, TypeError) as error:
            there = ", ".join(repr(key) for key, value in _held_by(target) if _is_float(value)) or "none"
            raise InputError(
                f"attributes(..., {name!r}): the {type(target).__name__} object has no {name!r}; its own float arrays: "
                f"{there}."
            ) from error
        return slot
    return Slot(holder, name)


def _held_by(holder: Any) -> list[tuple[Any, Any]]:
    """Return what an object, a dict or a list holds itself."""
    if isinstance(holder, Mapping):
        return list(holder.items())
    return list(enumerate(holder)) if isinstance(holder, list) else list(getattr(holder, "__dict__", {}).items())


def _holders(target: Any, depth: int = DEEP, seen: set[int] | None = None) -> Iterator[Any]:
    """Yield an object, and the dicts, lists and objects that it holds."""
    seen = set() if seen is None else seen
    if id(target) in seen or not depth or isinstance(target, (type, types.ModuleType, types.FunctionType)):
        return
    seen.add(id(target))
    yield target
    for _, value in _held_by(target):
        if isinstance(value, (dict, list)) or (hasattr(value, "__dict__") and not _is_of_a_library(value)):
            yield from _holders(value, depth - 1, seen)


def _is_of_a_library(value: Any) -> bool:
    """Say whether an object is none of the user's classes: its insides are not for us."""
    return type(value).__module__.partition(".")[0] in _LIBRARIES


def _is_float(value: Any) -> bool:
    """Say whether this is an array of real or complex floats."""
    return isinstance(value, np.ndarray) and value.dtype.kind in "fc"


def _put_back(before: list[tuple[Slot, Any]], copies: list[tuple[NDArray[Any], NDArray[Any]]]) -> None:
    """Put back what was in some places, and the contents of some arrays."""
    for slot, value in before:
        slot.set(value)
    for array, copy in copies:
        array[...] = copy


def _all_back(before: list[tuple[Any, list[tuple[Any, Any]]]], copies: list[tuple[NDArray[Any], NDArray[Any]]]) -> None:
    """Put back all that some objects held, and the contents of some arrays."""
    for holder, held in before:
        if isinstance(holder, list):
            holder[:] = [value for _, value in held]
            continue
        there = holder if isinstance(holder, MutableMapping) else getattr(holder, "__dict__", {})
        for key in there.keys() - dict(held).keys():
            del there[key]
        for key, value in held:
            there[key] = value
    for array, copy in copies:
        array[...] = copy


# -- attributes -------------------------------------------------------------------------------------------------------


_ONE_AT_A_TIME = threading.RLock()  # threads share the object, whose attributes can be set to one theta only


def attributes(target: Any, *names: str) -> Attributes:
    """Take attributes of an object, or items of a dict, as the parameters.

    Parameters
    ----------
    target : object or dict
        The net, or a dict that it holds, as ``net.params``.
    *names : str
        Names of float arrays, or of lists and dicts of such, with dots into what it holds (``"layers.0.W"``); without
        any, all float arrays that it holds itself.

    Returns
    -------
    fastcheck.held.Attributes
        To be passed as params. Loss and gradient are then called with ``args`` alone, and find the parameters where
        they always do; all is put back bit for bit, also after an exception or Ctrl-C.

    Raises
    ------
    InputError
        There is no such attribute, it is no float array, or two of them share memory.

    Examples
    --------
    >>> import numpy as np, fastcheck
    >>> class Net:
    ...     def __init__(self):
    ...         self.w = np.array([1.0, 2.0])
    ...     def loss(self, x):
    ...         return np.sum((self.w - x) ** 2)
    ...     def backward(self, x):
    ...         return {"dw": 2 * (self.w - x)}
    >>> net = Net()
    >>> fastcheck.check(net.loss, net.backward, fastcheck.attributes(net, "w"), args=(np.ones(2),)).passed
    True
    """
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise InputError(
            f"names={wrong[0]!r} (type={type(wrong[0]).__name__}) must be a text, as in "
            "fastcheck.attributes(net, 'W1', 'b1')."
        )
    expanded = (each for name in names for each in _expanded(name, _slot_of(target, name).get()))
    return Attributes(target, tuple(expanded), found=not names)


class Attributes:
    """Parameters that an object holds, by their names there; see `attributes`.

    `found` says that the names were not given: all float arrays were taken.
    """

    def __init__(self, target: Any, names: tuple[str, ...], found: bool = False) -> None:
        self.target, self.found = target, found
        self.names = names or _all_floats(target)
        slots = {name: _slot_of(target, name) for name in self.names}
        for name, slot in slots.items():
            _refuse(name, slot.get())
        _refuse_overlaps({name: slot.get() for name, slot in slots.items()})
        arrays = ((holder, key, value) for holder in _holders(target) for key, value in _held_by(holder))
        others = [Slot(holder, key) for holder, key, value in arrays if isinstance(value, np.ndarray)]
        same = {name: [other for other in others if other.get() is slot.get()] for name, slot in slots.items()}
        self._slots = {name: [slot, *(s for s in same[name] if s != slot)] for name, slot in slots.items()}
        # Names of arrays whose memory the object knows by other arrays too: those are written into.
        self._shared = frozenset(name for name, slot in slots.items() if _is_viewed(slot.get(), others))
        for name in self._shared:
            _refuse_unwritable(name, slots[name].get())

    def __reduce__(self) -> tuple[Any, ...]:
        return Attributes, (self.target, self.names, self.found)

    @property
    def tree(self) -> dict[str, Any]:
        """The parameters as they are now, by name; not copies."""
        return {name: slots[0].get() for name, slots in self._slots.items()}

    @contextlib.contextmanager
    def set_to(self, params: dict[str, Any]) -> Iterator[None]:
        """Let the object hold other parameters; what it holds in their place afterwards goes into `params`."""
        with _ONE_AT_A_TIME:
            before = [(slot, slot.get()) for slots in self._slots.values() for slot in slots]
            copies = [(self._slots[name][0].get(), np.array(self._slots[name][0].get())) for name in self._shared]
            try:
                for name, slots in self._slots.items():
                    if name in self._shared:
                        slots[0].get()[...] = params[name]
                        continue
                    for slot in slots:
                        slot.set(params[name])
                yield
                self._noted(params)
            finally:
                try:
                    _put_back(before, copies)
                finally:  # once more, should Ctrl-C have come between
                    _put_back(before, copies)

    def _noted(self, params: dict[str, Any]) -> None:
        """Let the caller see where the function has changed its parameters."""
        for name, slots in self._slots.items():
            now = slots[0].get()
            if name in self._shared:
                params[name][...] = now
            elif now is not params[name]:
                params[name] = now

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Put everything that the object holds back at the end, bit for bit: also caches, and statistics that run."""
        before = [(holder, _held_by(holder)) for holder in _holders(self.target)]
        arrays = {id(v): v for _, held in before for _, v in held if isinstance(v, np.ndarray) and v.flags.writeable}
        copies = [(array, array.copy()) for array in arrays.values()]
        try:
            yield
        finally:
            try:
                _all_back(before, copies)
            finally:
                _all_back(before, copies)


@dataclass(frozen=True)
class Called:
    """A function of ``args`` alone, as a function of the parameters too.

    Attributes
    ----------
    function : callable
        ``function(*args)``.
    held : Attributes
        The parameters that it finds in an object.
    first : callable, optional
        Called before it with the same parameters: a backward pass relies on what the forward pass left in the object.
    vectors : int
        How many of the first arguments are of the function alone.
    """

    function: Callable[..., Any]
    held: Attributes
    first: Callable[..., Any] | None = None
    vectors: int = 0

    def __call__(self, params: dict[str, Any], *args: Any) -> Any:
        """Call the function while the object holds these parameters."""
        with self.held.set_to(params):
            if self.first is not None:
                self.first(*args[self.vectors :])
            return self.function(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        if not _carries(self.function, self.held.target):
            raise pickle.PicklingError(
                "the function finds the object of attributes() in its module, where a worker process would find "
                "another one; make it a method, or use backend='threads' or 'serial'"
            )
        return Called, (self.function, self.held, self.first, self.vectors)


def _all_floats(target: Any) -> tuple[str, ...]:
    found = tuple(key for key, value in _held_by(target) if isinstance(key, str) and _is_float(value))
    if not found:
        raise InputError(
            f"attributes({type(target).__name__} object) holds no float array itself. Name them, with dots into what "
            "it holds ('layers.0.W'), or pass the dict that does (net.params)."
        )
    return found


def _expanded(name: str, value: Any) -> Iterator[str]:
    """Yield the names of the arrays in a list or a dict; of anything else, its own."""
    if not isinstance(value, (list, dict)) or not value:
        yield name
        return
    for key, item in _held_by(value):
        yield from _expanded(f"{name}.{key}", item)


def _refuse(name: str, value: Any) -> None:
    if not _is_float(value) and not isinstance(value, (float, np.floating)):
        kind = f"dtype {value.dtype}" if isinstance(value, np.ndarray) else f"type={type(value).__name__}"
        raise InputError(
            f"attributes(..., {name!r}): {name} ({kind}) is no array of floats. Parameters are float arrays."
        )


def _refuse_unwritable(name: str, array: NDArray[Any]) -> None:
    if array.dtype.itemsize < 8 or not array.flags.writeable:
        raise InputError(
            f"attributes(..., {name!r}): other arrays of the object are views of its memory, and it is "
            f"{array.dtype}{'' if array.flags.writeable else ', read-only'}. Make it writeable and float64."
        )


def _refuse_overlaps(arrays: Mapping[str, Any]) -> None:
    seen: dict[str, NDArray[Any]] = {}
    for name, array in arrays.items():
        if isinstance(array, np.ndarray):
            twin = next((other for other, there in seen.items() if _overlap(array, there)), None)
            if twin is not None:
                raise InputError(
                    f"attributes(..., {twin!r}, {name!r}): the two share memory, and can't be changed apart. Name one "
                    "of them; the other follows."
                )
            seen[name] = array


def _is_viewed(array: Any, others: list[Slot]) -> bool:
    """Say whether the object holds another array with some of the same memory."""
    held = (other.get() for other in others)
    return isinstance(array, np.ndarray) and any(one is not array and _overlap(one, array) for one in held)


def _overlap(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return bool(np.may_share_memory(a, b) and np.shares_memory(a, b))


def _carries(function: Callable[..., Any], target: Any) -> bool:
    """Say whether a function brings an object along when it is pickled, and does not only name its module."""
    import cloudpickle

    class Finder(cloudpickle.Pickler):  # type: ignore[misc]
        found = False

        def persistent_id(self, item: Any) -> str | None:
            if item is not target:
                return None
            self.found = True
            return "target"

    finder = Finder(io.BytesIO(), protocol=5, buffer_callback=lambda buffer: None)
    finder.dump(function)
    return finder.found
