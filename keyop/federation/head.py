"""What hub and client know of an envelope: all but its payload, which is checked for being JSON and passed over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from keyop.messages.json_text import HAVE_MSGSPEC

if HAVE_MSGSPEC and not TYPE_CHECKING:
    import msgspec

    # All keys are here so that each has the right type, which makes a line good or bad. Unknown ones are forbidden
    # since one of them may be a known key in another case, which counts: that is decided the slow way.
    class Head(msgspec.Struct, forbid_unknown_fields=True, gc=False, frozen=True):
        v: Literal[1]
        id: str = ""
        ts: str = ""
        channel: str = ""
        origin: str = ""
        payload_type: str = ""
        correlation_id: str = ""
        service_name: str = ""
        route: tuple[str, ...] = ()
        payload: msgspec.Raw = msgspec.Raw(b"")

    read_head = msgspec.json.Decoder(Head).decode
else:
    import json
    from dataclasses import dataclass

    _PAYLOAD = b',"payload":'

    def _refuse_constant(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    _decode = json.JSONDecoder(parse_constant=_refuse_constant).decode

    @dataclass(slots=True, frozen=True)
    class Head:
        """What is known of an envelope. A missing key is empty. With msgspec it is a Struct of the same attributes."""

        v: Literal[1]
        id: str = ""
        ts: str = ""
        channel: str = ""
        origin: str = ""
        payload_type: str = ""
        correlation_id: str = ""
        service_name: str = ""
        route: tuple[str, ...] = ()
        payload: Any = b""
        """`bytes()` of it are the payload's own text; empty where that is not known."""

    def read_head(line: bytes) -> Head:
        """Read a line of the usual form: keys of the usual spelling, the payload last. Raises for any other."""
        start, found, payload = line.removesuffix(b"}").partition(_PAYLOAD)
        if not found or b"\\" in start or not line.endswith(b"}"):
            raise ValueError("not of the usual form")
        # If both parts are JSON, the whole is.
        _decode(payload.decode())
        members = _decode(start.decode() + "}")
        route = members.pop("route", [])
        version = members.pop("v", None)
        if type(version) is not int or version != 1 or type(route) is not list:
            raise ValueError("not of the usual types")
        if not {*map(type, members.values()), *map(type, route)} <= {str}:
            raise ValueError("not of the usual types")
        return Head(1, route=tuple(route), payload=payload, **members)


EMPTY_HEAD = Head(1)
