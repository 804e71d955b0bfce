"""How each script is called and how its answer is read, without I/O: one module a transition, named like its script."""

from zwheel.calls.advance import Advance, After, NewOccurrence, advance, read_advance
from zwheel.calls.arrive import arrive, read_arrive
from zwheel.calls.call import (
    BATCH_LIMIT,
    Call,
    Lane,
    Reply,
    clock_us,
    day_name,
    foreign_schema,
    read_count,
    read_letters,
    word,
)
from zwheel.calls.cancel import cancel
from zwheel.calls.claim import Claimed, claim, read_claim
from zwheel.calls.define import define, read_define
from zwheel.calls.depart import (
    DEPART_LIMIT,
    Departed,
    Leaving,
    WaitingSchedule,
    depart_day,
    depart_dedup,
    depart_schedules,
    depart_set,
    read_depart,
)
from zwheel.calls.doubts import Doubt
from zwheel.calls.enqueue import EnqueueCall, NewJob, ShardsChanged, enqueue, letters_repeated, read_enqueue
from zwheel.calls.extend import extend
from zwheel.calls.offer import GROUPS_LIMIT, OFFER_MS, Offer, offer
from zwheel.calls.prune import prune
from zwheel.calls.purge import Purged, purge, read_purge
from zwheel.calls.reap import Reaped, read_reap, reap
from zwheel.calls.redrive import redrive
from zwheel.calls.repair import REPAIR_DAYS, REPAIR_JOBS, Repaired, read_repair, repair
from zwheel.calls.reschedule import read_reschedule, reschedule
from zwheel.calls.reshard import clear_shard, close_shard, end_shard, list_cut, open_shard, prepare_shard
from zwheel.calls.scripts import reading
from zwheel.calls.session import Session, placed
from zwheel.calls.settle import Ending, settle
from zwheel.calls.step_down import step_down
from zwheel.calls.waits import WAITS, reached, waits, with_receipt

__all__ = [
    "BATCH_LIMIT",
    "DEPART_LIMIT",
    "GROUPS_LIMIT",
    "OFFER_MS",
    "REPAIR_DAYS",
    "REPAIR_JOBS",
    "WAITS",
    "Advance",
    "After",
    "Call",
    "Claimed",
    "Departed",
    "Doubt",
    "Ending",
    "EnqueueCall",
    "Lane",
    "Leaving",
    "NewJob",
    "NewOccurrence",
    "Offer",
    "Purged",
    "Reaped",
    "Repaired",
    "Reply",
    "Session",
    "ShardsChanged",
    "WaitingSchedule",
    "advance",
    "arrive",
    "cancel",
    "claim",
    "clear_shard",
    "clock_us",
    "close_shard",
    "day_name",
    "define",
    "depart_day",
    "depart_dedup",
    "depart_schedules",
    "depart_set",
    "end_shard",
    "enqueue",
    "extend",
    "foreign_schema",
    "letters_repeated",
    "list_cut",
    "offer",
    "open_shard",
    "placed",
    "prepare_shard",
    "prune",
    "purge",
    "reached",
    "read_advance",
    "read_arrive",
    "read_claim",
    "read_count",
    "read_define",
    "read_depart",
    "read_enqueue",
    "read_letters",
    "read_purge",
    "read_reap",
    "read_repair",
    "read_reschedule",
    "reading",
    "reap",
    "redrive",
    "repair",
    "reschedule",
    "settle",
    "step_down",
    "waits",
    "with_receipt",
    "word",
]
