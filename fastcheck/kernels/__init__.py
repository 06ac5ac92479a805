"""Compiled kernels: numba only, pure functions of arrays."""
