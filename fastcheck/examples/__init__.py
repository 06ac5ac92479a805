"""Real nets with hand-written forward and backward passes, for the demo and the docs."""

from fastcheck.examples.course import course_net
from fastcheck.examples.dense import mlp
from fastcheck.examples.digits import digits_net, load_digits
from fastcheck.examples.linear import linear_regression, logistic_regression

__all__ = ["course_net", "digits_net", "linear_regression", "load_digits", "logistic_regression", "mlp"]
