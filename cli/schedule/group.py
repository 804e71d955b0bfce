"""`zwheel schedule`: what fires again and again."""

from __future__ import annotations

from zwheel.cli.app import group

from . import add, change, crontab, file, listing, look

app = group("Add, look at, change and explain what fires again and again.")

add.add_to(app)
listing.add_to(app)
look.add_to(app)
change.add_to(app)
file.add_to(app)
crontab.add_to(app)
