"""The private server of a project, for development: found, started, joined and stopped.

What others use: `start`, `find`, `stop` and their kind (server), and `distrust` (trust: whether a file's owner and mode make it
one that may be believed). home is where the server's files lie, binary is the program that it runs.
"""
