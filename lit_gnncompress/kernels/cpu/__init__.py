"""Numba: one file an operation."""
