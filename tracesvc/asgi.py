"""For programs that are ASGI applications: `debug_app`."""

from tracesvc.control.debug import debug_app

__all__ = ["debug_app"]
