"""Triton: one file an operation."""
