"""From arguments to bytes and back, trusting nothing: what is in the body of a job.

What others use: `Codec` and `Cipher` (codec), `Signature` (arguments: how a call fits a function), `check_travel` (travel:
whether arguments arrive as they are sent). extensions has the types beyond msgpack, rebuild makes objects of annotations
again, compression and spread bound what a hostile body can cost.
"""

from zwheel.payload import codec

__all__ = ["codec"]
