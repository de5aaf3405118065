"""How taking a transaction from a ring can end before it is planned."""

from __future__ import annotations


class Refused(Exception):
    """Something is wrong with the transaction: its publisher gets the code, see `keyop.protocol.reply`."""

    def __init__(self, code: int, value: int = 0) -> None:
        super().__init__(code, value)
        self.code = code
        self.value = value


class Wait(Exception):
    """The disk says no for now: the transaction stays in its ring and is tried again."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


class Full(Exception):
    """The round has no room for this transaction: it is the first of the next one."""


class Later(Exception):
    """Another port has to be drained and swept first; the transaction stays in its ring for the next round."""
