"""Reads histories and decides whether the promises held: nothing lost, nothing early, one holder, no silent duplicate."""

from zwheel.verify.bounds import Bounds
from zwheel.verify.check import check
from zwheel.verify.read import BadHistory, read
from zwheel.verify.report import Report, Verdict
from zwheel.verify.snapshot import take_snapshot

__all__ = ["BadHistory", "Bounds", "Report", "Verdict", "check", "read", "take_snapshot"]
