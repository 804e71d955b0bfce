"""Pages for readers, followed line by line."""
