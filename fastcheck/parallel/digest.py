"""A digest of anything that a loss may hold: the same in every process, and another for any other value.

A value is taken apart into plain data, and each part is fed to the hash with its type and length, so that no two
values look alike. What a library defines (found under its own name in an installed package, or in Python itself) is
known by that name and the library's version, whatever caches it has filled. Everything else is known by what it is
made of: functions by their bytecode, constants, defaults, closure and the globals that they name; classes by their
attributes and bases; other objects by what pickle would keep of them. What can't be taken apart is refused. That
still can't see a file that the loss reads, or a library changed in place.
"""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import platform
import site
import struct
import sys
import sysconfig
import types
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np

from fastcheck import __version__
from fastcheck.arrays import FloatArray
from fastcheck.errors import InputError, said
from fastcheck.losses.evaluator import Evaluator

__all__ = ["codes", "contents", "digest", "identity", "library_of"]

DEEPEST = 10_000  # containers inside containers

_BESIDE = {"__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__firstlineno__", "_abc_impl"}
_BESIDE |= {"__static_attributes__", "__annotate_func__", "__annotations_cache__"}  # of a class, without a meaning here
_LOCKS = ("_thread.lock", "_thread.RLock")  # one is like another


def digest(value: Any, name: str = "value") -> str:
    """Return 32 hexadecimal digits that are the same in every process, and others for another value.

    Raises
    ------
    InputError
        The value, which messages call by its name, holds something that can't be told from another.
    """
    hasher = hashlib.sha256()
    seen: dict[int, tuple[int, Any]] = {}  # number and object by id; held, so that no other gets its id
    waiting = [(value, 0)]
    while waiting:
        part, depth = waiting.pop()
        try:
            plain = _plain(part)
            children = [] if plain is not None or id(part) in seen else list(_parts(part))
        except Exception as error:
            raise _refused(name, part, said(error)) from error
        if plain is not None:
            _feed(hasher, bytes if type(part) is memoryview else type(part), plain)
            continue
        if id(part) in seen:
            _feed(hasher, None, str(seen[id(part)][0]).encode())
            continue
        if depth > DEEPEST:
            raise _refused(name, part, f"it lies {DEEPEST:,} levels deep")
        seen[id(part)] = len(seen), part
        _feed(hasher, type(part), str(len(children)).encode())
        waiting += [(child, depth + 1) for child in reversed(children)]
    return hasher.hexdigest()[:32]


def _feed(hasher: Any, kind: type | None, data: bytes | memoryview) -> None:
    """Feed some bytes, with what kind of value they stand for and their length, so that no two values run together."""
    named = "@" if kind is None else f"{kind.__module__}.{kind.__qualname__}" if _library(kind) else kind.__qualname__
    hasher.update(f"{len(named)}:{named}{len(data)}:".encode())
    hasher.update(data)


def _refused(name: str, part: Any, why: str) -> InputError:
    kind = f"{type(part).__module__}.{type(part).__qualname__}"
    return InputError(
        f"checkpoint: {name} holds a {kind}, and whether that is the same in a run to be resumed can't be told "
        f"({why}). Keep it out of the loss and its args, give its class a __getstate__ that returns what the loss "
        "depends on, or leave checkpoint out."
    )


def _plain(value: Any) -> bytes | memoryview | None:
    """Return the bytes of a value that has no parts, or None."""
    kind = type(value)
    if value is None or value is ... or value is NotImplemented or kind is bool or kind is str:
        return str(value).encode("utf-8", "surrogatepass")
    if kind is int:
        return hex(value).encode()  # of any length, which its decimal digits may not have
    if kind is float:
        return struct.pack("<d", value)
    if kind is complex:
        return struct.pack("<dd", value.real, value.imag)
    if kind is memoryview and value.format == "B" and value.ndim == 1 and value.c_contiguous:
        return value  # type: ignore[no-any-return]
    if kind is bytes or kind is bytearray:
        return bytes(value)
    if isinstance(value, np.dtype) and not value.hasobject:
        return repr(value).encode()
    if isinstance(value, types.ModuleType):
        return (_library(value) or value.__name__).encode()
    return _by_name(value)


