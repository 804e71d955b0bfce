"""What workers publish of their tasks, for clients that do not have the tasks' code.

Used elsewhere: `PublishedTask`, `read_row` and `facts_of` (task), `shape_of` and `fits` (shapes: annotations as data), and
`Catalogue` (catalogue: what a client has read so far).
"""
