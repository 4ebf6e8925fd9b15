"""What holds for every test."""

import signal

import pytest
from hypothesis import settings

from tracesvc.recorder.exchanges import Exchanges, exchanges

# Deadlines judge the machine's load rather than the code; the blob repeats a failure anywhere.
settings.register_profile("tracesvc", deadline=None, print_blob=True)
settings.load_profile("tracesvc")

# A shell starts what it runs in the background with Ctrl-C ignored, and so would be all that tests start in turn.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def nothing_is_known_of_other_clocks():
    """What a push taught this process would stand in the traces of every later test."""
    vars(exchanges).update(vars(Exchanges()))