def _by_name(value: Any) -> bytes | None:
    """Return the name of what a library defines, and the library's version; None for everything else."""
    if isinstance(value, np.ufunc):  # does not say where it comes from
        name: Any = value.__name__
        homes = (module for module in sorted(sys.modules) if getattr(sys.modules[module], name, None) is value)
        library = next(filter(None, map(library_of, homes)), None)
        return None if library is None else f"{library} {name}".encode()
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    module = getattr(value, "__module__", None)
    if not (isinstance(name, str) and isinstance(module, str) and module in sys.modules):
        return None
    try:
        found = functools.reduce(getattr, name.split("."), sys.modules[module])
    except AttributeError:
        return None
    library = library_of(module) if found is value else None
    return None if library is None else f"{library} {module}.{name}".encode()


def _library(value: type | types.ModuleType) -> str | None:
    return library_of(value.__name__ if isinstance(value, types.ModuleType) else value.__module__)


def library_of(module: str) -> str | None:
    """Return the name and version of the installed library that a module belongs to, or None.

    A module of the user's own that is machine code is known by that.
    """
    own = getattr(sys.modules.get(module), "__file__", None)
    root = module.partition(".")[0]
    if root in sys.stdlib_module_names and root != "__main__":
        return "python"
    if root == "fastcheck":
        return f"fastcheck {__version__}"
    package = sys.modules.get(root)
    file, version = getattr(package, "__file__", None), getattr(package, "__version__", None)
    if isinstance(file, str) and isinstance(version, str) and _is_installed(file):
        return f"{root} {version}"
    return _machine_code(own) if isinstance(own, str) and own.endswith(tuple(EXTENSION_SUFFIXES)) else None


