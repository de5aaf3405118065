"""YAML as Go's reader takes it, with the line of each key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

import yaml
from yaml.constructor import ConstructorError

if TYPE_CHECKING:
    from keyop.configuration.keys import Path

YAML_FAULTS = (yaml.YAMLError, ValueError, LookupError, RecursionError)
"""What the functions here raise, with a value like ``!!bool maybe`` or a list that contains itself."""


def read_value(text: str) -> Any:
    """What the text stands for."""
    return yaml.load(text, _Loader)


def read_document(file: IO[bytes]) -> tuple[Any, dict[Path, int]]:
    """What the file holds, None if it is empty, and the lines of its keys and entries."""
    loader = _Loader(file)
    root = loader.get_single_node()
    if root is None:
        return None, {}
    return loader.construct_document(root), dict(_lines_of(root, ()))


def say_yaml_fault(path: str, error: Exception) -> str:
    """File, line and problem."""
    mark = getattr(error, "problem_mark", None)
    place = f"{path}:{mark.line + 1}" if mark else path
    problem = getattr(error, "problem", None) or (str(error) or type(error).__name__).partition("\n")[0]
    return f"{place}: is not YAML that can be read: {problem}"


class _Loader(yaml.SafeLoader):
    """Safe, as Go's reader in what it refuses, and keys are text: ``on:`` is the key `on`."""

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise ConstructorError(None, None, "must hold keys and values", node.start_mark)
        _refuse_repeated(node)
        self.flatten_mapping(node)  # after the look for repeated keys: those beside `<<` may repeat what it brings
        if not all(isinstance(key, yaml.ScalarNode) for key, _ in node.value):
            raise ConstructorError(None, None, "a key must be text", node.start_mark)
        return {key.value: self.construct_object(value, deep) for key, value in node.value}


def _refuse_repeated(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value in seen:
            raise ConstructorError(None, None, f"{key.value!r} stands here twice", key.start_mark)
        seen.add(str(key.value))


def _date(loader: _Loader, node: yaml.ScalarNode) -> Any:
    """A date stays text, as in Go where text is expected; PyYAML fails with an AttributeError on some."""
    return loader.construct_scalar(node)


_Loader.add_constructor("tag:yaml.org,2002:timestamp", _date)


def _lines_of(node: yaml.Node, path: Path) -> Iterator[tuple[Path, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*path, key.value), key.start_mark.line + 1
            yield from _lines_of(value, (*path, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*path, index), value.start_mark.line + 1
            yield from _lines_of(value, (*path, index))
