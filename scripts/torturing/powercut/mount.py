"""File systems: made on an image, mounted from it through a loop device."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torturing.powercut import system

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class FileSystem:
    """A kind of file system and how its small images are made."""

    name: str
    size_bytes: int
    make: tuple[str, ...]
    mount_options: str = ""
    superblocks: tuple[tuple[int, int], ...] = ()
    """Where the file system relies on a write of more than a sector being done whole or not at all: (begin, end)."""


FILE_SYSTEMS = {
    kind.name: kind
    for kind in (
        FileSystem(
            "ext4",
            64 * _MIB,
            ("-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0"),
            superblocks=((0, 4096),),
        ),
        # Without nouuid a copy is refused while another one is mounted.
        FileSystem("xfs", 320 * _MIB, ("-q", "-f"), "nouuid"),
        FileSystem(
            "btrfs",
            160 * _MIB,
            ("-q", "-f", "--mixed", "--nodiscard"),
            "nodiscard",
            superblocks=((64 << 10, 68 << 10), (64 << 20, (64 << 20) + 4096)),
        ),
    )
}


def missing(kind: str) -> str | None:
    """Why nothing of this can be done here; None if it can."""
    if os.geteuid() != 0:
        return "power cuts need root: they mount file systems"
    for device in ("/dev/fuse", "/dev/loop-control"):
        if not os.path.exists(device):
            return f"power cuts need {device}, which is not there"
    program = f"mkfs.{kind}"
    if shutil.which(program) is None:
        package = {"ext4": "e2fsprogs", "xfs": "xfsprogs", "btrfs": "btrfs-progs"}[kind]
        return f"power cuts on {kind} need {program} (Debian: {package})"
    if not _kernel_knows(kind):
        return f"power cuts on {kind} need a kernel that has {kind}"
    try:
        import mfusepy  # type: ignore[import-untyped]  # noqa: F401
    except (ImportError, OSError) as error:
        return f"power cuts need mfusepy and libfuse3 (Debian: fuse3): {error}"
    return system.missing_namespaces()


def _kernel_knows(kind: str) -> bool:
    known = Path("/proc/filesystems")
    if kind not in known.read_text().split() and shutil.which("modprobe"):
        subprocess.run(["modprobe", "-q", kind], check=False, stderr=subprocess.DEVNULL)
    return kind in known.read_text().split()


def make_image(kind: FileSystem, image: Path) -> None:
    """A new file system in a new file. Raises `RigError`."""
    with image.open("wb") as file:
        file.truncate(kind.size_bytes)
    command = [f"mkfs.{kind.name}", *kind.make, str(image)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise system.RigError(f"{' '.join(command)}: {made.stderr.strip()}")


@contextmanager
def mounted(kind: FileSystem, image: Path, place: Path, *, direct: bool = False) -> Iterator[str]:
    """Mount an image at a place, which is made; the loop device's name. Unmounted when left. Raises `OSError`."""
    place.mkdir(exist_ok=True)
    device = system.attach_loop(image, direct=direct)
    try:
        node = system.loop_node(os.minor(os.fstat(device).st_rdev))
        if kind.name == "btrfs":
            system.forget_btrfs_devices()
        system.mount(node, place, kind.name, kind.mount_options)
    finally:
        os.close(device)
    try:
        yield Path(node).name
    finally:
        system.unmount(place)
