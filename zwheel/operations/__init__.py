"""What a client can do, each as steps without I/O that the async and the blocking shell carry out alike."""

from zwheel.operations.act import (
    cancel,
    matcher,
    pause,
    purge,
    purge_dead,
    redrive,
    reschedule,
    resume,
    set_cap,
)
from zwheel.operations.overview import days, hours, queue_info, queue_infos, workers
from zwheel.operations.produce import Bulk, enqueue_batch
from zwheel.operations.read import (
    count,
    get,
    jobs,
    ping,
    queues,
    wait,
)

__all__ = [
    "Bulk",
    "cancel",
    "count",
    "days",
    "enqueue_batch",
    "get",
    "hours",
    "jobs",
    "matcher",
    "pause",
    "ping",
    "purge",
    "purge_dead",
    "queue_info",
    "queue_infos",
    "queues",
    "redrive",
    "reschedule",
    "resume",
    "set_cap",
    "wait",
    "workers",
]
