"""For the tests of programs that use keyop: `deliver` runs a handler without any process.

The fixtures, ``keyop_messenger`` and ``published``, are in `keyop.testing.plugin`, where pytest finds them by itself.
It imports this package whenever it runs, so nothing is imported here before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keyop.testing.delivering import Delivered, deliver

__all__ = ["Delivered", "deliver"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'keyop.testing' has no attribute {name!r}")
    from keyop.testing import delivering

    return getattr(delivering, name)
