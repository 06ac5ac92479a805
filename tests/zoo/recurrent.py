"""Recurrent nets that read a digit row by row, with backprop through time: a vanilla RNN and a GRU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.bugs.mutation import Net, rows, with_bugs
from fastcheck.examples.digits import digits_batch

__all__ = ["GruParams", "gru", "rnn"]


class GruParams(NamedTuple):
    """Parameters of `gru`; the gates stand in the order update, reset, candidate along the first axis."""

    input: FloatArray
    """(3, units, 8)"""
    recurrent: FloatArray
    """(3, units, units)"""
    gate_bias: FloatArray
    """(3, units)"""
    output: FloatArray
    """(10, units)"""
    output_bias: FloatArray
    """(10,)"""


def _cross_entropy(scores: FloatArray, y: IntArray) -> float:
    return float(np.mean(np.logaddexp.reduce(scores, axis=1) - scores[np.arange(len(y)), y]))


def _output_step(scores: FloatArray, y: IntArray, bug: str) -> FloatArray:
    """Return the derivative of the mean cross-entropy with respect to the scores, shape (m, classes)."""
    P = np.exp(scores - scores.max(axis=1, keepdims=True))
    P /= P.sum(axis=1, keepdims=True)
    dS = (P - np.eye(scores.shape[1], dtype=P.dtype)[y]) / len(y)
    return np.where(dS < 0, dS, 0) if bug == "softmax_diagonal" else dS


def _rnn_loss(params: dict[str, Any], sequences: FloatArray, y: IntArray) -> float:
    """Return the mean softmax cross-entropy after the last step; sequences are (m, steps, inputs)."""
    cell, output = params["cell"], params["output"]
    h = np.zeros((len(y), len(cell["bias"])))
    for t in range(sequences.shape[1]):
        h = np.tanh(sequences[:, t] @ cell["input"] + h @ cell["recurrent"] + cell["bias"])
    return _cross_entropy(h @ output["weight"] + output["bias"], y)


def _rnn_gradient(params: dict[str, Any], sequences: FloatArray, y: IntArray, *, bug: str = "") -> dict[str, Any]:
    cell, output = params["cell"], params["output"]
    steps = sequences.shape[1]
    states = [np.zeros((len(y), len(cell["bias"])), sequences.dtype)]
    for t in range(steps):
        Z = sequences[:, t] @ cell["input"] + states[-1] @ cell["recurrent"] + cell["bias"]
        states.append(np.tanh(Z))
    dS = _output_step(states[-1] @ output["weight"] + output["bias"], y, bug)
    dcell = {name: np.zeros_like(value) for name, value in cell.items()}
    dh = dS @ output["weight"].T
    for t in reversed(range(steps)):
        h = states[t + 1]
        slope = {"missing_activation_derivative": np.ones_like(h), "wrong_activation_derivative": h * (1 - h)}
        dZ = dh * slope.get(bug, 1 - h**2)
        # states[t] went into step t; states[t + 1] came out of it
        previous = states[t + 1] if bug == "off_by_one_time" else states[t]
        dcell["input"] += sequences[:, t].T @ dZ
        dcell["recurrent"] += previous.T @ dZ
        dcell["bias"] += dZ.sum(axis=0)
        dh = dZ @ cell["recurrent"].T
        if bug == "truncated_time" and t == steps - 3:
            break
    return {"cell": dcell, "output": {"weight": states[-1].T @ dS, "bias": dS.sum(axis=0)}}


def rnn(*, units: int = 12, batch: int = 40, seed: int = 0) -> Net:
    """Return a tanh RNN over the 8 rows of a digit, softmax after the last, its parameters in a nested dict.

    Parameters
    ----------
    units, batch : int
        Hidden units, number of digits.
    seed : int
        Of the batch and the parameters.
    """
    rng = np.random.default_rng(seed)
    X, y = digits_batch(batch, rng)
    params = {
        "cell": {
            "input": rng.standard_normal((8, units)) / np.sqrt(8),
            "recurrent": rng.standard_normal((units, units)) / np.sqrt(units),
            "bias": 0.1 * rng.standard_normal(units),
        },
        "output": {
            "weight": rng.standard_normal((units, 10)) / np.sqrt(units),
            "bias": 0.1 * rng.standard_normal(10),
        },
    }
    kinds = ("missing_activation_derivative", "wrong_activation_derivative", "softmax_diagonal")
    bugs = with_bugs(_rnn_gradient, *kinds, "off_by_one_time", "truncated_time")
    biases = ("cell.bias", "output.bias")
    return _sequence_net("rnn", _rnn_loss, _rnn_gradient, params, (X.reshape(-1, 8, 8), y), biases, bugs)


def _sigmoid(z: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-z)))


def _gru_loss(params: GruParams, sequences: FloatArray, y: IntArray) -> float:
    """Return the mean softmax cross-entropy after the last step; h' = z h + (1 - z) tanh(U x + r (V h) + b)."""
    h = np.zeros((len(y), params.output.shape[1]))
    for t in range(sequences.shape[1]):
        from_input = np.einsum("gui,mi->gmu", params.input, sequences[:, t]) + params.gate_bias[:, None]
        from_state = np.einsum("guv,mv->gmu", params.recurrent, h)
        update, reset = (0.5 + 0.5 * np.tanh(0.5 * (from_input[g] + from_state[g])) for g in (0, 1))
        h = update * h + (1 - update) * np.tanh(from_input[2] + reset * from_state[2])
    return _cross_entropy(h @ params.output.T + params.output_bias, y)


