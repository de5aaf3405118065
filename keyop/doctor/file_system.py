"""Whether the file system of the data directory keeps what is written to it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from keyop.doctor.finding import Finding, Level
from keyop.doctor.mounts import Mount, mount_of
from keyop.doctor.subject import Subject
from keyop.storage.directory import NETWORK_FILE_SYSTEMS

_LOCAL = frozenset(("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "jfs", "nilfs2"))
_IN_MEMORY = frozenset(("tmpfs", "ramfs", "rootfs"))
_FOREIGN = frozenset(("vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk", "hfsplus"))
_WITHOUT_BARRIERS = frozenset(("nobarrier", "barrier=0", "barrier=none", "nobarriers"))


def check(subject: Subject) -> Iterator[Finding]:
    """Its kind, and how it is mounted."""
    path = subject.nearest
    mount = mount_of(path) if path is not None else None
    if mount is None:
        return
    if "ro" in mount.options:
        way = f"mount -o remount,rw {mount.point}; if it was not mounted so, the kernel log says what broke: dmesg"
        yield _of(mount, "problem", f"{path} is on {mount.kind}, which is mounted read-only", way)
    elif mount.options & _WITHOUT_BARRIERS:
        yield _of(
            mount,
            "warning",
            f"{path} is on {mount.kind}, mounted at {mount.point} without barriers: a sync does not reach the disk, "
            "and a power cut may take what was acknowledged",
            "take nobarrier (barrier=0) out of /etc/fstab, unless the disk has a battery",
        )
    else:
        yield _by_kind(mount, str(path))


def _by_kind(mount: Mount, path: str) -> Finding:
    kind = mount.kind
    if kind in NETWORK_FILE_SYSTEMS:
        allowed = bool(os.environ.get("KEYOP_ALLOW_NETWORK_FS"))
        text = f"{path} is on {kind}, where locks and syncs cannot be relied on"
        if allowed:
            return _of(mount, "warning", f"{text}; KEYOP_ALLOW_NETWORK_FS allows it", "use a local disk")
        return _of(mount, "problem", f"{text}: keyop refuses it", "use a local disk; hosts talk through hub and client")
    if kind in _IN_MEMORY:
        way = "fine for tests; otherwise name a directory on a disk"
        return _of(mount, "warning", f"{path} is on {kind}: in memory, and gone when the machine restarts", way)
    if kind == "overlay":
        way = "mount a volume there: docker run -v /srv/keyop:/data"
        return _of(mount, "warning", f"{path} is in the container's own layer, and goes with the container", way)
    if kind in _FOREIGN:
        way = "use ext4, xfs, btrfs or f2fs"
        return _of(mount, "warning", f"{path} is on {kind}, which knows no owners and survives power cuts badly", way)
    if kind in _LOCAL:
        return _of(mount, "ok", f"{path} is on {kind} ({mount.source})")
    return _of(mount, "note", f"{path} is on {kind}, with which nobody has tried keyop's promises for power cuts")


def _of(mount: Mount, level: Level, text: str, remedy: str = "") -> Finding:
    return Finding("file-system", level, text, remedy, {"kind": mount.kind, "mount_point": str(mount.point)})
