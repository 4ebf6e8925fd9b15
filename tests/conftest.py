"""What holds for every test."""

from hypothesis import settings

# Deadlines judge the machine's load rather than the code; the blob repeats a failure anywhere.
settings.register_profile("tracesvc", deadline=None, print_blob=True)
settings.load_profile("tracesvc")
