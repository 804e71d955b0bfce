"""What `zwheel doctor` looks at: the server, and each queue's keys. Steps without I/O, like the operations."""

from zwheel.doctor.access import check_rights
from zwheel.doctor.eviction import Policy, eviction_policy, refusal
from zwheel.doctor.finding import Finding, Level
from zwheel.doctor.keyspace import Keyspace, known_queues
from zwheel.doctor.probe import info_fields
from zwheel.doctor.queues import Health, check_queue, mend_queue, unanswered_queue
from zwheel.doctor.server import check_redis, check_url

__all__ = [
    "Finding",
    "Health",
    "Keyspace",
    "Level",
    "Policy",
    "check_queue",
    "check_redis",
    "check_rights",
    "check_url",
    "eviction_policy",
    "info_fields",
    "known_queues",
    "mend_queue",
    "refusal",
    "unanswered_queue",
]
