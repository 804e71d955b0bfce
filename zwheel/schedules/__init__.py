"""Schedules: when occurrences are, and what becomes of each. Pure: nothing here does I/O."""
