"""Write docs/plugins/reference.md from the hooks, the offers and the interfaces: ``python docs/generate.py``."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from kdmesh import hookspecs, offers
from kdmesh.consensus import Rule
from kdmesh.objectives import Objective
from kdmesh.plugins import KINDS
from kdmesh.strategies import Canvas, Strategy
from kdmesh.streams.table import Table

TARGET = Path(__file__).parent / "plugins" / "reference.md"
PUBLIC = {
    "kdmesh": "`hookimpl`, which marks a hook; `Mesh`, `data` and `load`, for your tests",
    "kdmesh.offers": "`Config` and the offers",
    "kdmesh.errors": "`MeshError`, for what the user can mend; `RunFailed`, for what broke",
    "kdmesh.consensus": "`Rule`, the built-in rules, and what to write one with",
    "kdmesh.objectives": "`Objective`, `Tempered`, the built-in objectives, and what to write one with",
    "kdmesh.strategies": "`Strategy`, `Canvas`, and what to draw with; imports no torch",
    "kdmesh.streams.table": "`Table`, which a data set returns",
    "kdmesh.testing": "the [contracts](testing.md), for your tests",
}
BASE = {
    "name": "as a mesh names it",
    "factory": "where the code is, `module:attribute`; imported where it is used",
    "config": "its settings: a pydantic model that forbids unknown keys",
    "summary": "one line about it",
    "paper": "author, title, year",
    "api": "the plugin API it was written for",
}
INTERFACES = {  # a heading, the class that is explained, and the module whose functions help to write one
    "Strategies": (Strategy, "kdmesh.strategies"),
    "What a strategy draws on": (Canvas, ""),
    "Objectives": (Objective, "kdmesh.objectives"),
    "Consensus rules": (Rule, "kdmesh.consensus"),
    "Data sets": (Table, ""),
}
ABOUT = {
    "Hooks that offer": "They return a list of offers. An offer has a name, so their order does not matter.",
    "Hooks that observe": (
        "They are called in the process that drives the run, and what they return is ignored. One that raises is\n"
        "named in a warning, once, and the run goes on. They must not depend on the order of plugins."
    ),
    "Hooks that are asked": "The first answer that is not None counts. The built-in one comes last.",
}
HEAD = """\
<!-- Written by `python docs/generate.py` from the code: change that. -->

# Reference

What a plugin may use and what it can add. [Begin here](tutorial.md); [test it like this](testing.md).

## Modules a plugin may import

Nothing else of kdmesh, and no name that begins with an underscore: these stay as they are for one plugin API version.

"""


def kind_of(hook: Any) -> str:
    """Under which heading a hook stands."""
    if hook.kdmesh_spec["firstresult"]:
        return "Hooks that are asked"
    return "Hooks that offer" if hook.__name__.removeprefix("kdmesh_") in KINDS else "Hooks that observe"


def hooks() -> list[Any]:
    """Every hook, in the order of the file."""
    return [hook for name, hook in vars(hookspecs).items() if name.startswith("kdmesh_")]


def offer_classes() -> list[type[offers.Offer]]:
    """Every class of offers, in the order of the file; that of them all first."""
    return [kind for kind in vars(offers).values() if isinstance(kind, type) and issubclass(kind, offers.Offer)]


def signature(function: Any) -> str:
    """A call as it is written, without `self`."""
    parts, starred = [], False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            starred = True
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
        stars = "**" if parameter.kind is parameter.VAR_KEYWORD else stars
        value = "..." if repr(parameter.default) == "<factory>" else repr(parameter.default)
        given = "" if parameter.default is parameter.empty else f" = {value}"
        parts.append(f"{stars}{parameter.name}: {parameter.annotation}{given}")
    gives = "" if inspect.isclass(function) else f" -> {inspect.signature(function).return_annotation}"
    return f"{function.__name__}({', '.join(parts)}){gives}"


def prose(thing: Any) -> str:
    """A docstring as Markdown."""
    text = re.sub(r":\w+:`", "`", inspect.getdoc(thing) or "").replace("``", "`")
    return re.sub(r"^(\w+)::$", r"\1:", text, flags=re.MULTILINE)


def example(hook: Any) -> str:
    """The plugin in a hook's docstring, with the two empty lines that a file has."""
    text = textwrap.dedent((inspect.getdoc(hook) or "").partition("Example::\n")[2]).strip() + "\n"
    return re.sub(r"\n\n(?=class |@|def )", "\n\n\n", text)


