"""Every small net, shipped ones included, for suites that run over all of them; and random ones."""

from __future__ import annotations

import numpy as np

from fastcheck.bugs.mutation import Net
from fastcheck.examples.course import course_net
from fastcheck.examples.dense import Activation, mlp
from fastcheck.examples.digits import digits_net
from fastcheck.examples.linear import linear_regression, logistic_regression
from tests.zoo.attention import attention_block
from tests.zoo.autoencoder import tied_autoencoder
from tests.zoo.batchnorm import batchnorm_net
from tests.zoo.conv import conv_net
from tests.zoo.embedding import embedding_net
from tests.zoo.hinge import hinge_net
from tests.zoo.recurrent import gru, rnn
from tests.zoo.residual import residual_net

__all__ = ["nets", "random_net"]


def nets(seed: int = 0) -> list[Net]:
    """Return every small example (27 to a few thousand coordinates), each with a correct gradient.

    Parameters
    ----------
    seed : int
        Of data and parameters; the course net is the same for every seed.
    """
    return [
        course_net(),
        linear_regression(seed=seed),
        logistic_regression(seed=seed, l2=0.0),
        logistic_regression(seed=seed, l2=0.1, l1=0.05),
        mlp((20, 16, 16, 5), batch=24, seed=seed),
        mlp((20, 16, 16, 5), batch=24, activation="relu", l2=0.1, seed=seed),
        digits_net((24, 24), batch=64, l2=1e-2, seed=seed),
        digits_net((24, 16), batch=64, activation="tanh", keep=0.7, seed=seed),
        hinge_net(seed=seed),
        conv_net(seed=seed),
        rnn(seed=seed),
        gru(seed=seed),
        attention_block(seed=seed),
        batchnorm_net(seed=seed),
        embedding_net(seed=seed),
        residual_net(seed=seed),
        tied_autoencoder(seed=seed),
    ]


def random_net(seed: int) -> Net:
    """Return a small dense net of random depth, widths, activation, batch, L2, dropout and data, correctly derived.

    Parameters
    ----------
    seed : int
        Of every choice; equal seeds give equal nets.
    """
    rng = np.random.default_rng(seed)
    hidden = rng.integers(2, 13, rng.integers(1, 4)).tolist()
    activation: Activation = "tanh" if rng.random() < 0.5 else "relu"
    batch = int(rng.integers(2, 41))
    l2 = float(rng.choice([0.0, 10 ** rng.uniform(-4, 0)]))
    if rng.random() < 0.5:
        keep = float(rng.choice([1.0, 0.7]))
        return digits_net(hidden, activation=activation, batch=batch, l2=l2, keep=keep, seed=seed)
    sizes = [int(rng.integers(1, 13)), *hidden, int(rng.integers(2, 8))]
    return mlp(sizes, activation=activation, batch=batch, l2=l2, seed=seed)
