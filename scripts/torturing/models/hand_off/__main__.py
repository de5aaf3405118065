"""By itself: ``PYTHONPATH=scripts python -m torturing.models.hand_off [--deep] [--show RULE]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from torturing.findings import as_text
from torturing.models import hand_off


def main() -> int:
    """Explore, say what was found; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="torturing.models.hand_off", description=hand_off.__doc__)
    hand_off.add_arguments(parser)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where the steps to a violation are kept")
    report = hand_off.run(parser.parse_args())
    print(as_text([report]))
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
