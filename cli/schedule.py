"""`zwheel schedule`: what fires again and again."""

from __future__ import annotations

from . import schedule_add, schedule_change, schedule_file, schedule_import, schedule_list, schedule_look
from .app import group

app = group("Add, look at, change and explain what fires again and again.")

schedule_add.add_to(app)
schedule_list.add_to(app)
schedule_look.add_to(app)
schedule_change.add_to(app)
schedule_file.add_to(app)
schedule_import.add_to(app)
