"""Faults put into the Lua scripts, and which of the checks notices each: `python -m tests.mutants`."""
