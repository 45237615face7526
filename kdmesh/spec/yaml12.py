"""YAML as version 1.2 reads it: `no` and `on` are words, `1e-3` is a number, and a key stands only once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from kdmesh.errors import MeshError
from kdmesh.spec.yaml_words import explained, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable

BYTES = 1 << 20
"""Largest file that is read."""

ENTRIES = 200_000
"""Largest number of values in a file, each alias counted with all it stands for."""

DIGITS = 100
"""Longest whole number that is read."""

_CORE = {
    "null": (re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    "bool": (re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    "int": (re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), list("-+0123456789")),
    "float": (
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+.0123456789"),
    ),
    "merge": (re.compile(r"^<<$"), ["<"]),
}


class _Loader(yaml.SafeLoader):
    """The safe loader with YAML 1.2's core schema: text, numbers, true and false, null, lists and mappings."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012
    yaml_constructors = {  # noqa: RUF012
        tag: yaml.SafeLoader.yaml_constructors[tag]
        for tag in (*(f"tag:yaml.org,2002:{kind}" for kind in ("null", "str", "seq", "map")), None)
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that stands twice; one that a merge (`<<`) brings may be written over."""
        seen: dict[Any, yaml.Node] = {}
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key_node.tag != "tag:yaml.org,2002:merge" and isinstance(key_node, yaml.ScalarNode):
                key = self.construct_object(key_node)
                if key in seen:
                    first = seen[key].start_mark.line + 1
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key!r} stands twice, first in line {first}", key_node.start_mark
                    )
                seen[key] = key_node
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would take for something else than text, and writes no aliases."""

    yaml_implicit_resolvers = {first: list(rules) for first, rules in yaml.SafeDumper.yaml_implicit_resolvers.items()}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        """Write a shared value out each time."""
        return True


def _bool(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> bool:
    return _read("true or false", loader.construct_yaml_bool, node)


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return _read("a number", loader.construct_yaml_float, node)


def _read(kind: str, construct: Callable[[Any], Any], node: yaml.ScalarNode) -> Any:
    try:
        return construct(node)
    except (ValueError, KeyError, IndexError):  # a tag says that it is what it is not
        problem = f"{str(node.value)[:DIGITS]!r} is not {kind}"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


def _int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    if len(text) > DIGITS:
        raise yaml.constructor.ConstructorError(None, None, f"a whole number of {len(text):,} digits", node.start_mark)
    return _read("a whole number", lambda _: int(text, 0) if text[:2] in ("0o", "0x") else int(text), node)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    """Quote text with a rare line break, which would be read back as another."""
    style = '"' if any(sign in value for sign in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


for _tag, (_pattern, _first) in _CORE.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)
for _tag, _construct in {"int": _int, "float": _float, "bool": _bool}.items():
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _construct)
_Dumper.add_representer(str, _text)


def load(text: str, file: str = "", where: str = "") -> Any:
    """Read one YAML document as plain data.

    Raises MeshError, with line and column, for a syntax error, a key that stands twice, more than one document, and a
    file that aliases blow up or that contains itself.
    """
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _entries(node, {}) > ENTRIES:
            what, instead = f"holds more than {ENTRIES:,} values, or an alias of itself", "fewer aliases (`*NAME`)"
            raise MeshError(what, where=where, file=file, instead=instead)
        return loader.construct_document(node)
    except (yaml.MarkedYAMLError, yaml.reader.ReaderError) as error:
        told = explained(error, text) if isinstance(error, yaml.MarkedYAMLError) else unreadable(error, text)
        raise MeshError(told[1], where=where or told[0], instead=told[2], file=file) from None
    except (yaml.YAMLError, ValueError) as error:
        raise MeshError(f"is not YAML: {str(error).splitlines()[0]}", where=where, file=file) from None
    except RecursionError:
        raise MeshError("is nested too deeply", where=where, file=file, instead="fewer brackets in brackets") from None
    finally:
        if loader is not None:
            loader.dispose()


def dump(data: Any) -> str:
    """Write plain data so that :func:`load` reads the same back; keys keep their order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)


def _entries(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values below a node; an alias counts each time it stands, so that its expansion is bounded."""
    if id(node) not in known:
        known[id(node)] = ENTRIES + 1  # met again below itself: it contains itself
        if isinstance(node, yaml.MappingNode):
            count = 1 + sum(_entries(value, known) for _, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            count = 1 + sum(_entries(item, known) for item in node.value)
        else:
            count = 1
        known[id(node)] = count
    return known[id(node)]
