"""What a data directory has in /dev/shm, which a power cut takes away."""

from __future__ import annotations

from pathlib import Path

from keyop.ipc.names import PREFIX, DirectoryIdentity

_SHM = Path("/dev/shm")


def shared_memory(directory: Path) -> list[Path]:
    """The objects of a data directory in /dev/shm."""
    run = directory / "run"
    if not (run / "id").exists():
        return []
    key = DirectoryIdentity(run).key
    return sorted(_SHM.glob(f"*{PREFIX[1:]}{key}-*"))


def sweep_shared_memory(directory: Path) -> None:
    """Remove them: a power cut does. Nobody may be attached. While it is mounted: the names come from its device."""
    for path in shared_memory(directory):
        path.unlink(missing_ok=True)
