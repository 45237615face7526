"""What a strategy draws on: it may add consensus nodes, flows, programs, streams and derived agents, nothing else."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError, nearest
from kdmesh.graph import limits
from kdmesh.graph.task import label_objective as loss_of_labels
from kdmesh.plugins import registry
from kdmesh.spec import (
    AgentSpec,
    ConsensusSpec,
    FlowSpec,
    MeshSpec,
    ObjectiveRef,
    ProgramItem,
    Ramp,
    StreamSpec,
)
from kdmesh.spec.names import LENGTH, folded
from kdmesh.spec.numbers import refuse_odd_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Canvas:
    """The long form while it grows. ``where`` is the path of the strategy that is drawing, for messages.

    ``label_objective``: by what labels are learned where a strategy says nothing; by default the loss of its task.
    """

    def __init__(self, spec: MeshSpec, label_objective: ObjectiveRef | None = None) -> None:
        self.spec = spec
        self.label_objective = label_objective or loss_of_labels(spec, registry())
        self.where = ""
        self.agents: dict[str, AgentSpec] = dict(spec.agents)
        self.streams: dict[str, StreamSpec] = dict(spec.streams)
        self.consensuses: dict[str, ConsensusSpec] = dict(spec.consensus)
        self.flows: list[FlowSpec] = []
        self.settings: dict[str, str] = {}  # where the user wrote fields of what was drawn, by their path
        self._edges = 0
        for number, flow in enumerate(spec.flows):
            self._count(flow, f"flows.{number}")
        self.programs: list[ProgramItem] = list(spec.program)
        self._labels: dict[tuple[str, str], list[tuple[FlowSpec, str]]] = defaultdict(list)
        for number, flow in enumerate(spec.flows):
            if flow.from_ == ["labels"]:
                for agent in flow.to:
                    self._labels[agent, flow.stream or "train"].append((flow, f"flows.{number}"))

    def names(self, value: str | Sequence[Any], field: str) -> list[str]:
        """Return agents' names, `party[*]` expanded; an unknown one is refused, naming the field it stands in."""
        names = expand([value] if isinstance(value, str) else list(value), self.agents)
        for name in names:
            if name not in self.agents:
                where = f"{self.where}.{field}"
                instead = nearest(name, self.agents, "agents", several=True)
                raise MeshError(f"unknown agent {name!r}", where=where, instead=instead)
        if not names:
            raise MeshError("no agent is named here", where=f"{self.where}.{field}", instead="name at least one agent")
        if len(set(names)) != len(names):
            raise MeshError(f"an agent is named twice: {', '.join(names)}", where=f"{self.where}.{field}")
        return names

    def learners(self, value: str | Sequence[Any], field: str) -> list[str]:
        """Return agents' names as :meth:`names` does; one whose weights do not learn is refused."""
        names = self.names(value, field)
        for name in names:
            update = self.agents[name].update
            if update != "grad":
                how = {"frozen": "is frozen", "merged": "takes the weights of others"}.get(
                    str(update), "follows the weights of another"
                )
                raise MeshError(
                    f"{name!r} {how}, and nothing can be taught to it",
                    where=f"{self.where}.{field}",
                    instead="leave it out here, or `update: grad` on the agent",
                )
        return names

    def consensus(self, hint: str, spec: ConsensusSpec | dict[str, Any] | str) -> str:
        """Add a consensus node, as in a mesh file or read from one, and return its name.

        The name is the hint, with a number where that is taken.
        """
        name = self._free(hint, self.consensuses.keys() | self.agents.keys())
        self.consensuses[name] = ConsensusSpec.model_validate(spec)
        limits.nodes(len(self.consensuses), self.where, "consensus nodes")
        return name

    def agent(self, hint: str, spec: AgentSpec | dict[str, Any]) -> str:
        """Add an agent, derived from one that was given (its EMA, its next generation), and return its name."""
        name = self._free(hint, self.consensuses.keys() | self.agents.keys())
        self.agents[name] = AgentSpec.model_validate(spec)
        limits.nodes(len(self.agents), self.where)
        return name

    def stream(self, hint: str, spec: StreamSpec | dict[str, Any], settings: Mapping[str, str] | None = None) -> str:
        """Add a stream and return its name; the same stream drawn twice is one.

        ``settings``: by field of the stream, the strategy's setting that it is made of, where that is called
        otherwise: messages about the one name the other.
        """
        spec = StreamSpec.model_validate(spec)
        if self.streams.get(hint) == spec:
            return hint
        name = self._free(hint, self.streams.keys())
        self.streams[name] = spec
        for field, setting in (settings or {}).items():
            self.settings[f"streams.{name}.{field}"] = f"{self.where}.{setting}"
        return name

    def flow(self, source: str | list[str], target: str | list[str], **fields: Any) -> None:
        """Add a flow; ``fields`` are those of :class:`FlowSpec`, None meaning its default."""
        given = {name: value for name, value in fields.items() if value is not None}
        refuse_odd_values(given, FlowSpec, where=self.where)
        self._draw(FlowSpec(**{"from": source, "to": target, **given}))

    def labels(
        self,
        agents: Sequence[str],
        weight: float | Ramp | None,
        *,
        stream: str = "train",
        lesson: str | None = None,
        objective: ObjectiveRef | None = None,
    ) -> None:
        """Let agents learn from labels, drawn once per agent; other labels on the same stream are refused.

        ``weight`` None or 0 draws nothing.
        """
        if weight is None or weight == 0:
            return
        fresh: list[str] = []
        fields = {"stream": stream, "weight": weight, "lesson": lesson}
        flow = FlowSpec(**{"from": "labels", "to": list(agents), **fields}, objective=objective or self.label_objective)
        for agent in agents:
            drawn = self._labels[agent, stream]
            together = [(other, at) for other, at in drawn if None in (other.lesson, lesson) or other.lesson == lesson]
            if not together:
                drawn.append((flow, self.where))
                fresh.append(agent)
            for other, at in together:
                if (other.weight, other.objective, other.lesson) != (weight, flow.objective, lesson):
                    raise MeshError(
                        f"labels reach {agent!r} {self._terms(flow)} here, but {self._terms(other)} in {at}",
                        where=self.where,
                        instead="give both the same `labels`, or set `labels: null` in one of them",
                    )
        if fresh:
            self._draw(flow.model_copy(update={"to": fresh}))

    def _draw(self, flow: FlowSpec) -> None:
        self._count(flow, self.where)
        self.flows.append(flow)

    def _count(self, flow: FlowSpec, where: str) -> None:
        """Refuse a flow with which the mesh is too large, before anything is made of it."""
        self._edges += limits.drawn(flow)
        limits.edges(self._edges, where)

    def program(self, item: ProgramItem | dict[str, Any]) -> None:
        """Add a stage's program, as in a mesh file or read from one."""
        self.programs.append(ProgramItem.model_validate(item))

    @property
    def measures_texts(self) -> bool:
        """Whether the mesh has a metric of what agents write."""
        return any("texts" in registry().find("metrics", ref.name).needs for ref in self.spec.metrics)

    def taught(self) -> set[str]:
        """Agents at which a flow of a signal ends so far."""
        return {name for flow in [*self.spec.flows, *self.flows] if flow.as_ != "weights" for name in flow.to}

    def _terms(self, flow: FlowSpec) -> str:
        """Say how a flow of labels is weighed, for messages."""
        ramp = flow.weight
        weight = f"{ramp.start} to {ramp.end}" if isinstance(ramp, Ramp) else ramp
        objective = "" if flow.objective in (None, self.label_objective) else f" by {flow.objective.model_dump()}"
        return f"with weight {weight}{objective}" + (f" in lesson {flow.lesson!r}" if flow.lesson else "")

    @staticmethod
    def _free(hint: str, taken: Any) -> str:
        """A name that is free, also without case, made of the hint, with a number where that is taken."""
        known = {folded(name) for name in taken}
        hint = hint if len(hint) <= LENGTH else hint[: LENGTH - 4]
        name, number = hint, 2
        while folded(name) in known:
            name, number = f"{hint}{number}", number + 1
        return name


def expand(names: list[Any], agents: dict[str, AgentSpec]) -> list[str]:
    """Replace `party[*]` by every agent of the party, in order."""
    out: list[str] = []
    for name in names:
        if isinstance(name, str) and name.endswith("[*]"):
            prefix = name[:-2]
            members = [agent for agent in agents if agent.startswith(prefix) and agent[len(prefix) : -1].isdigit()]
            out += members or [name]
        else:
            out.append(str(name))
    return out
