"""Where everything lies in a data directory."""

from __future__ import annotations

import os
from pathlib import Path

from keyop.errors import DataDirectoryError
from keyop.ownership import make_given_directory

NETWORK_FILE_SYSTEMS = frozenset(("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs"))
"""Kinds of file system that are refused: other hosts undermine their locks and syncs."""


class DataDirectory:
    """The paths of one data directory. Making the object touches nothing."""

    __slots__ = ("audit", "channels", "journal", "path", "run", "spill", "subscribers")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # Absolute, because a process may change its directory, and a writer in the background does.
        self.path = Path(path).absolute()
        self.channels = self.path / "channels"
        self.subscribers = self.path / "subscribers"
        self.audit = self.path / "audit"
        self.journal = self.path / "journal"
        self.spill = self.journal / "spill"
        self.run = self.path / "run"

    def channel(self, channel: str) -> Path:
        """The directory of a channel's segments."""
        return self.channels / channel

    def offsets(self, channel: str) -> Path:
        """The directory of a channel's offset files."""
        return self.subscribers / channel

    def offset_file(self, channel: str, id: str) -> Path:
        """The offset file of one subscriber."""
        return self.subscribers / f"{channel}/{id}.offset"

    def parts_file(self, channel: str, id: str) -> Path:
        """Beside it, where several processes share the subscriber's work: the offset of each."""
        return self.subscribers / f"{channel}/{id}.parts"

    def require(self) -> None:
        """Raise `DataDirectoryError` unless this is a directory that has been used before."""
        if not self.path.exists():
            raise DataDirectoryError(f"{self.path}: there is no such directory")
        if not self.channels.is_dir():
            raise DataDirectoryError(f"{self.path}: not a data directory, it has no channels/")

    def make(self) -> None:
        """Make what is missing. Raises `DataDirectoryError` with the way out."""
        try:
            self.path.mkdir(mode=0o755, parents=True, exist_ok=True)
            for directory in (self.channels, self.subscribers, self.audit, self.journal, self.run):
                make_given_directory(directory)
            if not self.spill.exists():
                # The last one, and a mark: where it is missing, somebody may have come as far as here.
                self._sync_names()
                make_given_directory(self.spill)
        except FileExistsError as error:
            raise DataDirectoryError(f"{error.filename}: a file where a directory should be; move it away") from error
        except NotADirectoryError as error:
            raise DataDirectoryError(f"{error.filename}: part of this path is a file, not a directory") from error
        except PermissionError as error:
            raise DataDirectoryError(
                f"{error.filename}: no permission to write here (user {os.geteuid()}); "
                f"run `chown -R {os.geteuid()} {self.path}` or choose another data directory"
            ) from error
        except OSError as error:
            raise DataDirectoryError(f"{self.path}: cannot be made: {error.strerror}") from error

    def _sync_names(self) -> None:
        for path in (self.path, self.path.resolve().parent):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except PermissionError:
                continue  # who may not even list it was given the directory by somebody else
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def refuse_network_file_system(self) -> None:
        """Raise `DataDirectoryError` on a file system whose locks and syncs other hosts undermine (Linux)."""
        kind = self.file_system()
        if kind in NETWORK_FILE_SYSTEMS and not os.environ.get("KEYOP_ALLOW_NETWORK_FS"):
            raise DataDirectoryError(
                f"{self.path}: is on {kind}, where locks and syncs cannot be relied on; use a local disk, "
                "or set KEYOP_ALLOW_NETWORK_FS=1 if you know that they can"
            )

    def file_system(self) -> str:
        """The type of the file system, from /proc/self/mountinfo; empty where it cannot be known."""
        try:
            device = self.path.stat().st_dev
            lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
        except OSError:
            return ""
        wanted = f"{os.major(device)}:{os.minor(device)}"
        for line in lines:
            fields, _, rest = line.partition(" - ")
            if fields.split()[2] == wanted:
                return rest.split()[0]
        return ""