def hook_section(hook: Any) -> str:
    """One hook: its arguments, what it is for, and an example."""
    about = prose(hook).partition("Example:\n")[0].strip()
    return f"### {hook.__name__}\n\n```\n{signature(hook)}\n```\n\n{about}\n\n```python\n{example(hook)}```\n"


def offer_section(kind: type[offers.Offer]) -> str:
    """One class of offers: what it is, and its fields."""
    comments = BASE | dict(re.findall(r"^    (\w+): [^#\n]*#\s*(.*)$", inspect.getsource(kind), re.MULTILINE))
    own = [field for field in fields(kind) if kind is offers.Offer or field.name not in BASE]
    rows = [(f"`{field.name}`", f"`{field.type}`", default(field), comments.get(field.name, "")) for field in own]
    listed = table(("field", "type", "default", ""), rows) if rows else "No fields beside those of every offer.\n"
    title = "Every offer" if kind is offers.Offer else kind.__name__
    return f"### {title}\n\n{prose(kind)}\n\n{listed}{methods(kind)}"


def interface_section(title: str, kind: type, room: str) -> str:
    """One interface: its docstring, its public methods, and the functions that help to write one."""
    made = f"\n`{signature(kind)}`\n" if is_dataclass(kind) else ""
    text = f"### {title}\n\n{prose(kind)}\n{made}{methods(kind)}"
    if room:
        module = import_module(room)
        helpers = [getattr(module, name) for name in module.__all__ if inspect.isfunction(getattr(module, name))]
        rows = [(f"`{signature(helper)}`", prose(helper).splitlines()[0]) for helper in helpers]
        text += f"\nAlso in `{room}`:\n\n{table(('', ''), rows)}"
    return text


def methods(kind: type) -> str:
    """The public methods that a class defines itself, with their docstrings as quotations."""
    own = [method for name, method in vars(kind).items() if not name.startswith("_") and inspect.isfunction(method)]
    quoted = [textwrap.indent(prose(method), "> ", lambda _: True).replace("> \n", ">\n") for method in own]
    return "".join(f"\n`{signature(method)}`\n\n{text}\n" for method, text in zip(own, quoted, strict=True))


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table in Markdown, where a bar inside a cell, even in code, would end it."""
    lines = [head, ("---",) * len(head), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def default(field: Any) -> str:
    """The default of an offer's field, as it is written."""
    value = field.default
    if value is offers.Config:
        return "`Config`"
    return "required" if not field.init or "MISSING" in type(value).__name__ else f"`{value!r}`"


def reference() -> str:
    """The whole page."""
    text = HEAD + table(("module", "what is in it"), [(f"`{module}`", about) for module, about in PUBLIC.items()])
    for title, about in ABOUT.items():
        text += f"\n## {title}\n\n{about}\n"
        text += "".join(f"\n{hook_section(hook)}" for hook in hooks() if kind_of(hook) == title)
    text += (
        "\n## Offers\n\nDescriptions, from `kdmesh.offers`. Reading one imports neither torch nor what it describes.\n"
    )
    text += "".join(f"\n{offer_section(kind)}" for kind in offer_classes())
    text += "\n## What the factory of an offer makes\n\nA model is any torch module; a view, any callable.\n"
    return text + "".join(f"\n{interface_section(title, *about)}" for title, about in INTERFACES.items())


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
