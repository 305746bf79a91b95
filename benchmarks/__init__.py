"""Benchmarks: `python -m benchmarks NAME`; `benchmarks/results` holds what was measured."""
