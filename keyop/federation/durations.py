"""Durations as the audit logs of the Go program have them."""

from __future__ import annotations


def go_duration(seconds: float) -> str:
    """``248ms``, ``1.447s``, ``1m2s``, ``3h0m7s``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.3f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"
