"""Lines that are delivered, and that neither this program nor the Go program would have written so.

A flipped bit in a key, an id or a time leaves a line that can be read. Readers take it, as Go does; `verify` tells.
"""

from __future__ import annotations

import re

_TEXT = rb'"(?:[^"\\]|\\.)*"'
_usual_head = re.compile(
    rb'\{"v":1,"id":"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",'
    rb'"ts":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)",'
    rb'"channel":' + _TEXT + rb',"origin":' + _TEXT + rb',"payload_type":' + _TEXT + rb"(?:,"
    rb'"correlation_id":' + _TEXT + rb')?(?:,"service_name":' + _TEXT + rb')?(?:,"route":\[[^\]]*\])?,"payload":'
).match


def oddity(line: bytes) -> str:
    """What is odd about a readable line; empty if nothing is."""
    if not line.isascii():
        try:
            line.decode()
        except UnicodeDecodeError as error:
            return f"byte {error.start} is not UTF-8, it is read as U+FFFD"
    if _usual_head(line) is None:
        return "its keys, its id or its time are not written as usual"
    return ""
