"""Which class belongs to which payload type, in both directions."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from keyop.errors import PayloadError, PayloadTypeError
from keyop.messages.json_text import decode_json, encode_payload


class PayloadTypes:
    """The registry of one messenger. pydantic is imported when the first class is registered."""

    def __init__(self) -> None:
        self._by_class: dict[Any, str] = {}
        self._adapters: dict[str, Any] = {}

    def __bool__(self) -> bool:
        return bool(self._adapters)

    def register(self, name: str, kind: Any) -> None:
        """Register a class (or anything a pydantic `TypeAdapter` takes). Raises `PayloadTypeError` for a repeat."""
        check_payload_type(name, kind, self._adapters)
        from pydantic import TypeAdapter
        from pydantic.errors import PydanticUserError

        try:
            self._adapters[name] = TypeAdapter(kind)
        except PydanticUserError as error:
            raise PayloadTypeError(f"payload type {name!r}: {kind!r} cannot be validated: {error}") from error
        if isinstance(kind, type):
            self._by_class.setdefault(kind, name)

    def encode(self, payload: Any, payload_type: str | None) -> tuple[bytes, str]:
        """The payload as JSON, and its type's name: the one given, or that of its registered class."""
        if not self._adapters:
            if not payload_type:
                raise _untyped(payload, payload_type)
            return encode_payload(payload), payload_type
        name = payload_type if payload_type is not None else self._by_class.get(type(payload))
        if not name:
            raise _untyped(payload, payload_type)
        adapter = self._adapters.get(name)
        if adapter is None or type(payload) in (dict, list, str, int, float, bool, type(None)):
            return encode_payload(payload), name
        from pydantic_core import PydanticSerializationError

        try:
            text = adapter.dump_json(payload, warnings="error")
        except (PydanticSerializationError, ValueError) as error:
            raise PayloadError(f"the payload does not serialise as {name!r}: {error}") from error
        if b"null" in text or b"NaN" in text or b"Infinity" in text:
            # pydantic writes them as null, or as what is no JSON: this raises if one is among the numbers.
            encode_payload(adapter.dump_python(payload, mode="json"))
        return text, name

    @staticmethod
    def decode_plain(text: bytes) -> Any:
        """A payload without a class, as plain JSON."""
        return decode_json(text)

    def decode(self, payload_type: str, text: bytes) -> tuple[bool, Any]:
        """(True, the validated object), or (False, None) if the type is not registered. Raises `ValueError`."""
        adapter = self._adapters.get(payload_type)
        if adapter is None:
            return False, None
        return True, adapter.validate_json(text)


def check_payload_type(name: str, kind: Any, registered: Container[str]) -> None:
    """Raise `PayloadTypeError` for a name that is none or is there already, and for what is no class at all."""
    if not isinstance(name, str) or not name:
        raise PayloadTypeError(f"a payload type's name is a text, not {name!r}")
    if name in registered:
        raise PayloadTypeError(f"payload type {name!r} is registered already")
    if kind is None:
        raise PayloadTypeError(f"payload type {name!r} needs a class")


def _untyped(payload: Any, payload_type: str | None) -> PayloadTypeError:
    if payload_type is not None:
        return PayloadTypeError(f"payload_type is {payload_type!r}: name a type, payload_type='com.example.reading.v1'")
    kind = type(payload)
    if kind.__module__ == "builtins":
        return PayloadTypeError(
            f"a {kind.__qualname__} does not say what it is: name its type, payload_type='com.example.reading.v1'"
        )
    return PayloadTypeError(
        f"the class {kind.__module__}.{kind.__qualname__} is not registered: "
        "call register_payload_type(name, class) first, or name the type with payload_type=..."
    )
