"""``python -m tracesvc``."""

from tracesvc.cli import main

main()
