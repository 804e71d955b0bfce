"""What a client can do, each as steps without I/O that the async and the blocking shell carry out alike."""

from zwheel.operations.act import (
    cancel,
    create_queue,
    matcher,
    pause,
    purge,
    purge_dead,
    redrive,
    reschedule,
    resume,
    set_cap,
    set_precise,
)
from zwheel.operations.durable import confirmed
from zwheel.operations.learn import learn, published, published_rows, task_names
from zwheel.operations.overview import days, hours, queue_info, queue_infos, workers
from zwheel.operations.produce import Bulk, enqueue_batch
from zwheel.operations.publish import publish, unpublish
from zwheel.operations.read import (
    count,
    get,
    jobs,
    ping,
    queues,
    wait,
)
from zwheel.operations.reshard import reshard
from zwheel.operations.tasks import next_tasks, serving, tasks

__all__ = [
    "Bulk",
    "cancel",
    "confirmed",
    "count",
    "create_queue",
    "days",
    "enqueue_batch",
    "get",
    "hours",
    "jobs",
    "learn",
    "matcher",
    "next_tasks",
    "pause",
    "ping",
    "publish",
    "published",
    "published_rows",
    "purge",
    "purge_dead",
    "queue_info",
    "queue_infos",
    "queues",
    "redrive",
    "reschedule",
    "reshard",
    "resume",
    "serving",
    "set_cap",
    "set_precise",
    "task_names",
    "tasks",
    "unpublish",
    "wait",
    "workers",
]
