"""The worker's runtime: claims due jobs, runs them, settles how they ended, and keeps what it holds alive."""

from .settings import WorkerSettings
from .worker import Worker

__all__ = ["Worker", "WorkerSettings"]
