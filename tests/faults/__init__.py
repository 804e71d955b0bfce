"""One test for each fault of docs/reliability.md that no other folder shows, and the command that fills its last column."""
