"""The collection: every small net, for suites that run over all of them."""

from __future__ import annotations

from fastcheck.examples.attention import attention_block
from fastcheck.examples.autoencoder import tied_autoencoder
from fastcheck.examples.batchnorm import batchnorm_net
from fastcheck.examples.conv import conv_net
from fastcheck.examples.course import course_net
from fastcheck.examples.dense import mlp
from fastcheck.examples.digits_net import digits_net
from fastcheck.examples.embedding import embedding_net
from fastcheck.examples.hinge import hinge_net
from fastcheck.examples.linear import linear_regression, logistic_regression
from fastcheck.examples.net import Net
from fastcheck.examples.recurrent import gru, rnn
from fastcheck.examples.residual import residual_net

__all__ = ["zoo"]


def zoo(seed: int = 0) -> list[Net]:
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
