"""Products with a Jacobian: J^T u (reverse mode), J v (forward mode) and H v, checked against differences of f."""

from fastcheck.products.hvp import check_hvp
from fastcheck.products.jacobian import check_jacobian
from fastcheck.products.jvp import check_jvp
from fastcheck.products.vjp import check_vjp

__all__ = ["check_hvp", "check_jacobian", "check_jvp", "check_vjp"]
