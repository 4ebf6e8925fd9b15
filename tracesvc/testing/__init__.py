"""For tests of programs: what a program does, recorded by the virtual time of trio's `trio.testing.MockClock`."""

from tracesvc.testing.record import record

__all__ = ["record"]
