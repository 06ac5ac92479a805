"""Real nets with hand-written forward and backward passes, for the demo, the docs, the tests and the benchmarks."""

from fastcheck.examples.course import course_net
from fastcheck.examples.dense import digits_net, mlp
from fastcheck.examples.digits import load_digits
from fastcheck.examples.net import Net
from fastcheck.examples.training import train

__all__ = ["Net", "course_net", "digits_net", "load_digits", "mlp", "train"]
