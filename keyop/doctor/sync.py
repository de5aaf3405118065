"""How long a sync takes on the disk of the data directory: what strict publishing costs there.

It is measured as the journal works: a sector is written over blocks that are there already, and synced. The scratch
file has no name, so that it is gone whatever ends this process.
"""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from keyop.doctor.finding import Finding
from keyop.doctor.subject import Subject

SYNCS = 200
_MOST_S = 5.0
_SECTOR_BYTES = 512
# No device has been asked within this time: the fastest SSDs with a capacitor take about 20 µs.
_TOO_FAST_US = 10.0
# The plates of a disk turn once in 8 ms (7,200 a minute); a sync that waits for them takes half of that on average.
_PLATES_US = 1_000.0
_SLOW_US = 20_000.0
_STALL_US = 500_000.0


@dataclass(frozen=True, slots=True)
class Measured:
    """Times of syncs, in microseconds."""

    count: int
    p50_us: float
    p99_us: float

    @property
    def per_s(self) -> int:
        """Messages a second that one publisher gets through, one by one: a sync each."""
        return max(1, round(1e6 / self.p50_us)) if self.p50_us else 0


def check(subject: Subject) -> Iterator[Finding]:
    """Measure, and say what it means."""
    path = subject.nearest
    if path is None or not path.is_dir():
        return
    try:
        measured = measure(path)
    except PermissionError:
        return  # `directory` tells
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        way = "make room" if full else "look into the kernel log: dmesg"
        yield Finding("sync", "problem", f"{path}: a file cannot be written and synced: {error.strerror}", way)
        return
    yield _judge(measured, is_strict=_is_strict(subject), plates=turns(path))


def _is_strict(subject: Subject) -> bool:
    return subject.settings is None or not subject.settings.storage.sync_interval_ms


def _judge(measured: Measured, *, is_strict: bool, plates: bool) -> Finding:
    p50, p99 = format_us(measured.p50_us), format_us(measured.p99_us)
    values = {
        "syncs": measured.count,
        "p50_us": round(measured.p50_us, 1),
        "p99_us": round(measured.p99_us, 1),
        "strict_per_s": measured.per_s,
    }
    said = f"a sync takes {p50} (p50 of {measured.count}; p99 {p99})"
    if measured.p50_us < _TOO_FAST_US:
        text = f"{said}: no device answers so quickly, so nothing reaches one, and a power cut may take anything"
        way = "normal in memory (tmpfs); otherwise look for what swallows syncs: eatmydata, a VM with cache=unsafe"
        return Finding("sync", "warning", text, way, values)
    if plates and measured.p50_us < _PLATES_US:
        text = f"{said}, less than its plates can turn in: the disk answers before it has written"
        way = "switch its write cache off (hdparm -W0 DEVICE), unless a battery keeps it"
        return Finding("sync", "warning", text, way, values)
    pace = f"strict publishing, one message after the other, makes at most {measured.per_s:,} a second"
    if not is_strict:
        return Finding("sync", "ok", f"{said}; the mode is periodic, so no publisher waits for it", "", values)
    if measured.p50_us > _SLOW_US:
        way = "publish in batches or from several threads (they share a sync), or set storage.sync_interval_ms"
        return Finding("sync", "warning", f"{said}: {pace}", way, values)
    if measured.p99_us > _STALL_US:
        way = "SD cards and busy disks do that; give publishers a timeout that allows for it"
        return Finding("sync", "note", f"{said}: {pace}, and it stands still now and then", way, values)
    return Finding("sync", "ok", f"{said}: {pace}", "", values)


def measure(directory: Path, count: int = SYNCS) -> Measured:
    """Time so many syncs of a sector, or as many as five seconds allow. Raises `OSError`."""
    fd = _scratch(directory)
    try:
        os.pwrite(fd, bytes(count * _SECTOR_BYTES), 0)
        os.fsync(fd)
        sector = os.urandom(_SECTOR_BYTES)
        times: list[float] = []
        began = time.perf_counter()
        for number in range(count):
            before = time.perf_counter()
            os.pwrite(fd, sector, number * _SECTOR_BYTES)
            os.fdatasync(fd)
            after = time.perf_counter()
            times.append((after - before) * 1e6)
            if after - began > _MOST_S:
                break
    finally:
        os.close(fd)
    times.sort()
    return Measured(len(times), times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)])


def _scratch(directory: Path) -> int:
    """A file without a name."""
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except (AttributeError, OSError) as error:
        known = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)
        if isinstance(error, OSError) and error.errno not in known:
            raise
    fd, name = tempfile.mkstemp(prefix=".keyop-doctor-", dir=directory)
    os.unlink(name)
    return fd


def turns(path: Path) -> bool:
    """Whether the device has plates. A virtual one often says so and has none."""
    device = path.stat().st_dev
    block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    try:
        real = block.resolve(strict=True)
        whole = real if (real / "queue").is_dir() else real.parent  # a partition has none of its own
        has_plates = (whole / "queue/rotational").read_text().strip() == "1"
        return has_plates and (whole / "device/vendor").read_text().strip() == "ATA"
    except OSError:
        return False


def format_us(microseconds: float) -> str:
    """``0.8 µs``, ``142 µs``, ``3.2 ms``, ``1.2 s``."""
    if microseconds < 1000:
        return f"{microseconds:.0f} µs" if microseconds >= 10 else f"{microseconds:.1f} µs"
    if microseconds < 1_000_000:
        return f"{microseconds / 1000:.1f} ms"
    return f"{microseconds / 1e6:.1f} s"
