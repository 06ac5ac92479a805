"""Nets with hand-written backward passes for tests and benchmarks alone; those that ship are `fastcheck.examples`."""

from tests.zoo.attention import attention_block
from tests.zoo.autoencoder import tied_autoencoder
from tests.zoo.batchnorm import batchnorm_net
from tests.zoo.collection import nets, random_net
from tests.zoo.compiled import compiled_course_net, compiled_mlp
from tests.zoo.conv import conv_net
from tests.zoo.embedding import embedding_net
from tests.zoo.hinge import hinge_net
from tests.zoo.recurrent import gru, rnn
from tests.zoo.residual import residual_net
from tests.zoo.training import train

__all__ = [
    "attention_block",
    "batchnorm_net",
    "compiled_course_net",
    "compiled_mlp",
    "conv_net",
    "embedding_net",
    "gru",
    "hinge_net",
    "nets",
    "random_net",
    "residual_net",
    "rnn",
    "tied_autoencoder",
    "train",
]
