"""Operations between double precision and less, as torch itself does them in some places only.

A loss that has its batch from a closure multiplies double parameters with float32 data. Pointwise operations of torch
promote the data; products and convolutions raise. Here the latter promote too, so that the loss can be evaluated in
double precision as it stands: its data, exact as they are, lose nothing. The backward pass of a custom function is not
reached: torch runs it outside of such contexts.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from fastcheck.adapters import framework, mapped

__all__ = ["promoting"]


def promoting(dtype: Any) -> AbstractContextManager[Any]:
    """Return a context in which operations with a tensor of this dtype take narrower floating ones for it.

    None for no such dtype. In-place operations and those with ``out=`` keep the tensors they are to write to.
    """
    return nullcontext() if dtype is None else _mode(dtype)


def _mode(dtype: Any) -> AbstractContextManager[Any]:
    torch = framework("torch")

    def narrow(value: Any) -> bool:
        return isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype is not dtype

    class Promoting(torch.overrides.TorchFunctionMode):  # type: ignore[misc,name-defined]
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            found: list[Any] = []
            with torch._C.DisableTorchFunction():
                mapped(found.append, [args, kwargs])
                tensors = [value for value in found if isinstance(value, torch.Tensor)]
                mixed = any(value.dtype is dtype for value in tensors) and any(map(narrow, tensors))
                if mixed and not _writes(func, kwargs):
                    args, kwargs = mapped(lambda value: value.to(dtype) if narrow(value) else value, (args, kwargs))
            return func(*args, **kwargs)

    mode: AbstractContextManager[Any] = Promoting()
    return mode


def _writes(func: Any, kwargs: Any) -> bool:
    """Say whether a function writes to one of its tensors: ``add_``, ``__iadd__``, ``__setitem__``, ``out=``."""
    name = getattr(func, "__name__", "")
    in_place = name.startswith(("__i", "__set")) or (name.endswith("_") and not name.endswith("__"))
    return in_place or kwargs.get("out") is not None
