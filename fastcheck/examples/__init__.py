"""Real nets with hand-written forward and backward passes, for the demo, the docs, the tests and the benchmarks."""

from fastcheck.examples.attention import attention_block
from fastcheck.examples.autoencoder import tied_autoencoder
from fastcheck.examples.batchnorm import batchnorm_net
from fastcheck.examples.compiled import compiled_course_net, compiled_mlp
from fastcheck.examples.conv import conv_net
from fastcheck.examples.course import course_net
from fastcheck.examples.dense import mlp
from fastcheck.examples.digits import load_digits
from fastcheck.examples.digits_net import digits_net
from fastcheck.examples.embedding import embedding_net
from fastcheck.examples.hinge import hinge_net
from fastcheck.examples.linear import linear_regression, logistic_regression
from fastcheck.examples.net import Net
from fastcheck.examples.recurrent import gru, rnn
from fastcheck.examples.residual import residual_net
from fastcheck.examples.training import train
from fastcheck.examples.zoo import random_net, zoo

__all__ = [
    "Net",
    "attention_block",
    "batchnorm_net",
    "compiled_course_net",
    "compiled_mlp",
    "conv_net",
    "course_net",
    "digits_net",
    "embedding_net",
    "gru",
    "hinge_net",
    "linear_regression",
    "load_digits",
    "logistic_regression",
    "mlp",
    "random_net",
    "residual_net",
    "rnn",
    "tied_autoencoder",
    "train",
    "zoo",
]
