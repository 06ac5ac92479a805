"""Numba kernels: pure loops over packed arrays that write to slots their caller owns."""
