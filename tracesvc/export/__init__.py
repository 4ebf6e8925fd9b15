"""Traces in the formats of other tools, one module each.

::

    from tracesvc.export import export

    export("app.trace", "perfetto", "app.pftrace")
"""

from tracesvc.export.registry import FORMATS, Format, export
from tracesvc.export.report import Exported

__all__ = ["FORMATS", "Exported", "Format", "export"]
