"""The native part of the codec, where it was built; what it does, NumPy and Python do as well."""

from __future__ import annotations

import os
from types import ModuleType

__all__ = ["native"]

native: ModuleType | None
"""the extension module; None: there is none, or ``TRACESVC_NATIVE=0`` is in the environment"""
try:
    from tracesvc.format import _bulk as native
except ImportError:
    native = None
if os.environ.get("TRACESVC_NATIVE") == "0":
    native = None
