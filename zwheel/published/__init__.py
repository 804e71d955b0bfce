"""What workers publish of their tasks, for those who have not got their code.

What others use: `PublishedTask`, `read_row` and `facts_of` (task), `shape_of` and `fits` (shapes: annotations as data), and
`Catalogue` (catalogue: what a client has read so far).
"""
