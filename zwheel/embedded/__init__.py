"""The private server of a project, for development: started, looked at, emptied and stopped.

server is what is done with it, home is where its files lie, binary is the program that it runs. trust says whether a file's
owner and mode make it one that may be believed.
"""

from zwheel.embedded.server import Server, reset, start, status, stop

__all__ = ["Server", "reset", "start", "status", "stop"]
