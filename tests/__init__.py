"""The tests. A package, so that `from tests.servers import RedisServer` works in all of them."""
