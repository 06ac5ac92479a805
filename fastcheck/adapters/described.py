"""A torch module that is a stack of known layers, measured as the `Network` that it is: all coordinates at once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastcheck.adapters import framework
from fastcheck.adapters.borrowed import Borrowed
from fastcheck.adapters.checking import measured
from fastcheck.adapters.precision import in_double
from fastcheck.adapters.tensors import as_numpy
from fastcheck.findings import Finding, Kind
from fastcheck.networks import Network
from fastcheck.networks.bound import BoundNetwork
from fastcheck.networks.losses import LOSSES
from fastcheck.report import Report

__all__ = ["measured_by_layers"]

UNSUITED = ("step", "scheme", "bounds", "checkpoint", "budget")  # options of a loss that is evaluated
PAYS = 0.5  # seconds of a full check by evaluations; kernels that are not compiled yet take about as long


def measured_by_layers(borrowed: Borrowed, options: Mapping[str, Any], call: str) -> Report | None:
    """Check the gradient of a stack of known layers; None where it is none, or something else was asked for.

    A pass is one of the loss: the two are compared at the parameters and at several others, and a difference that is
    too small to be seen there, as a penalty of 1e-10, is below every tolerance. It may still be all of the gradient of
    a single unit, so what does not pass proves nothing.
    """
    network = _as_network(borrowed, options)
    if network is None:
        return None
    report = measured(
        network, lambda tree: borrowed.gradient(tree, *borrowed.args), borrowed.params(), (), options, call
    )
    said = (
        "The module is a stack of layers that Network knows, and was measured as one, all coordinates at once. At the "
        "parameters, and at several others, it is the same function as the loss."
    )
    return replace(report, findings=(*report.findings, Finding(Kind.DESCRIBED, None, said, {})))


def _as_network(borrowed: Borrowed, options: Mapping[str, Any]) -> BoundNetwork | None:
    """Return the network that a loss of ``(model, X, y)`` is; see `BoundNetwork.verify`."""
    known = isinstance(borrowed.model, framework("torch").nn.Sequential) and borrowed.takes_model
    if not known or len(borrowed.args) != 2 or borrowed.dtype is not None or borrowed.frozen:
        return None
    if options.get("mode") == "screen" or any(options.get(name) is not None for name in UNSUITED):
        return None
    params, (X, y) = in_double(borrowed.params()), map(as_numpy, borrowed.args)
    try:
        Network.from_torch(borrowed.model)  # costs nothing where a layer is not known
        value, seconds = _timed(borrowed, params)
    except Exception:  # whatever it is, the loss is then evaluated like any other
        return None
    if 2 * sum(array.size for array in params.values()) * seconds < PAYS:
        return None
    for name in LOSSES:
        try:
            scale = value / Network.from_torch(borrowed.model, loss=name).bind(X, y)(params)
            network = Network.from_torch(borrowed.model, loss=name, scale=scale)
            bound = network.bind(X, y, like=borrowed.value, args=borrowed.args)
            bound.verify(params)
        except Exception:  # it is another loss
            continue
        return bound
    return None


def _timed(borrowed: Borrowed, params: Mapping[str, Any]) -> tuple[float, float]:
    """Return the loss, and the seconds of the faster of two evaluations."""
    began = time.perf_counter()
    borrowed.value(params, *borrowed.args)
    between = time.perf_counter()
    value = borrowed.value(params, *borrowed.args)
    return float(value), min(between - began, time.perf_counter() - between)
