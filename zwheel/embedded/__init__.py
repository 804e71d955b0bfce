"""The private server of a project, for development: started, looked at, emptied and stopped.

server starts, stops and empties it, home is the directory of its files, binary finds its program. trust says whether a
file may be believed, by its owner and mode.
"""

from zwheel.embedded.server import Server, reset, start, status, stop

__all__ = ["Server", "reset", "start", "status", "stop"]