@functools.cache
def _machine_code(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


@functools.cache
def _is_installed(file: str) -> bool:
    known = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    return not set(map(Path, [*known, site.getusersitepackages()])).isdisjoint(Path(file).parents)


def _parts(value: Any) -> Iterator[Any]:
    """Yield what an object is made of, as plain data and further objects."""
    if isinstance(value, (np.ndarray, np.generic)):
        yield from _parts_of_array(value)
    elif isinstance(value, types.CodeType):
        yield from _parts_of_code(value)
    elif isinstance(value, types.FunctionType):
        yield from (value.__code__, value.__defaults__, value.__kwdefaults__, value.__closure__, vars(value))
        yield from _globals_of(value)
    elif isinstance(value, type):
        yield from (value.__qualname__, value.__bases__)
        yield [(name, part) for name, part in sorted(vars(value).items()) if name not in _BESIDE]
    elif isinstance(value, types.CellType):
        yield from contents(value)
    elif isinstance(value, (set, frozenset)):
        yield sorted(map(digest, value))
    elif type(value) in (dict, types.MappingProxyType):
        yield from (part for pair in list(value.items()) for part in pair)
    elif type(value) in (list, tuple):
        yield from value
    else:
        yield from _parts_of_object(value)


def _parts_of_array(value: np.ndarray[Any, Any] | np.generic) -> Iterator[Any]:
    array = np.asarray(value).view(np.ndarray) if isinstance(value, np.generic) else value.view(np.ndarray)
    yield from (array.dtype.str, array.dtype.descr if array.dtype.names else None, list(array.shape))
    if array.dtype.hasobject:
        yield array.ravel().tolist()
    else:
        yield array.reshape(-1).view(np.uint8).data if array.size and array.flags.c_contiguous else array.tobytes()
    if not isinstance(value, np.memmap):
        yield getattr(value, "__dict__", None)  # of a subclass: a mask, a unit


def _parts_of_code(code: types.CodeType) -> Iterator[Any]:
    """Yield what a function does: not where it stands, and its constants apart, whether or not two of them are one."""
    yield from (code.co_code, code.co_exceptiontable, code.co_flags)
    yield [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount]
    for names in (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars):
        yield list(names)
    yield [_constant(const) for const in code.co_consts]


def _constant(const: Any) -> Any:
    return [_constant(part) for part in const] if isinstance(const, tuple) else const


def _globals_of(function: types.FunctionType) -> Iterator[Any]:
    """Yield the globals that a function, and the functions defined in it, name; of a module of the user's, what of it.

    ``data.X`` reads X of the module data, so a module stands for its attributes that the function names anywhere.
    """
    every = list(codes(function.__code__))
    names = dict.fromkeys(name for code in every for name in code.co_names)
    steps = {(step.opname, step.argval) for code in every for step in dis.get_instructions(code)}
    package = function.__globals__.get("__package__")
    for name in names:
        if not steps.isdisjoint((f"LOAD_{kind}", name) for kind in ("GLOBAL", "NAME")):
            if name in function.__globals__:
                yield [name, *_named(function.__globals__[name], names, set())]
        elif ("IMPORT_NAME", name) in steps:
            for home in (name, f"{package}.{name}"):
                yield [home, *_named(sys.modules.get(home), names, set())]


def _named(value: Any, names: dict[str, None], seen: set[str]) -> Iterator[Any]:
    """Yield a global; of a module that is no library, every attribute of these names."""
    yield value
    if isinstance(value, types.ModuleType) and _library(value) is None and value.__name__ not in seen:
        seen.add(value.__name__)
        for name in names:
            if name in vars(value):
                yield [name, *_named(vars(value)[name], names, seen)]


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield the code of a function and of all that are defined in it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from codes(const)


def contents(cell: types.CellType) -> Iterator[Any]:
    """Yield what a cell of a closure holds, if it is filled."""
    try:
        yield cell.cell_contents
    except ValueError:  # not filled yet
        return


def _parts_of_object(value: Any) -> Iterator[Any]:
    """Yield the function inside a wrapper, or what pickle would keep of an object, and its class."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    tensor = getattr(sys.modules.get("torch"), "Tensor", ())
    if kind in _LOCKS or kind == "builtins.member_descriptor" or kind == "builtins.getset_descriptor":
        yield getattr(value, "__name__", None)
    elif isinstance(value, tensor):
        apart = value.detach().cpu().contiguous()
        yield from (str(apart.dtype), list(apart.shape))
        yield apart.reshape(-1).view(sys.modules["torch"].uint8).numpy().data
    elif isinstance(value, property):
        yield from (value.fget, value.fset, value.fdel)
    elif isinstance(value, (staticmethod, classmethod)):
        yield value.__func__
    elif isinstance(value, functools.cached_property):
        yield value.func
    elif isinstance(value, np.vectorize):
        yield from (value.pyfunc, value.otypes, value.excluded, value.signature)
    elif hasattr(value, "py_func"):  # compiled by Numba
        yield from (value.py_func, getattr(value, "targetoptions", None))
    elif callable(value) and hasattr(value, "__wrapped__"):  # a cache, a jit
        yield value.__wrapped__
    else:
        yield type(value)
        yield from _reduced(value)


def _reduced(value: Any) -> Iterator[Any]:
    """Yield what pickle would keep; the attributes of an object in the order of their names."""
    reduce = copyreg.dispatch_table.get(type(value))
    kept = value.__reduce_ex__(4) if reduce is None else reduce(value)
    if isinstance(kept, str):  # a global of its module
        raise TypeError(f"only its name, {kept}, is known")
    for part in kept:
        if type(part) is dict and all(type(key) is str for key in part):
            yield [pair for name in sorted(part) for pair in (name, part[name])]
        else:
            yield part if part is None or isinstance(part, tuple) or callable(part) else _listed(part)


def _listed(part: Any) -> Any:
    """Return an iterator of items as a list."""
    return list(part) if isinstance(part, Iterator) else part


# -- what a checkpoint belongs to -------------------------------------------------------------------------------------


FREE = ("workers", "backend", "budget", "checkpoint", "progress")  # settings that no number depends on


def identity(
    evaluator: Evaluator, loss: Any, args: tuple[Any, ...], base: float, gradient: FloatArray, settings: dict[str, Any]
) -> dict[str, Any]:
    """Return what must be the same for a run to resume another.

    Raises
    ------
    InputError
        The loss or its data hold something that can't be told from another.
    """
    layout = [[b.name, list(b.shape), str(b.dtype), b.order] for b in evaluator.layout.blocks]
    return {
        "version": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "layout": digest(layout),
        "theta": digest(evaluator.theta),
        "args": digest(args, "args"),
        "loss": digest(loss, "loss"),
        "J(theta)": float(base).hex(),
        "gradient": digest(gradient),
        **{key: value for key, value in settings.items() if key not in FREE},
    }
