"""What this host says about itself. A value that it does not tell is None."""

from __future__ import annotations

import os
from pathlib import Path

_TEMPERATURES = ("/sys/class/thermal/thermal_zone*/temp", "/sys/class/hwmon/hwmon*/temp*_input")


def read_sensors() -> dict[str, float | None]:
    """Load of the last minute, memory in use in percent, temperature of the hottest sensor in °C."""
    return {"load": _load(), "memory_percent": _memory_percent(), "temperature_c": _temperature_c()}


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
