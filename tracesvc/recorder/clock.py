"""The one clock of a trace."""

import time

__all__ = ["now", "wall"]

now = time.monotonic_ns
"""ns of ``CLOCK_MONOTONIC``: one for all threads and processes of a machine"""

wall = time.time_ns
"""ns since the epoch"""
