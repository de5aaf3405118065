"""``python -m keyop.cli``."""

from keyop.cli import main

main()
