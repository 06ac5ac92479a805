"""A network bound to data: the loss as a function of the parameters, and its exhaustive measurement."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastcheck.arrays import FloatArray
from fastcheck.errors import InputError, said
from fastcheck.estimates import Measured
from fastcheck.networks.engines import ENGINES, Request
from fastcheck.networks.slopes import STEP
from fastcheck.networks.windows import mark_duplicates
from fastcheck.parallel.blas import one_blas_thread
from fastcheck.parameters import Parameters

if TYPE_CHECKING:
    from fastcheck.networks.network import Network

__all__ = ["BoundNetwork"]

# Relative sizes of the perturbations at which the user's loss is compared, in units of each block's own size.
_AWAY = (0.0, 0.01, 0.1, 0.5, 2.0)


@dataclass(eq=False)
class BoundNetwork:
    """A `Network` on its data; made by `Network.bind`.

    Calling it with params gives the loss. `measure` gives the derivative by every coordinate. The data are copies.

    Attributes
    ----------
    network : Network
    x : float64, shape (*features, B)
    y : shape (B,) or (outputs, B)
    like : callable or None
        The user's own loss.
    args : tuple
        Extra arguments of ``like``.
    verified : bool
        Whether the network was shown to be that loss.
    step : float
        The longest step of a pre-activation.
    """

    network: Network
    x: FloatArray = field(repr=False)
    y: NDArray[Any] = field(repr=False)
    like: Callable[..., float] | None = None
    args: tuple[Any, ...] = field(default=(), repr=False)
    verified: bool = field(default=False, init=False)
    step: float = field(default=STEP, init=False, repr=False)

    @classmethod
    def of(
        cls,
        network: Network,
        x: Any,
        y: Any,
        like: Callable[..., float] | None,
        args: tuple[Any, ...],
    ) -> BoundNetwork:
        """Check the data by themselves and bring them to the inner convention, samples last."""
        if like is not None and not callable(like):
            raise InputError(f"like={like!r}; it must be the loss as a function: like(params, *args) -> float.")
        rows = network.samples == "rows"
        data, target = _samples_last(x, "X", rows), _samples_last(y, "y", rows)
        if data.shape[-1] != target.shape[-1]:
            side = "rows (first axis)" if rows else "columns (last axis)"
            raise InputError(
                f"X has {data.shape[-1]} samples and y has {target.shape[-1]}; samples={network.samples!r} means that "
                f"samples are {side} of both. Transpose one, or set samples."
            )
        return cls(network, np.ascontiguousarray(data, np.float64), np.ascontiguousarray(target), like, args)

    def __call__(self, params: Any) -> float:
        """Return the loss of the network at params, a tree of float arrays with the names that the layers use."""
        layout = Parameters.of(params)
        return self.value(layout.flatten(params), layout)

    def value(self, theta: FloatArray, layout: Parameters) -> float:
        """See `fastcheck.losses.evaluator.MeasuresItself`."""
        forward = self.network.forward(theta, layout, self.x, self.y)
        value = forward.data_term()
        for name, strength in self.network.penalties(self.network.l2, "l2").items():
            value += strength / 2 * float(np.sum(layout[name].view(theta) ** 2))
        for name, strength in self.network.penalties(self.network.l1, "l1").items():
            value += strength * float(np.sum(np.abs(layout[name].view(theta))))
        return value

    def verify(self, params: Any) -> None:
        """Show that the network is the user's loss: equal at params and at several perturbed ones.

        Without ``like`` only the shapes are checked. `measure` does this once by itself.

        Raises
        ------
        InputError
            The two losses differ (the message has both), or the network does not fit params.
        """
        layout = Parameters.of(params)
        self._verify(layout.flatten(params), layout)

    def _verify(self, theta: FloatArray, layout: Parameters) -> None:
        single = any(block.dtype.itemsize < 8 for block in layout.blocks)
        tolerance = 1e-4 if single else 1e-9
        rng = np.random.default_rng(0)
        compared = 0
        for size in _AWAY if self.like is not None else _AWAY[:1]:
            moved = theta.copy()
            for block in layout.blocks:
                part = moved[block.slice]
                scale = np.sqrt(np.mean(part**2)) if part.any() else 1.0
                part += size * scale * rng.standard_normal(block.size)
            if single:
                moved = layout.flatten(layout.astype_user(moved))
            try:
                with np.errstate(all="ignore") if size else nullcontext():
                    ours = self.value(moved, layout)
                    theirs = ours if self.like is None else self._theirs(layout.astype_user(moved))
            except InputError:
                if not size:
                    raise
                continue  # an output that saturates far from params
            if size and not (np.isfinite(theirs) and np.isfinite(ours)):
                continue  # far from params a loss may overflow; at params it may not
            compared += 1
            if not abs(ours - theirs) <= tolerance * max(abs(ours), abs(theirs)):
                where = "at params" if size == 0 else f"at params moved by {size:g} of their size"
                raise InputError(
                    f"like(params)={theirs!r} and the network gives {ours!r}, {where}: they are not the same function. "
                    f"Ratio {theirs / ours if ours else np.nan:.6g}. Compare the loss, the reduction, the penalties, "
                    "the activations, and scale (a factor of the data term)."
                )
        if compared < 2 and self.like is not None:
            raise InputError(
                f"like={self.like!r} and the network were finite together at params only, so that they can't be shown "
                "to be the same function. Choose smaller params."
            )
        self.verified = True

    def _theirs(self, params: Any) -> float:
        assert self.like is not None
        try:
            return float(self.like(params, *self.args))
        except (Exception, SystemExit) as error:
            raise InputError(
                f"like raised {said(error)}. It must be the loss as a function of the same params: "
                "like(params, *args) -> float."
            ) from error

    def measure(
        self,
        theta: FloatArray,
        layout: Parameters,
        coordinates: NDArray[np.int64] | None = None,
        *,
        step: float | None = None,
        engine: Literal["unit", "coordinate"] = "unit",
        workers: int = 1,
    ) -> Measured:
        """Measure derivatives of the loss by central differences, propagated exactly.

        Parameters
        ----------
        theta : float64, shape (P,)
            Not changed.
        layout : Parameters
            Its blocks.
        coordinates : int64, shape (m,), optional
            Places in theta; all for None.
        step : float, optional
            First step, of a pre-activation (engine "unit", at most 2^-30) or of the coordinate (engine "coordinate");
            2^-30 if None. A smaller one is taken where it leaves the reach of the formulas or passes a kink.
        engine : {"unit", "coordinate"}
            "coordinate" is the slow reference.
        workers : int
            Threads. The numbers do not depend on it.

        Returns
        -------
        Measured
            In the order of ``coordinates``.

        Raises
        ------
        InputError
            A bad argument, or the network does not fit params, data or ``like``.
        """
        h = STEP if step is None else float(step)
        if engine not in ENGINES:
            raise InputError(f"engine={engine!r}; it must be one of: {', '.join(ENGINES)}.")
        if not (np.isfinite(h) and h > 0):
            raise InputError(f"step={step!r}; it must be positive and finite.")
        if workers < 1:
            raise InputError(f"workers={workers!r}; it must be at least 1.")
        theta = np.ascontiguousarray(theta, np.float64)
        if theta.shape != (layout.size,) or not np.isfinite(theta).all():
            raise InputError(f"theta of shape {theta.shape}; it must be {layout.size} finite numbers.")
        chosen = np.arange(layout.size) if coordinates is None else np.asarray(coordinates, np.int64)
        if len(chosen) and not 0 <= chosen.min() <= chosen.max() < layout.size:
            raise InputError(f"coordinates must be in [0, {layout.size}); they span [{chosen.min()}, {chosen.max()}].")
        if self.like is not None and not self.verified:
            self._verify(theta, layout)
        # One BLAS thread per worker, for one worker too: the sums, and so the numbers, are the same for any number.
        with one_blas_thread(look=False):
            forward = self.network.forward(theta, layout, self.x, self.y)
            if not np.isfinite(forward.data_term()):
                raise InputError(
                    f"the loss of the network is {forward.data_term()} at theta; no difference can be measured."
                )
            mark_duplicates(forward.operators, self.x)
            h = min(h, STEP) if engine == "unit" else h
            request = Request(self.network, forward, layout, theta, chosen, coordinates is None, h, workers)
            return ENGINES[engine](request)


def _samples_last(array: Any, name: str, rows: bool) -> NDArray[Any]:
    found = np.asarray(array)
    if found.ndim == 0 or found.size == 0 or found.dtype.kind not in "fiub":
        raise InputError(
            f"{name} has shape {found.shape} and dtype {found.dtype}; it must be a non-empty array of numbers."
        )
    if not np.isfinite(found).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(found))[0])
        raise InputError(f"{name}{list(where)}={found[where]}: the data must be finite. Clean {name} first.")
    return np.array(np.moveaxis(found, 0, -1) if rows else found)
