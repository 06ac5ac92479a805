"""Small losses with gradients that are right, and errors to plant in them."""

import numpy as np


def smooth(rows=12, columns=9, seed=0):
    """Return loss, gradient and params of a smooth function of two matrices and a vector."""
    rng = np.random.default_rng(seed)
    params = {
        "W": rng.standard_normal((rows, columns)),
        "V": rng.standard_normal((columns, columns)),
        "b": rng.standard_normal(rows),
    }
    A, B, c = (rng.standard_normal(p.shape) for p in params.values())

    def loss(p):
        return float(np.sum(np.sin(p["W"] * A)) + np.sum(np.cos(p["V"] * B)) + np.sum(np.tanh(p["b"] * c))) / 10

    def gradient(p):
        return {
            "W": A * np.cos(p["W"] * A) / 10,
            "V": -B * np.sin(p["V"] * B) / 10,
            "b": c / np.cosh(p["b"] * c) ** 2 / 10,
        }

    return loss, gradient, params


def planted(gradient, params, change):
    """Return the gradient tree with a change made in place."""
    tree = {name: array.copy() for name, array in gradient(params).items()}
    change(tree)
    return tree
