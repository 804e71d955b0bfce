"""A run of real processes under random faults, whose history is checked at the end: `python -m tests.chaos`."""
