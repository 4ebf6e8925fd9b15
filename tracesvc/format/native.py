"""The native parts of the codec, where they were built; what they do, NumPy and Python do as well."""

from __future__ import annotations

import os
from types import ModuleType

__all__ = ["frames", "native", "why_not"]

native: ModuleType | None
"""the extension module that decodes columns; None: there is none, or ``TRACESVC_NATIVE=0`` is in the environment"""
frames: ModuleType | None
"""the one that looks at frames, likewise"""
try:
    from tracesvc.format import _bulk as native
except ImportError:
    native = None
try:
    from tracesvc.format import _frames as frames
except ImportError:
    frames = None
why_not = ", ".join(
    f"{name} was not built"
    for name, part in (("_bulk", native), ("_frames", frames))
    if part is None
)
"""what of it is not there, and why; empty: all is"""
if os.environ.get("TRACESVC_NATIVE") == "0":
    native = frames = None
    why_not = "TRACESVC_NATIVE=0"
