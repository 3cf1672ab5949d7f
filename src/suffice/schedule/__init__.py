"""Who goes next, and where? Admission with a bounded queue, and routing over several engines."""

from __future__ import annotations

from suffice.schedule.admission import Admission, QueueFullError, Slot, Throughput
from suffice.schedule.pool import Pool, Trace, Upstream

__all__ = ["Admission", "Pool", "QueueFullError", "Slot", "Throughput", "Trace", "Upstream"]
