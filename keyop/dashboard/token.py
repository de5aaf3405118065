"""The token that a browser has to show, and the cookie that stands for it from then on."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
from pathlib import Path

from keyop.errors import KeyopError

_log = logging.getLogger("keyop.dashboard")

LEAST_CHARACTERS = 16
# Such a text needs no quoting in an address, a header or a cookie.
_is_token = re.compile(r"[A-Za-z0-9._~-]+").fullmatch


class TokenError(KeyopError):
    """A token file that will not do."""


class Token:
    """What a browser has to know. Comparisons take the same time whatever is wrong."""

    def __init__(self, text: str) -> None:
        self._text = text.encode()
        # Who reads the cookie does not know the token. It outlives a restart, and ends with the token.
        self.cookie = hmac.new(self._text, b"keyop dashboard", hashlib.sha256).hexdigest()

    def is_text(self, shown: str) -> bool:
        """Whether this is the token."""
        return hmac.compare_digest(shown.encode(errors="replace"), self._text)

    def is_cookie(self, shown: str) -> bool:
        """Whether this is the cookie's value."""
        return hmac.compare_digest(shown.encode(errors="replace"), self.cookie.encode())


def read_token(path: str) -> Token:
    """The token in a file's first line. Raises `TokenError`."""
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            text = file.readline(4096).strip()
            if os.fstat(file.fileno()).st_mode & 0o007:
                _log.warning("%s: other users can read the token; chmod o= %s", path, path)
    except OSError as error:
        raise TokenError(f"{path}: the token cannot be read: {error.strerror}") from error
    if len(text) < LEAST_CHARACTERS:
        raise TokenError(
            f"{path}: the first line is the token, and has at least {LEAST_CHARACTERS} characters, not {len(text)}: "
            f"head -c 24 /dev/urandom | base64 | tr '+/' '-_' > {path}"
        )
    if not _is_token(text):
        raise TokenError(f"{path}: a token is of A-Z a-z 0-9 - . _ ~ only")
    return Token(text)
