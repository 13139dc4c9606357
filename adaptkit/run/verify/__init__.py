"""What a checkpoint claims, recomputed: `adaptkit verify`."""

from adaptkit.run.verify.checkpoint import verify_checkpoint
from adaptkit.run.verify.findings import DIFFERS, HOLDS, UNKNOWN, Finding

__all__ = ["DIFFERS", "HOLDS", "UNKNOWN", "Finding", "verify_checkpoint"]
