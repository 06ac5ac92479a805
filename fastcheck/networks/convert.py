"""Networks read off what the user already has: named arrays, a torch Sequential, a scikit-learn MLP."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from fastcheck.errors import InputError, MissingDependencyError
from fastcheck.networks.activations import Activation, elu, leaky_relu
from fastcheck.networks.layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Embedding,
    Flatten,
    Layer,
    LayerNorm,
    MaxPool2D,
)
from fastcheck.networks.network import Network
from fastcheck.parameters import Block, Parameters

__all__ = ["from_params", "from_sklearn", "from_torch"]


def from_params(params: Any, activation: str | Activation = "tanh", last: str | None = None, **options: Any) -> Network:
    """Describe a stack of dense layers by the names and shapes of its blocks.

    Blocks are W1, b1, W2, b2 ... (or w, weight, coef, kernel; b, bias, intercept; with a number before or after, as in
    "layers.0.weight"), in the order of their numbers. Whether weights are (out, in) or (in, out) is told by the
    shapes, each layer's output being the next one's input.

    Parameters
    ----------
    params : tree of float arrays
    activation : str
        Of all layers but the last.
    last : str, optional
        Activation of the last layer.
    **options
        Passed to `Network`: loss, samples, l2 ...

    Raises
    ------
    InputError
        A name is not understood, or the shapes allow no orientation or both.
    """
    layout = Parameters.of(params)
    weights: dict[int, Block] = {}
    biases: dict[int, Block] = {}
    for block in layout.blocks:
        number, is_bias = _read(block)
        target = biases if is_bias else weights
        if number in target:
            raise InputError(
                f"blocks {target[number].name!r} and {block.name!r} have one number; write the layers out."
            )
        target[number] = block
    if not weights or not set(biases) <= set(weights):
        lone = [biases[n].name for n in biases if n not in weights]
        raise InputError(
            f"from_params finds no weight for {lone or 'any layer'}; write the layers out: Dense('W1', 'b1')."
        )
    order = sorted(weights)
    shapes = [weights[n].shape for n in order]
    outs = [biases[n].size if n in biases else None for n in order]
    orientation = _orientation(shapes, outs)
    layers = [
        Dense(
            weights[n].name,
            biases[n].name if n in biases else None,
            activation if n != order[-1] else last,
            weights=orientation,  # type: ignore[arg-type]
        )
        for n in order
    ]
    return Network(layers, **options)


def _read(block: Block) -> tuple[int, bool]:
    words = re.findall(r"[A-Za-z]+", block.name)
    numbers = re.findall(r"\d+", block.name)
    kind = words[-1].lower().rstrip("s_") if words else ""
    if kind in ("w", "weight", "coef", "kernel", "theta") and len(block.shape) == 2:
        is_bias = False
    elif kind in ("b", "bia", "bias", "intercept"):
        is_bias = True
    else:
        raise InputError(
            f"from_params does not understand block {block.name!r} of shape {block.shape}; it reads names like W1 "
            "(2-D) and b1. Write the layers out: Network([Dense('W1', 'b1', 'tanh'), ...])."
        )
    return int(numbers[-1]) if numbers else 0, is_bias


def _orientation(shapes: Sequence[tuple[int, ...]], outs: Sequence[int | None]) -> str:
    fits = {}
    for name, out, into in (("out_in", 0, 1), ("in_out", 1, 0)):
        chained = all(a[out] == b[into] for a, b in pairwise(shapes))
        fits[name] = chained and all(n is None or n == shape[out] for n, shape in zip(outs, shapes, strict=True))
    found = [name for name, good in fits.items() if good]
    if len(found) != 1:
        why = "allow no order of layers" if not found else "fit both (out, in) and (in, out)"
        raise InputError(f"the shapes {list(shapes)} {why}; write the layers out: Dense('W1', 'b1', weights='out_in').")
    return found[0]


def from_torch(module: Any, loss: str = "softmax_cross_entropy", **options: Any) -> Network:
    """Describe a ``torch.nn.Sequential`` of known layers; blocks have the names of its state: "0.weight", "0.bias".

    Understood: Linear, Conv2d (zero padding, no groups or dilation), MaxPool2d, AvgPool2d, Flatten, BatchNorm
    (training), LayerNorm (over all features), Embedding, Identity, the activations, and nested Sequential.

    Raises
    ------
    InputError
        A layer is not understood, or dropout is on.
    MissingDependencyError
        torch is not installed.
    """
    torch = _import("torch", "fastcheck[torch]")
    if not isinstance(module, torch.nn.Sequential):
        raise InputError(
            f"from_torch reads a torch.nn.Sequential, and gets {type(module).__name__}. Write the layers out."
        )
    layers: list[Layer] = []
    _read_sequential(module, "", layers)
    return Network(layers, loss, samples="rows", **options)


def _read_sequential(module: Any, prefix: str, layers: list[Layer]) -> None:
    for name, part in module.named_children():
        kind = type(part).__name__
        if kind == "Sequential":
            _read_sequential(part, f"{prefix}{name}.", layers)
        elif kind in _TORCH_ACTIVATIONS:
            _activate(layers, _TORCH_ACTIVATIONS[kind](part), f"{prefix}{name} ({kind})")
        elif kind in _TORCH_LAYERS:
            layers.append(_TORCH_LAYERS[kind](part, f"{prefix}{name}."))
        elif kind == "Dropout" and (part.p == 0 or not part.training):
            continue
        elif kind != "Identity":
            hint = "Call eval() or set p=0: a random loss has no gradient to check." if kind == "Dropout" else ""
            raise InputError(
                f"from_torch does not know layer {prefix}{name} ({kind}). {hint or 'Write the layers out.'}"
            )


def _activate(layers: list[Layer], activation: str | Activation, where: str) -> None:
    """Give the last layer that can have one an activation."""
    last = layers[-1] if layers else None
    if not isinstance(last, Dense | Conv2D | BatchNorm | LayerNorm) or last.activation is not None:
        # Identical otherwise: a normalisation or pool with an activation after it is a layer of its own here.
        raise InputError(f"from_torch cannot place the activation {where}: it must follow Linear, Conv2d or a norm.")
    layers[-1] = type(last)(**(vars(last) | {"activation": activation}))


def _same(value: Any, what: str) -> int:
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(set(pair)) != 1 or not isinstance(pair[0], int):
        raise InputError(f"from_torch: {what}={value!r}; only equal whole numbers for both axes are supported.")
    return pair[0]


def _conv(part: Any, prefix: str) -> Layer:
    if part.groups != 1 or _same(part.dilation, "dilation") != 1 or part.padding_mode != "zeros":
        raise InputError(f"from_torch: {prefix[:-1]} (Conv2d) has groups, dilation or another padding than zeros.")
    stride, padding = _same(part.stride, "stride"), _same(part.padding, "padding")
    return Conv2D(f"{prefix}weight", _named(part.bias, prefix, "bias"), stride=stride, padding=padding)


def _named(value: Any, prefix: str, name: str) -> str | None:
    return None if value is None else prefix + name


def _pool(kind: Callable[..., Layer]) -> Callable[[Any, str], Layer]:
    def read(part: Any, prefix: str) -> Layer:
        if getattr(part, "ceil_mode", False) or not getattr(part, "count_include_pad", True):
            raise InputError(f"from_torch: {prefix[:-1]} has ceil_mode or leaves the padding out of the mean.")
        if _same(getattr(part, "dilation", 1), "dilation") != 1 or getattr(part, "divisor_override", None):
            raise InputError(f"from_torch: {prefix[:-1]} has dilation or another divisor.")
        sizes = [_same(v, "size, stride or padding") for v in (part.kernel_size, part.stride, part.padding)]
        return kind(*sizes)

    return read


def _norm(kind: Callable[..., Layer]) -> Callable[[Any, str], Layer]:
    def read(part: Any, prefix: str) -> Layer:
        if kind is BatchNorm and not part.training:
            raise InputError(
                f"from_torch: {prefix[:-1]} uses running statistics; call train(), or write the layers out."
            )
        gain, shift = _named(part.weight, prefix, "weight"), _named(getattr(part, "bias", None), prefix, "bias")
        return kind(gain, shift, eps=part.eps)

    return read


_TORCH_LAYERS: dict[str, Callable[[Any, str], Layer]] = {
    "Linear": lambda part, prefix: Dense(f"{prefix}weight", _named(part.bias, prefix, "bias")),
    "Conv2d": _conv,
    "MaxPool2d": _pool(MaxPool2D),
    "AvgPool2d": _pool(AvgPool2D),
    "Flatten": lambda part, prefix: Flatten(),
    "BatchNorm1d": _norm(BatchNorm),
    "BatchNorm2d": _norm(BatchNorm),
    "LayerNorm": _norm(LayerNorm),
    "Embedding": lambda part, prefix: Embedding(f"{prefix}weight"),
}

_TORCH_ACTIVATIONS: dict[str, Callable[[Any], str | Activation]] = {
    "ReLU": lambda part: "relu",
    "LeakyReLU": lambda part: leaky_relu(part.negative_slope),
    "ELU": lambda part: elu(part.alpha),
    "Tanh": lambda part: "tanh",
    "Sigmoid": lambda part: "sigmoid",
    "Softplus": lambda part: _softplus(part),
    "GELU": lambda part: "gelu" if part.approximate == "none" else "gelu_tanh",
    "SiLU": lambda part: "silu",
    "Softmax": lambda part: "softmax",
}


def _softplus(part: Any) -> str:
    if part.beta != 1:
        raise InputError(f"from_torch: Softplus with beta={part.beta}; only beta=1 is known.")
    return "softplus"


def from_sklearn(model: Any, **options: Any) -> Network:
    """Describe a fitted ``MLPClassifier`` or ``MLPRegressor`` and its training loss.

    Blocks are "coefs.0", "intercepts.0" ...: those of ``params = {"coefs": model.coefs_, "intercepts":
    model.intercepts_}``. The loss is scikit-learn's: mean log loss, or half the mean squared error, plus
    ``alpha / (2 B)`` times the squared weights, so ``options`` must have ``batch=B``, the number of samples.

    Raises
    ------
    InputError
        The model is not fitted, or is of another kind; ``batch`` is missing.
    MissingDependencyError
        scikit-learn is not installed.
    """
    network = _import("sklearn.neural_network", "scikit-learn")
    if not isinstance(model, network.MLPClassifier | network.MLPRegressor) or not hasattr(model, "coefs_"):
        raise InputError(
            f"from_sklearn reads a fitted MLPClassifier or MLPRegressor, and gets {model!r}. Fit it first."
        )
    batch = options.pop("batch", None)
    if not isinstance(batch, int | np.integer) or batch < 1:
        raise InputError(f"batch={batch!r}; scikit-learn divides alpha by the number of samples: pass batch=len(X).")
    hidden = {"identity": None, "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}[model.activation]
    count = len(model.coefs_)
    layers = [
        Dense(f"coefs.{i}", f"intercepts.{i}", hidden if i < count - 1 else None, weights="in_out")
        for i in range(count)
    ]
    by_output = {"softmax": "softmax_cross_entropy", "logistic": "binary_cross_entropy", "identity": "squared_error"}
    # The squared error of a regressor is a mean over outputs as well as samples.
    scale = 1.0 / model.n_outputs_ if model.out_activation_ == "identity" else 1.0
    l2 = model.alpha / batch
    return Network(
        layers, **({"loss": by_output[model.out_activation_], "samples": "rows", "scale": scale, "l2": l2} | options)
    )


def _import(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(f"{name} is not installed: pip install '{package}'") from error
