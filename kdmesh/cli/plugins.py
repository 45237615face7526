"""``kdmesh plugins``: what the built-ins and the installed plugins offer, what is in it, and how to begin one."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from kdmesh.cli import plugins_new
from kdmesh.cli.common import add_plugins_dir, use_plugins_dir
from kdmesh.report import layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.plugins import PluginRecord


def add(commands: Any) -> None:
    """Add the command."""
    about = "List what can be named in a mesh, from strategies to signals, and plugins with a problem."
    command = commands.add_parser("plugins", help="list what can be named in a mesh", description=about)
    kinds = (
        "only strategies, objectives, consensus, gates, models, datasets, views, signals, tasks, metrics, filters, "
        "text_rules, prunings, recognisers, samplers or commands"
    )
    command.add_argument("--kind", metavar="KIND", help=kinds)
    command.add_argument("--all", action="store_true", help="also every plugin, disabled ones too, with its status")
    command.add_argument("--strict", action="store_true", help="exit with 1 if a plugin is broken or shadowed")
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON")
    form.add_argument("--requirements", action="store_true", help="the installed plugins, as pip's requirements")
    add_plugins_dir(command)
    command.set_defaults(execute=execute)
    more = command.add_subparsers(metavar="")
    show = more.add_parser("show", help="one of them in full", description="Show one offer, its paper and settings.")
    show.add_argument("name", metavar="NAME", help="the name that a mesh uses")
    show.add_argument("--kind", metavar="KIND", default=argparse.SUPPRESS, help=kinds)
    show.add_argument("--schema", action="store_true", help="the JSON Schema of its settings")
    show.set_defaults(execute=execute_show)
    plugins_new.add(more)


def execute(args: argparse.Namespace) -> int:
    """Print the offers, then the plugins that have a problem."""
    from kdmesh.plugins import registry

    use_plugins_dir(args)
    found = registry()
    rows = [_row(offer, found.origin(offer.kind, offer.name)) for kind in _kinds(args) for offer in found.offers(kind)]
    records = [one for one in found.records if args.all or ((one.error or one.remark) and args.kind is None)]
    if args.requirements:
        installed = {f"{record.dist}=={record.version}" for record in found.records if record.version not in ("", "?")}
        print("".join(f"{line}\n" for line in sorted(installed)), end="")
    elif args.json:
        print(json.dumps([*rows, *map(_problem, records)], indent=2))
    else:
        told = [[row["kind"], row["name"], row["dist"], f"{row['summary']}\n{row['paper']}".strip()] for row in rows]
        faults = [f"{one.status}: {one.name} of {one}{_why(one)}" for one in records]
        lines = [part for fault in faults for part in layout.wrap(fault, layout.terminal_width(), "  ")]
        print("\n\n".join(filter(None, (_table(told), "\n".join(lines)))))
    return int(args.strict and any(record.error for record in found.records))


def execute_show(args: argparse.Namespace) -> int:
    """Print all there is to know about one offer, without importing its code."""
    from kdmesh.errors import MeshError, meant
    from kdmesh.offers import Offer
    from kdmesh.plugins import heavy_imports, registry, too_heavy

    use_plugins_dir(args)
    found = registry()
    kinds = _kinds(args)
    having = [kind for kind in kinds if args.name in found.names(kind)]
    if not having:
        claimed = [kind for kind in kinds if any((kind, args.name) in record.claims for record in found.records)]
        if claimed or len(kinds) == 1:
            found.find((claimed or kinds)[0], args.name)  # says which plugin fails to provide it, or what there is
        hint = meant(args.name, [name for kind in kinds for name in found.names(kind)])
        raise MeshError(
            f"nothing is offered under the name {args.name!r}",
            where="plugins show",
            instead=f"{hint}see `kdmesh plugins`",
        )
    if len(having) > 1:
        kind = f"--kind {' or --kind '.join(having)}"
        raise MeshError(f"{args.name!r} is of {len(having)} kinds", where="plugins show", instead=kind)
    offer = found.find(having[0], args.name)
    schema = offer.config.model_json_schema()
    if args.schema:
        print(json.dumps(schema, indent=2))
        return 0
    row = _row(offer, found.origin(having[0], args.name))
    traits = {trait.name: getattr(offer, trait.name) for trait in fields(offer)[len(fields(Offer)) :]}
    facts = {"from": f"{row['dist']} {row['version']}".strip(), "code": offer.factory, "paper": offer.paper}
    facts |= {name.replace("_", " "): _plain(value) for name, value in traits.items()}
    print("\n".join(layout.wrap(f"{offer.name} ({having[0]}): {offer.summary}", layout.terminal_width())) + "\n")
    print(_table([(name, fact) for name, fact in facts.items() if fact]))
    settings = [
        (name, _type(about), _default(name, about, schema), about.get("description", ""))
        for name, about in schema.get("properties", {}).items()
    ]
    origin = found.origin(having[0], args.name)
    if origin is not None and (heavy := heavy_imports(origin.module)):
        print(f"kdmesh: warning: plugin {origin.name!r} of {origin}: {too_heavy(heavy)}", file=sys.stderr)
    print("\n" + (_table([("setting", "type", "default", ""), *settings]) if settings else "It has no settings."))
    return 0


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(layout.table(rows, layout.terminal_width()))


def _kinds(args: argparse.Namespace) -> tuple[str, ...]:
    from kdmesh.errors import MeshError, nearest
    from kdmesh.plugins import KINDS

    if args.kind is None:
        return KINDS
    one = {"strategy": "strategies", **{kind.removesuffix("s"): kind for kind in KINDS}}  # as `plugins new` has them
    kind = one.get(args.kind, args.kind)
    if kind not in KINDS:
        raise MeshError(f"unknown kind {args.kind!r}", where="--kind", instead=nearest(args.kind, KINDS, "kinds"))
    return (kind,)


def _row(offer: Any, origin: PluginRecord | None) -> dict[str, str]:
    source = ("kdmesh", "") if origin is None else (origin.dist, origin.version)
    about = {"kind": offer.kind, "name": offer.name, "summary": offer.summary, "paper": offer.paper}
    return about | {"dist": source[0], "version": source[1], "status": "ok"}


def _problem(record: PluginRecord) -> dict[str, str]:
    told = ("name", "dist", "version", "status", "error", "remark")
    return {"kind": "plugin"} | {name: getattr(record, name) for name in told}


def _why(record: PluginRecord) -> str:
    """What is wrong with a plugin, in brackets."""
    said = "; ".join(filter(None, (record.error, record.remark)))
    return f" ({said})" if said else ""


def _plain(value: Any) -> str:
    """A trait of an offer, in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, float):
        return "" if value is None else f"{value:g}"
    return value if isinstance(value, str) else ", ".join(value) or "nothing"


def _type(about: dict[str, Any]) -> str:
    """The type of a setting, read off its JSON Schema."""
    if "anyOf" in about:
        return " or ".join(dict.fromkeys(map(_type, about["anyOf"])))
    if "enum" in about:
        return " or ".join(map(json.dumps, about["enum"]))
    if "const" in about:
        return json.dumps(about["const"])
    if "$ref" in about:
        return str(about["$ref"]).rpartition("/")[2]
    kind = str(about.get("type", "any"))
    return f"{kind} of {_type(about['items'])}" if kind == "array" and "items" in about else kind


def _default(name: str, about: dict[str, Any], schema: dict[str, Any]) -> str:
    return "required" if name in schema.get("required", ()) else json.dumps(about.get("default"))
