"""Tensors of torch as numpy arrays and back, and the state of torch that a check leaves as it was."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from fastcheck.adapters import framework
from fastcheck.errors import InputError
from fastcheck.parameters import ROOT, leaves
from fastcheck.replay import global_generators

__all__ = [
    "Start",
    "as_argument",
    "as_number",
    "as_numpy",
    "as_tensor",
    "differs",
    "dtype_of",
    "eps_of",
    "forward_mode",
    "named_tensors",
    "refuse_meta",
    "undisturbed",
    "widened",
]

NO_NUMPY = ("torch.bfloat16", "torch.float8")  # dtypes that NumPy lacks


@contextmanager
def undisturbed(torch: Any, threads: int) -> Iterator[None]:
    """Let torch have so many threads inside, and put them and the states of its generators back at the end.

    Raises
    ------
    InputError
        The number is not positive.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InputError(f"threads={threads!r} must be a positive integer: the threads of torch in an evaluation.")
    cuda, before = torch.cuda, torch.get_num_threads()
    devices = list(range(cuda.device_count())) if cuda.is_available() and cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            torch.set_num_threads(threads)
            yield
    finally:
        torch.set_num_threads(before)


class Start:
    """What every evaluation starts with: its threads, which the run sets to one, and its random draws.

    Parameters
    ----------
    torch : module
    threads : int
        As of `undisturbed`.
    draws : int or None
        Seed of torch's generators; None leaves them alone,
    replays : bool
        or puts them into the states they were in at the first start.
    """

    def __init__(self, torch: Any, threads: int, draws: int | None, replays: bool = False) -> None:
        self._torch, self._threads, self._draws = torch, threads, draws
        self._replays, self._first = replays and draws is None, list[Any]()
        self.drew = False  # whether an evaluation moved a generator that is replayed

    def __call__(self) -> None:
        """Start an evaluation."""
        if self._torch.get_num_threads() != self._threads:
            self._torch.set_num_threads(self._threads)
        if self._draws is not None:
            self._torch.manual_seed(self._draws)
        if self._replays:
            self._replay()

    def _replay(self) -> None:
        generators = global_generators(self._torch)
        self._first += [generator.get_state() for generator in generators[len(self._first) :]]
        for generator, state in zip(generators, self._first, strict=True):
            if not self._torch.equal(generator.get_state(), state):
                generator.set_state(state)
                self.drew = True


def forward_mode(torch: Any) -> Any:
    """Return the forward mode of torch, with what it loads at its first use: that warns of other parts of torch."""
    with warnings.catch_warnings(), suppress(ImportError):
        warnings.simplefilter("ignore")
        importlib.import_module("torch._decomp.decompositions_for_jvp")
    return torch.autograd.forward_ad


def dtype_of(torch: Any, dtype: Any) -> Any:
    """Return a floating dtype of torch given as such or by name, or None.

    Raises
    ------
    InputError
        It is none that differences can be taken in.
    """
    found = getattr(torch, dtype, dtype) if isinstance(dtype, str) else dtype
    if found in (None, torch.float64, torch.float32, torch.float16):
        return found
    raise InputError(
        f"dtype={dtype!r} must be torch.float64, float32 or float16, or None to have it chosen. What runs in bfloat16 "
        "alone is compared with a reference: fastcheck.torch.check_function(kernel, inputs, reference=plain)."
    )


def named_tensors(torch: Any, tree: Any) -> dict[str, Any]:
    """Return the tensors of a nested dict, list or tuple by name.

    Raises
    ------
    InputError
        Something in it is no tensor.
    """
    named = {".".join(path) or ROOT: leaf for path, leaf in leaves(tree)}
    for name, leaf in named.items():
        if not isinstance(leaf, torch.Tensor):
            raise InputError(
                f"model[{name!r}] (type={type(leaf).__name__}) is no tensor. Pass a torch.nn.Module, or a dict, list "
                "or tuple of tensors."
            )
    return named


def as_numpy(tensor: Any) -> Any:
    """Return a tensor as an array, without copying where it is dense and in the CPU's memory; anything else as it is.

    bfloat16 and float8 become float32, which has all of their values; a complex tensor gets a last axis of two, its
    real and its imaginary part. The gradient of torch by a complex tensor is that by the two, so that it goes over
    likewise.
    """
    if not hasattr(tensor, "detach"):
        return tensor
    dense = tensor.detach().to_dense().cpu().resolve_conj()
    dense = dense.clone() if dense._is_zerotensor() else dense  # which has no memory
    if dense.is_complex():
        return framework("torch").view_as_real(dense).contiguous().numpy()
    return (dense.float() if str(dense.dtype).startswith(NO_NUMPY) else dense).resolve_neg().numpy()


def as_tensor(torch: Any, array: Any, own: Any) -> Any:
    """Return an array as a tensor of its own precision, on the device and of the kind, real or complex, of another."""
    tensor = torch.from_numpy(array)
    return (torch.view_as_complex(tensor) if own.is_complex() else tensor).to(own.device)


def differs(tensor: Any, own: Any) -> Any:
    """Return the real dtype of a tensor if it is wider or narrower than that of the owner's, else None."""
    return None if tensor.dtype == own.dtype else tensor.dtype.to_real()


def eps_of(torch: Any, dtypes: Iterable[str]) -> float:
    """Return the largest machine epsilon of some dtypes by name; that of float64 for none."""
    names = {"complex64": "float32", "complex128": "float64", "complex32": "float16"}
    return max((float(torch.finfo(getattr(torch, names.get(d, d))).eps) for d in dtypes), default=2.0**-52)


def refuse_meta(torch: Any, named: Mapping[str, Any]) -> None:
    """Raise where a tensor has no values.

    Raises
    ------
    InputError
        It is on the meta device.
    """
    for name, tensor in named.items():
        if isinstance(tensor, torch.Tensor) and tensor.is_meta:
            raise InputError(
                f"{name} is on the meta device: it has a shape and no values, so there is no point to check at. "
                "Give it values first (module.to_empty(device='cpu'), then initialise)."
            )


def as_argument(torch: Any, value: Any) -> Any:
    """Return a plain tensor as an array that shares its memory; anything else as it is."""
    plain = type(value) is torch.Tensor and value.device.type == "cpu" and value.layout is torch.strided
    if not plain or value.requires_grad or str(value.dtype).startswith(NO_NUMPY) or value.is_complex():
        return value
    return value.numpy()


def as_number(torch: Any, value: Any) -> Any:
    """Return a scalar tensor as a float; anything else without its graph: the check says what is wrong with it."""
    if not isinstance(value, torch.Tensor):
        return value
    return float(value.detach()) if value.ndim == 0 and not value.is_complex() else value.detach()


def widened(tensor: Any, dtype: Any) -> Any:
    """Return a floating or complex tensor in a real dtype's precision, unless that is None; others as they are."""
    if dtype is None or not (tensor.is_floating_point() or tensor.is_complex()):
        return tensor
    return tensor.to(dtype.to_complex() if tensor.is_complex() else dtype)
