"""One module a peer: the same work by its documented interface. Each is run by the Python of its peer, which has no zwheel."""
