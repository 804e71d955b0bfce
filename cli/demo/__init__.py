"""`zwheel demo`: the shop, its orders, the run, and the report of it."""
