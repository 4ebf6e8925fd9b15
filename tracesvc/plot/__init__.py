"""A trace as a picture: a timeline of its tasks, for a bug report.

::

    from tracesvc.plot import plot

    plot(tracesvc.read("app.trace"), "app.svg")

SVG is written by this package; for PNG it is rendered by resvg: ``pip install 'tracesvc[plot]'``.
"""

from tracesvc.plot.picture import Plot, plot
from tracesvc.plot.timeline import Timeline, timeline

__all__ = ["Plot", "Timeline", "plot", "timeline"]
