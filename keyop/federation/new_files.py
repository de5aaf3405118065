"""New files that belong together, a certificate and its key: whole, or not there."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from keyop.errors import CertificateError


def refuse_existing(*paths: Path) -> None:
    """Raise `CertificateError` where one of the files is there already, even as a link that leads nowhere."""
    for path in paths:
        if os.path.lexists(path):
            raise _is_there(path)


def put(files: Sequence[tuple[Path, bytes]], *, force: bool) -> None:
    """Write files, each with mode 0600.

    Each is written and synced under another name first, and gets its own when all of them are. None replaces what is
    there, unless ``force``: then the new file has mode and owner of the old one. Raises `CertificateError`; without
    ``force`` none of the files is there then.
    """
    drafts: list[Path] = []
    placed: list[Path] = []
    # Through a link: what it leads to is replaced, not the link.
    targets = [Path(os.path.realpath(path)) if force else path for path, _ in files]
    try:
        for target, (_, content) in zip(targets, files, strict=True):
            drafts.append(target.parent / f".{secrets.token_hex(8)}.draft")
            with _said_of(target):
                _write(drafts[-1], content, like=target if force else None)
        for draft, target in zip(drafts, targets, strict=True):
            with _said_of(target):
                if force:
                    draft.replace(target)
                else:
                    _name(draft, target)
                    placed.append(target)
    except BaseException:
        for path in placed:
            path.unlink(missing_ok=True)
        raise
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)
    for directory in {target.parent for target in targets}:
        _sync(directory)


@contextmanager
def _said_of(target: Path) -> Iterator[None]:
    """Have errors name the file that was wanted, not its draft."""
    try:
        yield
    except FileExistsError as error:
        raise _is_there(target) from error
    except OSError as error:
        raise CertificateError(f"{target}: cannot be written: {error.strerror}") from error


def _is_there(path: Path) -> CertificateError:
    return CertificateError(f"{path}: is there already, nothing was made; --force replaces it")


def _write(draft: Path, content: bytes, like: Path | None) -> None:
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        if like is not None and like.exists():
            status = like.stat()
            if not stat.S_ISREG(status.st_mode):
                raise CertificateError(f"{like}: is no file that could be replaced")
            try:
                os.fchown(fd, status.st_uid, status.st_gid)
            except PermissionError:
                pass  # somebody else's file, in a directory of ours
            os.fchmod(fd, stat.S_IMODE(status.st_mode))  # behind the owner: a change of owner clears bits
        file.write(content)
        file.flush()
        os.fsync(fd)


def _name(draft: Path, target: Path) -> None:
    """Give a draft its name. Raises FileExistsError where a rename would replace what is there."""
    try:
        os.link(draft, target)
    except FileExistsError:
        raise
    except OSError:
        # No hard links here (FAT, on a stick): reserve the name, then replace what reserves it.
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            draft.replace(target)
        except OSError:
            target.unlink()
            raise


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError:
        pass  # not every file system can; the files themselves are synced
    finally:
        os.close(fd)
