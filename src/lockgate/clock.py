"""Time, as an argument: services own a clock, pure modules get ``now``.

Times are Unix seconds (UTC, float) everywhere but in spans, which use nanoseconds as OpenTelemetry does.
"""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Returns now in Unix seconds. ``system`` in production, ``lockgate.testing.FakeClock`` in tests."""

system: Clock = time.time
