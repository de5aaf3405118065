"""``python -m keyop`` is ``keyop``."""

from keyop.cli import main

main()
