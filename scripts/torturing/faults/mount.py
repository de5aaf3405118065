"""A mounted layer: a process of its own, which unmounts when its starter has gone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

from torturing.faults.control import Control

_MOUNT_S = 20.0
_UNMOUNT_S = 10.0
_SCRIPTS = Path(__file__).resolve().parents[2]


def missing() -> str:
    """What a layer needs and this machine does not have; empty if nothing is missing."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "no access to /dev/fuse"
    if shutil.which("fusermount3") is None:
        return "no fusermount3 (Debian: fuse3)"
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError) as error:
        return f"no mfusepy: {error}"
    return ""


class FaultyDisk:
    """A mount below ``place``, gone when it is left, whatever happens."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.mount = place / "mount"
        self.backing = place / "backing"
        self.mark = place / "mark"
        for directory in (self.mount, self.backing):
            directory.mkdir(parents=True)
        self._socket = place / "control"
        self.control = Control(self._socket)
        self.log = place / "layer.log"
        paths = [str(_SCRIPTS), *filter(None, [os.environ.get("PYTHONPATH")])]
        with self.log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, *map(str, (self.backing, self.mount, self.mark, self._socket))],
                stdin=subprocess.PIPE,
                stdout=errors,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                # Ctrl-C ends the scenarios; they unmount when they have ended what has files open here.
                start_new_session=True,
            )
        deadline = time.monotonic() + _MOUNT_S
        while not (os.path.ismount(self.mount) and self._socket.exists()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"the layer did not mount at {self.mount}: {self.log.read_text()}")
            time.sleep(0.005)

    def close(self) -> None:
        """Unmount; lazily, if somebody still has a file open."""
        assert self._process.stdin is not None
        try:
            if self._process.poll() is None:
                self.control.heal()
        except (OSError, RuntimeError):
            pass  # it never came up, or is just ending
        self._process.stdin.close()
        try:
            self._process.wait(_UNMOUNT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _unmount(self.mount)
        self._socket.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _unmount(mount: Path) -> None:
    """Also what is left of a layer that was killed."""
    if _stands_in_table(mount):
        subprocess.run(["fusermount3", "-u", "-z", str(mount)], check=False, capture_output=True)


def _stands_in_table(mount: Path) -> bool:
    # Not `ismount`: it fails where the layer's process is gone.
    return any(line.split()[1] == str(mount) for line in Path("/proc/mounts").read_text().splitlines())


# ---- the layer's process


def _unmount_at_end_of_input(mount: Path) -> None:
    while os.read(0, 4096):
        pass
    _unmount(mount)
    time.sleep(_UNMOUNT_S / 2)
    os._exit(1)  # somebody still has a file open, and is refused everything from here on


def _main(backing: Path, mount: Path, mark: Path, socket: Path) -> None:
    from mfusepy import FUSE

    from torturing.faults import control
    from torturing.faults.layer import Layer
    from torturing.faults.rules import Rulebook

    os.umask(0)
    sys.setswitchinterval(0.0005)
    layer = Layer(backing, Rulebook(), mark)
    control.serve(layer, socket)
    threading.Thread(target=_unmount_at_end_of_input, args=(mount,), daemon=True).start()
    timeouts = {"attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0}
    FUSE(layer, str(mount), foreground=True, fsname="keyop-faults", use_ino=True, direct_io=True, **timeouts)


if __name__ == "__main__":
    _main(*map(Path, sys.argv[1:]))
