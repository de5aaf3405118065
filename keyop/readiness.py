"""Telling whoever started this process that it does its work now.

The parent makes a pipe, passes its writing end on, and names it in ``KEYOP_READY_FD``. Imports next to nothing: the
writer does it too.
"""

from __future__ import annotations

import os
import stat

READY_VARIABLE = "KEYOP_READY_FD"
READY = b"ready\n"


def say_ready() -> None:
    """Write ``ready`` to the descriptor that ``KEYOP_READY_FD`` names, if it does, and close it. Counts once.

    A child of this process inherits the variable and not the descriptor; there the number may mean any other file.
    So the variable goes, and nothing is written to what is no pipe.
    """
    number = os.environ.pop(READY_VARIABLE, "")
    if not (number.isascii() and number.isdecimal()):
        return
    fd = int(number)
    try:
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            return
        os.write(fd, READY)
        os.close(fd)
    except OSError:
        pass  # the parent is gone, or never passed it: nobody waits
