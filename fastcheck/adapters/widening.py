"""Double precision kept inside a function of torch: what it casts down stays wide, and what it mixes in is widened.

A softmax "in float32", a norm that calls ``x.float()``: each leaves six digits of a float64 evaluation. And a loss that
has its batch from a closure multiplies double parameters with float32 data, for which products and convolutions raise.
Under this mode casts of double tensors return double ones, and narrower floating operands are widened, exact as they
are. It reaches backward passes of the user's own too: the engine is called directly, since ``torch.autograd.grad``
would take the mode off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from fastcheck.adapters import framework, mapped

__all__ = ["Way", "Ways", "pulled_back", "under"]

CASTS = frozenset({"float", "half", "bfloat16", "cfloat", "chalf", "to", "type", "type_as", "_to_copy"})
FACTORIES = frozenset({"zeros", "ones", "full", "empty", "eye", "linspace", "tensor", "scalar_tensor", "arange"})

Way = tuple[Any, bool]
"""A mode or None, and whether the function needs a graph (it differentiates inside)."""


class Ways:
    """How a function can be evaluated: found by trial in either precision, and kept.

    Parameters
    ----------
    torch : module
    """

    def __init__(self, torch: Any) -> None:
        self._torch, self._found = torch, dict[bool, Way]()
        self.narrowed: set[str] = set()  # dtypes that were cast to inside, and not followed

    def mode(self, double: bool) -> Any:
        """Return the mode of a precision, None for no mode."""
        return self._found[double][0] if double in self._found else None

    def first(self, double: bool, attempt: Callable[[Way], Any]) -> Any:
        """Return what the first way that works gives.

        Parameters
        ----------
        double : bool
            Whether it is evaluated in double precision; the mode is for that alone.
        attempt : callable
            Evaluates in one way, and raises where that won't do.

        Raises
        ------
        Exception
            What it raised in the plain way, if every one fails.
        """
        refused: Exception | None = None
        for way in self._tries(double):
            try:
                found = attempt(way)
            except Exception as error:  # whatever it is: another way may do
                refused = refused or error
                continue
            mode, graph = way
            if mode is not None and double not in self._found:
                self.narrowed |= mode.narrowed
            self._found[double] = (mode if mode is not None and mode.acted else None, graph)
            return found
        assert refused is not None
        raise refused

    def _tries(self, double: bool) -> Iterator[Way]:
        """Yield the way that worked before, then all of them; a mode takes longer to make than a small loss."""
        if double in self._found:
            yield self._found[double]
        modes = (_mode(), None) if double else (None,)
        yield from ((mode, graph) for graph in (False, True) for mode in modes)


def pulled_back(
    outputs: Sequence[Any], inputs: Sequence[Any], given: Sequence[Any], mode: Any = None, graph: bool = False
) -> tuple[Any, ...]:
    """Return what autograd gives for cotangents, None for an input it does not reach; under a mode, where there is one.

    Parameters
    ----------
    outputs, inputs, given : sequence of tensor
        ``given`` are cotangents like the outputs.
    mode : context manager or None
        Of `Ways`; one that is on already stays on.
    graph : bool
        Whether what is returned can be differentiated again.
    """
    torch = framework("torch")
    if mode is None and not graph:
        return tuple(torch.autograd.grad(outputs, inputs, given, allow_unused=True))
    engine = torch.autograd.Variable._execution_engine
    with under(mode):
        found = engine.run_backward(
            tuple(outputs),
            tuple(given),
            graph,  # keeps it
            graph,  # and makes one
            tuple(inputs),
            allow_unreachable=True,
            accumulate_grad=False,
        )
    return tuple(found)


def under(mode: Any) -> AbstractContextManager[Any]:
    """Return a mode, or a context that does nothing."""
    return nullcontext() if mode is None else mode


def _mode() -> Any:
    torch = framework("torch")
    wide = (torch.float64, torch.complex128)

    def dtype_widened(value: Any) -> Any:
        if not isinstance(value, torch.dtype):
            return value
        return torch.complex128 if value.is_complex else torch.float64 if value.is_floating_point else value

    def narrow(value: Any) -> bool:
        return isinstance(value, torch.Tensor) and dtype_widened(value.dtype) is not value.dtype

    class Widening(torch.overrides.TorchFunctionMode):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.acted, self.narrowed = False, set[str]()

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs, name = kwargs or {}, getattr(func, "__name__", "")
            with torch._C.DisableTorchFunction():
                tensors = [value for value in _flat((args, kwargs)) if isinstance(value, torch.Tensor)]
                double = any(value.dtype in wide for value in tensors)
                if name in CASTS:
                    return self._cast(func, args, kwargs)
                if not tensors and name in FACTORIES:
                    return self._kept(func(*args, **kwargs))
                if double and not _writes(name, kwargs):
                    args, kwargs = self._widened(args, kwargs, any(map(narrow, tensors)))
            return func(*args, **kwargs)

        def _cast(self, func: Any, args: Any, kwargs: Any) -> Any:
            given, found = args[0], func(*args, **kwargs)
            if given.dtype in wide and narrow(found):
                self.acted = True
                self.narrowed.add(str(found.dtype).removeprefix("torch."))
                return given.to(device=found.device, dtype=dtype_widened(found.dtype), copy=True)
            return found

        def _kept(self, found: Any) -> Any:
            if not narrow(found):
                return found
            self.acted = True
            return found.detach().to(dtype_widened(found.dtype)).requires_grad_(found.requires_grad)

        def _widened(self, args: Any, kwargs: Any, mixed: bool) -> Any:
            asked = [x for x in _flat((args, kwargs)) if isinstance(x, torch.dtype) and dtype_widened(x) is not x]
            if mixed or asked:
                self.acted = True
                self.narrowed |= {str(dtype).removeprefix("torch.") for dtype in asked}
                return mapped(lambda x: x.to(dtype_widened(x.dtype)) if narrow(x) else dtype_widened(x), (args, kwargs))
            return args, kwargs

    return Widening()


def _flat(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _writes(name: str, kwargs: Any) -> bool:
    """Say whether a function writes to one of its tensors: ``add_``, ``__iadd__``, ``__setitem__``, ``out=``."""
    in_place = name.startswith(("__i", "__set")) or (name.endswith("_") and not name.endswith("__"))
    return in_place or kwargs.get("out") is not None
