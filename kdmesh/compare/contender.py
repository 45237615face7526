"""What is compared: meshes by name, and the agent of each whose figures count."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.graph.roles import TAUGHT, roles
from kdmesh.spec.names import LENGTH, fault, instead, refuse
from kdmesh.spec.read import locate, read_mesh, read_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdmesh.graph.plan import Plan
    from kdmesh.spec import MeshSpec


@dataclass(frozen=True)
class Contender:
    """A mesh that is compared with others.

    Attributes:
        name: how tables and folders call it.
        spec: the mesh, with what the command line changed.
        differs: what it has changed against its file, in the words of the command line.
        text: of its file, kept with each trial.
        beside: folders with code that the mesh names.
    """

    name: str
    spec: MeshSpec
    differs: tuple[str, ...] = ()
    text: str | None = None
    beside: tuple[str, ...] = field(default=())


def contenders(
    files: Sequence[str], variants: Sequence[str], overrides: Sequence[str], beside: Sequence[Sequence[str]]
) -> list[Contender]:
    """Read meshes as contenders: each file, then each variant of the first.

    A variant is ``[NAME:] PATH=VALUE [PATH=VALUE ...]``; ``overrides`` are laid over every mesh. MeshError for what
    cannot be read, and for fewer than two contenders.
    """
    made: list[Contender] = []
    names: dict[str, int] = {}
    for file, folders in zip(files, beside, strict=True):
        name = Path(file).stem[:LENGTH]
        if fault(name):
            name = f"mesh-{len(made) + 1}"
        names[name] = names.get(name, 0) + 1
        name += f"-{names[name]}" if names[name] > 1 else ""
        spec = read_mesh(file, overrides)
        made.append(Contender(name, spec, (), read_text(locate(file)), tuple(folders)))
    for number, variant in enumerate(variants, 1):
        name, changes = named(variant, f"variant-{number}")
        spec = read_mesh(files[0], [*overrides, *changes])
        made.append(Contender(name, spec, tuple(changes), read_text(locate(files[0])), tuple(beside[0])))
    if len(made) < 2:
        raise MeshError(
            "one mesh has nothing to be compared with",
            where="kdmesh compare",
            instead="a second FILE, or --variant 'PATH=VALUE'; or kdmesh run --seeds 10 --controls, for its controls",
        )
    refuse([one.name for one in made], "kdmesh compare")
    return made


def named(variant: str, otherwise: str) -> tuple[str, list[str]]:
    """The name and the changes of a variant as the command line has it."""
    parts = variant.split()
    name = otherwise
    if parts and "=" not in parts[0] and parts[0].endswith(":"):
        name = parts.pop(0)[:-1]
        if why := fault(name):
            raise MeshError(f"the name {name!r} {why}", where="--variant", instead=instead(name))
    if not parts or any("=" not in part for part in parts):
        what = f"{variant!r} says no PATH=VALUE"
        fields = "train.optimizer.adamw.lr=0.01"
        raise MeshError(what, where="--variant", instead=f"{fields!r}, or 'slow: {fields} train.epochs=40'")
    return name, parts


def taught_by(plan: Plan) -> list[str]:
    """The agents of a mesh that others teach."""
    return [agent for agent, role in roles(plan).items() if role in TAUGHT]


def counted(
    taught: Mapping[str, Sequence[str]], known: Mapping[str, Sequence[str]], asked: Mapping[str, str]
) -> dict[str, str]:
    """The agent of each contender whose figures are compared.

    ``taught``, ``known``: by contender, the agents that others teach, and all. ``asked``: by contender, or for all
    under ``""``. Else the one agent that is taught; or the one of its name that every contender teaches.
    """
    found: dict[str, str] = {}
    taught = {name: own or known[name] for name, own in taught.items()}
    if unknown := asked.keys() - known.keys() - {""}:
        raise MeshError(
            f"{min(unknown)!r} is no contender", where="--agent", instead=f"CONTENDER=AGENT, of {', '.join(known)}"
        )
    shared = [agent for agent in next(iter(taught.values())) if all(agent in own for own in taught.values())]
    for name in known:
        agent = asked.get(name, asked.get(""))
        if agent is None and len(taught[name]) == 1:
            agent = taught[name][0]
        elif agent is None and len(shared) == 1:
            agent = shared[0]
        if agent is None:
            raise MeshError(
                f"{name} teaches {len(taught[name])} agents: {', '.join(taught[name][:8])}",
                where="--agent",
                instead=f"--agent {name}={taught[name][0]}: the one whose figures are compared",
            )
        if agent not in known[name]:
            raise MeshError(
                f"{name} has no agent {agent!r}", where="--agent", instead=f"one of {', '.join(known[name])}"
            )
        found[name] = agent
    return found
