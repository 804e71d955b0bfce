"""Scripts that only read: they move no job, and so are no transitions."""