def _gru_gradient(params: GruParams, sequences: FloatArray, y: IntArray, *, bug: str = "") -> GruParams:
    U, V, b = params.input, params.recurrent, params.gate_bias
    h = np.zeros((len(y), V.shape[1]), sequences.dtype)
    tape = []
    for x in sequences.swapaxes(0, 1):
        z = _sigmoid(x @ U[0].T + h @ V[0].T + b[0])
        r = _sigmoid(x @ U[1].T + h @ V[1].T + b[1])
        state = h @ V[2].T
        c = np.tanh(x @ U[2].T + r * state + b[2])
        tape.append((x, h, z, r, state, c))
        h = z * h + (1 - z) * c
    dS = _output_step(h @ params.output.T + params.output_bias, y, bug)
    dU, dV, db = np.zeros_like(U), np.zeros_like(V), np.zeros_like(b)
    dh, after = dS @ params.output, h
    for x, before, z, r, state, c in reversed(tape):
        dc = dh * (1 - z) * (c * (1 - c) if bug == "wrong_activation_derivative" else 1 - c * c)
        dz = dh * (before - c)
        dr = dc * state
        if bug != "missing_activation_derivative":
            dz, dr = dz * z * (1 - z), dr * r * (1 - r)
        seen = after if bug == "off_by_one_time" else before
        dh = dh * z
        for gate, (d_in, d_state) in enumerate(((dz, dz), (dr, dr), (dc, dc * r))):
            dU[gate] += d_in.T @ x
            dV[gate] += d_state.T @ seen
            db[gate] += d_in.sum(axis=0)
            dh = dh + d_state @ V[gate]
        after = before
    return GruParams(dU, dV, db, dS.T @ h, dS.sum(axis=0))


def gru(*, units: int = 8, batch: int = 30, seed: int = 0) -> Net:
    """Return a GRU (Cho et al. 2014, reset after the product) over the rows of a digit, in a namedtuple.

    Parameters
    ----------
    units, batch : int
        Hidden units, number of digits.
    seed : int
        Of the batch and the parameters.
    """
    rng = np.random.default_rng(seed)
    X, y = digits_batch(batch, rng)
    params = GruParams(
        rng.standard_normal((3, units, 8)) / np.sqrt(8),
        rng.standard_normal((3, units, units)) / np.sqrt(units),
        0.1 * rng.standard_normal((3, units)),
        rng.standard_normal((10, units)) / np.sqrt(units),
        0.1 * rng.standard_normal(10),
    )
    kinds = ("missing_activation_derivative", "wrong_activation_derivative", "softmax_diagonal", "off_by_one_time")
    bugs = with_bugs(_gru_gradient, *kinds)
    biases = ("gate_bias", "output_bias")
    return _sequence_net("gru", _gru_loss, _gru_gradient, params, (X.reshape(-1, 8, 8), y), biases, bugs)


def _sequence_net(
    name: str,
    loss: Callable[..., float],
    gradient: Callable[..., Any],
    params: Any,
    args: tuple[FloatArray, IntArray],
    biases: tuple[str, ...],
    bugs: dict[str, Callable[..., Any]],
) -> Net:
    description = f"{name} over the rows of the digits, softmax cross-entropy after the last"
    batch = len(args[1])
    return Net(
        loss,
        gradient,
        params,
        args,
        name=name,
        description=description,
        batch=batch,
        classes=10,
        biases=biases,
        take=rows,
        bugs=bugs,
    )
