"""Programs: what each stage does, in order. A stage without one trains a single phase."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdmesh.spec import MeshSpec, ProgramItem, Until

MAIN = "main"


@dataclass(slots=True)
class Train:
    """Train a phase for so many epochs or steps (None: each agent's own budget)."""

    phase: str
    agents: list[str] | None = None  # only these; None: all of the stage
    epochs: int | None = None
    steps: int | None = None

    @property
    def key(self) -> str:
        """The name of the step this line runs: the phase's, and who trains, where not all do."""
        return self.phase if self.agents is None else f"{self.phase}:{'+'.join(self.agents)}"


@dataclass(slots=True)
class Publish:
    """Agents publish anew, to one consensus or to all their readers."""

    agents: list[str]
    to: str | None = None


@dataclass(slots=True)
class Repeat:
    """Rounds: do the body again and again, until it is spent or the sources agree."""

    times: int
    body: list[Train | Publish | Repeat]
    until: Until | None = None

    @property
    def rounds(self) -> bool:
        """Whether its turns are recorded: one turn around other repetitions only groups lines."""
        return self.times > 1 or self.until is not None or not any(isinstance(line, Repeat) for line in self.body)


@dataclass(slots=True)
class Program:
    """The lines of one stage."""

    body: list[Train | Publish | Repeat] = field(default_factory=lambda: [Train(MAIN)])

    @property
    def several(self) -> bool:
        """Whether several repetitions are recorded, one after the other or one in another."""

        def count(lines: list[Train | Publish | Repeat]) -> int:
            return sum(line.rounds + count(line.body) for line in lines if isinstance(line, Repeat))

        return count(self.body) > 1

    def trains(self) -> list[Train]:
        """Every training line, once per key, in order."""
        found: dict[str, Train] = {}

        def walk(lines: list[Train | Publish | Repeat]) -> None:
            for line in lines:
                if isinstance(line, Repeat):
                    walk(line.body)
                elif isinstance(line, Train):
                    found.setdefault(line.key, line)

        walk(self.body)
        return list(found.values())


def programs(spec: MeshSpec, stage_of: dict[str, str], at: Callable[[str], str] = str) -> dict[str, Program]:
    """Return the program of every stage that has one; those that are for one stage follow one another.

    ``stage_of``: agent -> stage. ``at``: where the user wrote what stands at a path.
    """
    found: dict[str, Program] = {}
    for number, item in enumerate(spec.program):
        where = at(f"program.{number}")
        if not item.of:
            raise MeshError("a program names its agents", where=where, instead="{of: [agents], do: [...]}")
        _known(item.of, spec, f"{where}.of")
        stages = {stage_of.get(name) for name in item.of}
        if len(stages) != 1 or None in stages:
            raise MeshError(
                f"a program is for one stage, but {', '.join(item.of)} do not train together",
                where=f"{where}.of",
                instead="write one program for each stage, or connect these agents",
            )
        stage = str(stages.pop())
        body = _lines(item.do or [item.model_copy(update={"of": None})], spec, where)
        if item.repeat or item.until:
            body = [Repeat(item.repeat or 1, body, item.until)]
        found.setdefault(stage, Program([])).body.extend(body)
    return found


def _lines(items: list[ProgramItem], spec: MeshSpec, where: str) -> list[Train | Publish | Repeat]:
    """Turn lines as written into lines as run."""
    lines: list[Train | Publish | Repeat] = []
    for number, item in enumerate(items):
        here = f"{where}.do.{number}"
        if item.do is not None:
            lines.append(Repeat(item.repeat or 1, _lines(item.do, spec, here), item.until))
        elif item.publish is not None:
            _known(item.publish, spec, f"{here}.publish")
            if item.to is not None and item.to not in spec.consensus:
                raise MeshError(f"unknown consensus {item.to!r}", where=f"{here}.to", instead="name a consensus node")
            lines.append(Publish(item.publish, item.to))
        else:
            _known(item.train or [], spec, f"{here}.train")
            lines.append(Train(item.lesson or MAIN, item.train, item.epochs, item.steps))
    return lines


def _known(names: list[str], spec: MeshSpec, where: str) -> None:
    for name in names:
        if name not in spec.agents:
            from kdmesh.errors import nearest

            instead = nearest(name, spec.agents, "agents", several=True)
            raise MeshError(f"unknown agent {name!r}", where=where, instead=instead)
