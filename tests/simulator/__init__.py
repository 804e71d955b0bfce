"""A deterministic simulator: a whole fleet in one thread, in virtual time, against real scripts, with faults by seed."""
