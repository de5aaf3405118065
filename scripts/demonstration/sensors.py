"""What this host says about itself. A value that it does not tell is None."""

from __future__ import annotations

import os
from pathlib import Path

_TEMPERATURES = ("/sys/class/thermal/thermal_zone*/temp", "/sys/class/hwmon/hwmon*/temp*_input")
# Columns of the first line of /proc/stat, as in proc(5).
_IDLE, _IOWAIT, _GUEST = 3, 4, 8


class Sensors:
    """Remembers the last reading: how busy a processor was is told by the difference of two."""

    def __init__(self) -> None:
        self._before = _ticks()

    def read(self) -> dict[str, float | None]:
        """Load of the last minute, processors busy since the last reading and memory in use, both in percent,
        temperature of the hottest sensor in °C."""
        return {
            "load": _load(),
            "cpu_percent": self._cpu_percent(),
            "memory_percent": _memory_percent(),
            "temperature_c": _temperature_c(),
        }

    def _cpu_percent(self) -> float | None:
        before, self._before = self._before, _ticks()
        if before is None or self._before is None:
            return None
        idle, total = (now - then for now, then in zip(self._before, before, strict=True))
        return round(100 * (1 - idle / total), 1) if total > 0 else None


def _ticks() -> tuple[int, int] | None:
    """(idle, all) ticks of all processors since the start."""
    try:
        words = Path("/proc/stat").read_text().split(maxsplit=_GUEST + 1)[1 : _GUEST + 1]
    except OSError:
        return None
    ticks = [int(word) for word in words]
    return ticks[_IDLE] + ticks[_IOWAIT], sum(ticks)


def _load() -> float | None:
    try:
        return float(Path("/proc/loadavg").read_text().split()[0])
    except OSError:
        return round(os.getloadavg()[0], 2)


def _memory_percent() -> float | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return round(100 * (1 - kib["MemAvailable"] / kib["MemTotal"]), 1)


def _temperature_c() -> float | None:
    found = []
    for pattern in _TEMPERATURES:
        for path in Path("/").glob(pattern[1:]):
            try:
                found.append(int(path.read_text()) / 1000)
            except (OSError, ValueError):
                continue  # a sensor that is switched off
    return max(found, default=None)
