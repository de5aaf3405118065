"""What the library has to say while a command runs goes to standard error, in the same form as errors."""

from __future__ import annotations

import logging


def to_standard_error() -> None:
    """Have warnings of the library printed as ``keyop: ...``."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("keyop: %(message)s"))
    logger = logging.getLogger("keyop")
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
