"""The way to Redis and Valkey: nothing below here is about jobs, and only this wing imports redis.

What others use: `Store`, `SyncStore`, `Listener` and `Steps` (store: sends calls, retries, pauses), `parse_url` and `mask_url`
(address), `check_server` (connect), `Role`, `rules` and `command_for` (acl: the rights of each role). wire, pool and
errors are the store's own.
"""
