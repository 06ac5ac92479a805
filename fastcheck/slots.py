"""Places in the user's objects: attributes, items of dicts and of lists; found, looked through, and put back."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcheck.errors import InputError

__all__ = ["Slot", "all_back", "held_by", "holders", "is_float", "put_back", "slot_of"]

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


def slot_of(target: Any, name: str) -> Slot:
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
            there = ", ".join(repr(key) for key, value in held_by(target) if is_float(value)) or "none"
            raise InputError(
                f"attributes(..., {name!r}): the {type(target).__name__} object has no {name!r}; its own float arrays: "
                f"{there}."
            ) from error
        return slot
    return Slot(holder, name)


def held_by(holder: Any) -> list[tuple[Any, Any]]:
    """Return what an object, a dict or a list holds itself."""
    if isinstance(holder, Mapping):
        return list(holder.items())
    return list(enumerate(holder)) if isinstance(holder, list) else list(getattr(holder, "__dict__", {}).items())


def holders(target: Any, depth: int = DEEP, seen: set[int] | None = None) -> Iterator[Any]:
    """Yield an object, and the dicts, lists and objects that it holds."""
    seen = set() if seen is None else seen
    if id(target) in seen or not depth or isinstance(target, (type, types.ModuleType, types.FunctionType)):
        return
    seen.add(id(target))
    yield target
    for _, value in held_by(target):
        if isinstance(value, (dict, list)) or (hasattr(value, "__dict__") and not _is_of_a_library(value)):
            yield from holders(value, depth - 1, seen)


def _is_of_a_library(value: Any) -> bool:
    """Say whether an object is none of the user's classes: its insides are not for us."""
    return type(value).__module__.partition(".")[0] in _LIBRARIES


def is_float(value: Any) -> bool:
    """Say whether this is an array of real or complex floats."""
    return isinstance(value, np.ndarray) and value.dtype.kind in "fc"


def put_back(before: list[tuple[Slot, Any]], copies: list[tuple[NDArray[Any], NDArray[Any]]]) -> None:
    """Put back what was in some places, and the contents of some arrays."""
    for slot, value in before:
        slot.set(value)
    for array, copy in copies:
        array[...] = copy


def all_back(before: list[tuple[Any, list[tuple[Any, Any]]]], copies: list[tuple[NDArray[Any], NDArray[Any]]]) -> None:
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
