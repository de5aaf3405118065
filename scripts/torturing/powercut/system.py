"""What the rig asks of the kernel: mounts, loop devices, namespaces. Each is one system call, without a program."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from struct import Struct

_LIBC = ctypes.CDLL(None, use_errno=True)

MS_REC, MS_PRIVATE = 1 << 14, 1 << 18
_MNT_DETACH = 2
_CLONE_NEWNS, _CLONE_NEWPID = 0x0002_0000, 0x2000_0000

_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_LO_FLAGS_AUTOCLEAR, _LO_FLAGS_DIRECT_IO = 4, 16
# fd, block size; of loop_info64 only its flags; the rest is zeros.
_LOOP_CONFIG = Struct("<II 52x I 176x 64x")
_LOOP_MAJOR = 7
_BTRFS_IOC_FORGET_DEV = 0x5000_9405
_PR_SET_PDEATHSIG = 1
_LOOP_TRIES = 50


class RigError(Exception):
    """The rig itself cannot go on; it says nothing about keyop."""


def wait_until(condition: Callable[[], object], timeout_s: float, otherwise: str) -> None:
    """Wait for something that another process brings about. Raises `RigError` when the time is over."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            raise RigError(f"{otherwise} within {timeout_s:.0f} s")
        time.sleep(0.002)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: Path | str, target: Path | str, kind: str, options: str = "", flags: int = 0) -> None:
    """mount(2). Raises `OSError`."""
    arguments = (str(source).encode(), str(target).encode(), kind.encode(), flags, options.encode())
    _check(_LIBC.mount(*arguments), f"mount {source} as {kind}")


def unmount(target: Path, timeout_s: float = 10.0) -> None:
    """umount(2); one that is busy for a while is waited for, one that stays so is detached. Raises `OSError`."""
    deadline = time.monotonic() + timeout_s
    while _LIBC.umount2(str(target).encode(), 0) < 0:
        number = ctypes.get_errno()
        if number != errno.EBUSY:
            raise OSError(number, f"umount {target}: {os.strerror(number)}")
        if time.monotonic() >= deadline:
            _check(_LIBC.umount2(str(target).encode(), _MNT_DETACH), f"umount {target}")
            return
        time.sleep(0.01)


def attach_loop(file: Path, *, direct: bool) -> int:
    """A loop device on a file, as an open descriptor; the device goes when that and its mount are gone.

    ``direct``: each write and each flush goes to the file as it comes. Raises `OSError`.
    """
    flags = _LO_FLAGS_AUTOCLEAR | (_LO_FLAGS_DIRECT_IO if direct else 0)
    backing = os.open(file, os.O_RDWR | (os.O_DIRECT if direct else 0) | os.O_CLOEXEC)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_LOOP_TRIES):
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            device = os.open(loop_node(number), os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, _LOOP_CONFIG.pack(backing, 0, flags))
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:
                    raise
                continue  # another process was quicker
            return device
    finally:
        os.close(control)
        os.close(backing)
    raise OSError(errno.EBUSY, "no free loop device")


def loop_node(number: int) -> str:
    """The device's name; where nobody makes the names (a container), it is made here. Raises `OSError`."""
    path = f"/dev/loop{number}"
    if not os.path.exists(path):
        os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(_LOOP_MAJOR, number))
    return path


def forget_btrfs_devices() -> None:
    """Have btrfs forget the devices that it saw: copies of one file system are told apart by number and age only."""
    control = os.open("/dev/btrfs-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(control, _BTRFS_IOC_FORGET_DEV, bytearray(4096))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EBUSY):
            raise
    finally:
        os.close(control)


def missing_namespaces() -> str | None:
    """Why a process cannot have mounts and children of its own here; None if it can."""
    child = os.fork()
    if not child:
        os._exit(1 if _LIBC.unshare(_CLONE_NEWNS | _CLONE_NEWPID) else 0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        return "power cuts need namespaces of their own for mounts and processes, which the kernel refuses here"
    return None


def leave_mounts() -> None:
    """From here on this process has its own copy of the mounts that there are now. Raises `OSError`."""
    _check(_LIBC.unshare(_CLONE_NEWNS), "unshare")
    mount("none", "/", "none", flags=MS_REC | MS_PRIVATE)


def fork_into_room() -> int:
    """Fork a child that is process number 1 of its own, with mounts of its own: when it ends, the kernel ends all that
    it has started, and what it has mounted goes. It ends when its parent does. 0 in the child. Raises `OSError`."""
    mine = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_LIBC.unshare(_CLONE_NEWPID), "unshare")
        child = os.fork()
        if child:
            _check(_LIBC.setns(mine, _CLONE_NEWPID), "setns")
    finally:
        os.close(mine)
    if not child:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        leave_mounts()
        mount("proc", "/proc", "proc")
        mount("tmpfs", "/dev/shm", "tmpfs", "mode=1777")
    return child


def copy_sparse(source: Path, target: Path) -> None:
    """Copy what is there of a file with holes; the target begins as a hole of the same length."""
    with source.open("rb") as reading, target.open("r+b") as writing:
        size = os.fstat(reading.fileno()).st_size
        os.ftruncate(writing.fileno(), 0)
        os.ftruncate(writing.fileno(), size)
        at = 0
        while at < size:
            try:
                begin = os.lseek(reading.fileno(), at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return  # only holes from here on
                raise
            at = os.lseek(reading.fileno(), begin, os.SEEK_HOLE)
            os.lseek(writing.fileno(), begin, os.SEEK_SET)
            while begin < at:
                begin += os.sendfile(writing.fileno(), reading.fileno(), begin, at - begin)
