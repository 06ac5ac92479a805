"""``python -m fastcheck``."""

from fastcheck.cli import main

main()
