"""Measures zwheel beside the floor of the same machine: `python -m benchmarks`; README.md says how to read it."""
