"""The way to Redis and Valkey: nothing below here is about jobs, and only this wing imports redis.

What others use: `Store`, `SyncStore` and `Steps` (store: sends calls, retries, pauses), `Listener` (listener), `parse_url` and `mask_url`
(address), `check_server` (connect), `Role`, `rules` and `command_for` (acl: the rights of each role). The others are the
store's own: wire, pool and errors; files (passwords, TLS), sentinel, and for a cluster cluster (which node) and nodes.
"""
