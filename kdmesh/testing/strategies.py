"""The contract of a strategy."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import pytest
import torch

from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.graph.canvas import Canvas
from kdmesh.graph.plan import Plan
from kdmesh.graph.planner import make_plan
from kdmesh.offers import StrategyOffer
from kdmesh.plugins import Registry, registry
from kdmesh.spec import MeshSpec
from kdmesh.spec.read import parse
from kdmesh.streams.table import Table
from kdmesh.testing.base import Contract

BYSTANDER = "bystander"
ROWS = 120


class StrategyContract(Contract):
    """Checks what a strategy draws between ``agents``, which ``config`` names, and that it trains.

    - ``agents``: their names; each is a small MLP on made-up points. One more, `bystander`, is named nowhere.
    - ``mesh``: further fields of the mesh file, ``{"streams": {...}}``; the split `transfer` exists too.
    - ``backends``: where the long form is run: `inline`, and `ray` for one that is meant to be checked there too.
    """

    __test__ = False
    kind = "strategies"
    agents: ClassVar[tuple[str, ...]] = ("a", "b", "c")
    mesh: ClassVar[dict[str, Any]] = {}
    backends: ClassVar[tuple[str, ...]] = ("inline",)

    @pytest.fixture
    def spec(self, offer: StrategyOffer, settings: dict[str, Any]) -> MeshSpec:
        """The mesh with the strategy over its agents."""
        agents = {name: {"model": {"mlp": {"hidden": [6]}}} for name in (*self.agents, BYSTANDER)}
        train = {"epochs": 1, "batch_size": 16, "optimizer": {"sgd": {"lr": 0.1}}}
        data = {"dataset": "python:given", "transfer": 0.2}
        fields = {"data": data, "train": train, "agents": agents, "connect": [{offer.name: settings}], **self.mesh}
        return parse(fields)

    @pytest.fixture
    def plan(self, offer: StrategyOffer, spec: MeshSpec) -> Plan:
        """The mesh, planned."""
        return make_plan(spec, known(offer))

    def drawn(self, offer: StrategyOffer, spec: MeshSpec) -> Canvas:
        """The canvas after the strategy."""
        canvas = Canvas(spec)
        canvas.where = f"connect.0.{offer.name}"
        offer.make(spec.connect[0].config).draw(canvas)
        return canvas

    def test_draws_between_the_agents_it_was_given(self, offer: StrategyOffer, spec: MeshSpec) -> None:
        """Some flow is drawn, all end where they may, and nothing that was there is changed."""
        canvas = self.drawn(offer, spec)
        assert canvas.flows, "the strategy draws nothing"
        ends = {name for flow in canvas.flows for name in (*flow.from_, *flow.to)}
        assert BYSTANDER not in ends, "a flow touches an agent that the strategy was not given"
        unknown = ends - canvas.agents.keys() - canvas.consensuses.keys() - {"labels"}
        assert not unknown, f"flows end at {', '.join(sorted(unknown))}, which nobody added"
        for given, now in (
            (spec.agents, canvas.agents), (spec.streams, canvas.streams), (spec.consensus, canvas.consensuses)
        ):  # fmt: skip
            changed = [name for name, value in given.items() if now.get(name) != value]
            assert not changed, f"{', '.join(changed)} was given, and was changed"
        assert canvas.programs[: len(spec.program)] == spec.program, "a program that was given was changed"

    def test_draws_the_same_again(self, offer: StrategyOffer, spec: MeshSpec) -> None:
        """Drawing is a function of the configuration and the mesh."""
        one, two = self.drawn(offer, spec), self.drawn(offer, spec)
        assert (one.flows, one.consensuses, one.agents) == (two.flows, two.consensuses, two.agents)
        assert (one.streams, one.programs) == (two.streams, two.programs)

    def test_long_form_plans_the_same(self, offer: StrategyOffer, plan: Plan) -> None:
        """What `kdmesh plan --expand` prints is read back as the same plan, with and without every default."""
        for spec in (plan.spec, plan.resolved()):
            again = make_plan(parse(spec.dump()), known(offer))
            assert shown(again) == shown(plan)

    def test_long_form_trains_to_the_same_weights(self, plan: Plan) -> None:
        """The long form and the resolved one, on each of ``backends``, give the same bits."""
        first: dict[str, str] = {}
        for backend in self.backends:
            for spec in (plan.spec, plan.resolved()):
                request = Request(parse(spec.dump()), backend, table=points())
                summary, _, _ = run_once(request)
                found = {name: facts["weights_sha256"] for name, facts in summary["agents"].items()}
                first = first or found
                assert found == first, f"weights differ on {backend}"


def points() -> Table:
    """Samples ``[N, 6]`` of three classes: which of three fixed directions each lies most along."""
    made = torch.Generator().manual_seed(5)
    x, directions = torch.randn(ROWS, 6, generator=made), torch.randn(6, 3, generator=made)
    return Table(x, (x @ directions).argmax(1), classes=3)


def shown(plan: Plan) -> tuple[Any, ...]:
    """What two equal plans have in common: the resolved mesh, and every stage's steps."""
    stages = [
        (stage.name, stage.weights, stage.generation, {key: phase.text() for key, phase in stage.phases.items()})
        for stage in plan.stages
    ]
    return plan.resolved().dump(), stages, plan.hosts


class _With:
    """The registry of this process and one more offer, which need not be installed."""

    def __init__(self, offer: StrategyOffer) -> None:
        self.offer = offer

    def __getattr__(self, name: str) -> Any:
        return getattr(registry(), name)

    def find(self, kind: str, name: str, where: str = "") -> Any:
        """The offer itself, or an installed one."""
        return self.offer if self._is(kind, name) else registry().find(kind, name, where)

    def check(self, kind: str, name: str, config: dict[str, Any], where: str = "") -> Any:
        """The settings as the offer's model."""
        if self._is(kind, name):
            return self.offer.config.model_validate(config)
        return registry().check(kind, name, config, where)

    def _is(self, kind: str, name: str) -> bool:
        return (kind, name) == (self.offer.kind, self.offer.name)


def known(offer: StrategyOffer) -> Registry:
    """A registry that knows the offer under its name."""
    return registry() if offer in registry().offers("strategies") else cast(Registry, _With(offer))
