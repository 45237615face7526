"""``kdmesh plugins new``: write the package of a plugin, with a contract test that passes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

KINDS = (
    "strategy", "objective", "consensus", "model", "dataset", "view", "signal", "task", "metric", "sampler", "gate",
    "filter", "text_rule", "pruning", "observer",
)  # fmt: skip
TEMPLATES = Path(__file__).parent.parent / "templates"


def add(commands: Any) -> None:
    """Add the command."""
    about = "Write a new folder NAME with a plugin: package, settings, README, a mesh that names it and its tests."
    command = commands.add_parser("new", help="begin a plugin", description=about)
    command.add_argument("name", metavar="NAME", help="the distribution, kdmesh-foo")
    command.add_argument(
        "--kind", metavar="KIND", choices=KINDS, required=True, help=f"what it offers: {', '.join(KINDS)}"
    )
    command.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Write the package into the current folder."""
    folder = Path(args.name)
    files = package(args.name, args.kind)
    if folder.exists():
        from kdmesh.errors import MeshError

        raise MeshError(f"{args.name!r} exists already", where="plugins new", instead="another name, or remove it")
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    print(f"wrote {folder}/: {', '.join(files)}\ntry it: pip install -e '{folder}[test]' && pytest {folder}")
    return 0


def package(name: str, kind: str) -> dict[str, str]:
    """Return the files of a new plugin by their path: those of every kind, then those of this one.

    A path and a text may hold ``${dist}`` (kdmesh-foo-bar), ``${module}`` (kdmesh_foo_bar), ``${name}`` (foo_bar, as a
    mesh names it) and ``${cls}`` (FooBar).
    """
    import re
    from string import Template

    from kdmesh.errors import MeshError

    if not re.fullmatch(r"kdmesh(-[a-z][a-z0-9]*)+", name):
        what = f"{name!r} is no name for a plugin"
        raise MeshError(what, where="plugins new", instead="kdmesh-foo: small letters, digits and hyphens")
    words = name.split("-")[1:]
    names = {"dist": name, "module": name.replace("-", "_"), "name": "_".join(words), "kind": kind}
    names["cls"] = "".join(word.capitalize() for word in words)
    files = {}
    for room in (TEMPLATES / "common", TEMPLATES / kind):
        for path in sorted(room.rglob("*.tmpl")):
            relative = path.relative_to(room).as_posix().removesuffix(".tmpl")
            file = relative.replace("MODULE", names["module"]).replace("NAME", names["name"])
            files[file] = Template(path.read_text(encoding="utf-8")).substitute(names)
    return files
