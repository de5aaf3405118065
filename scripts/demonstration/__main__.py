"""Two hosts, with a connection that is cut for a while. Says at the end whether every message arrived exactly once."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from demonstration import READINGS
from demonstration.hosts import CLIENT, HUB
from demonstration.story import Story
from keyop.ipc import lease

WRITER_LEAVES_S = 10.0


def main() -> int:
    """0 if every published message has exactly one outcome at each worker, and both hosts hold the same."""
    options = _options()
    place = (options.dir or Path(tempfile.mkdtemp(prefix="keyop-demo-"))).resolve()
    place.mkdir(parents=True, exist_ok=True)
    # Whichever process needs a writer first starts it; here it is to leave soon after the last one has gone.
    os.environ["KEYOP_WRITER__IDLE_EXIT"] = "500ms"
    kept = options.keep or options.dir is not None
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        code = Story(place, stop).run(options.seconds)
        for host in (HUB, CLIENT):
            if not _writer_left(place / host):
                print(f"The writer of {place / host} still runs: another process is attached.")
    finally:
        if not kept:
            shutil.rmtree(place, ignore_errors=True)
    if kept:
        print(f"\nKept: {place} (look with: keyop tail {READINGS} --from earliest -d {place / CLIENT})")
    return code


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./scripts/demo", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, metavar="N", help="how long to publish (10)")
    parser.add_argument("--dir", type=Path, metavar="PATH", help="use this directory, and keep it")
    parser.add_argument("--keep", action="store_true", help="keep the temporary directory, and say where it is")
    return parser.parse_args()


def _writer_left(data_dir: Path) -> bool:
    deadline = time.monotonic() + WRITER_LEAVES_S
    while lease.is_held(data_dir / "run" / lease.WRITER_LOCK):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


if __name__ == "__main__":
    sys.exit(main())
