"""The contract of a strategy."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from kdmesh.graph.canvas import Canvas
from kdmesh.graph.plan import Plan
from kdmesh.graph.planner import make_plan
from kdmesh.offers import StrategyOffer
from kdmesh.plugins import registry
from kdmesh.spec import MeshSpec
from kdmesh.spec.read import parse
from kdmesh.streams.table import Table
from kdmesh.testing import small
from kdmesh.testing.alike import Alike, At, here
from kdmesh.testing.run_mesh import RunMesh, lent

BYSTANDER = "bystander"
ROWS = 120


class StrategyContract(Alike):
    """Checks what a strategy draws between ``agents``, which ``config`` names, and that it trains.

    - ``agents``: their names; each is a small MLP on made-up points. One more, `bystander`, is named nowhere.
    - ``mesh``: further fields of the mesh file, ``{"streams": {...}}``; the split `transfer` exists too.
    """

    __test__ = False
    kind = "strategies"
    agents: ClassVar[tuple[str, ...]] = ("a", "b", "c")
    device = False  # it handles names

    def small_mesh(self, offer: StrategyOffer, settings: dict[str, Any]) -> tuple[dict[str, Any], Table]:
        """The mesh with the strategy over its agents."""
        fields = small.mesh((*self.agents, BYSTANDER), small.model(), connect=[{offer.name: settings}])
        fields["data"]["transfer"] = 0.2
        return fields, small.table(rows=ROWS)

    @pytest.fixture
    def spec(self, offer: StrategyOffer, settings: dict[str, Any]) -> MeshSpec:
        """The mesh with the strategy over its agents."""
        return self.spec_of(offer, settings)

    def spec_of(self, offer: StrategyOffer, settings: dict[str, Any]) -> MeshSpec:
        """The same."""
        return parse({**self.small_mesh(offer, settings)[0], **self.mesh})

    def made(self, offer: StrategyOffer, settings: dict[str, Any]) -> Any:
        """The strategy, and the mesh that it draws on."""
        spec = self.spec_of(offer, settings)
        return offer.make(spec.connect[0].config), spec

    def asked(self, offer: StrategyOffer, thing: Any, number: int, at: At = here) -> Any:
        """What it draws, as it is written."""
        strategy, spec = thing
        canvas = Canvas(spec)
        canvas.where = f"connect.0.{offer.name}"
        strategy.draw(canvas)
        parts = (canvas.flows, canvas.consensuses, canvas.agents, canvas.streams, canvas.programs)
        return [[repr(one) for one in (part.items() if isinstance(part, dict) else part)] for part in parts]

    @pytest.fixture
    def plan(self, offer: StrategyOffer, spec: MeshSpec) -> Plan:
        """The mesh, planned."""
        with lent((offer,)):
            return make_plan(spec, registry())

    def canvas(self, offer: StrategyOffer, spec: MeshSpec) -> Canvas:
        """The canvas after the strategy."""
        canvas = Canvas(spec)
        canvas.where = f"connect.0.{offer.name}"
        offer.make(spec.connect[0].config).draw(canvas)
        return canvas

    def test_draws_between_the_agents_it_was_given(self, offer: StrategyOffer, spec: MeshSpec) -> None:
        """Some flow is drawn, all end where they may, and nothing that was there is changed."""
        canvas = self.canvas(offer, spec)
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
        one, two = self.canvas(offer, spec), self.canvas(offer, spec)
        assert (one.flows, one.consensuses, one.agents) == (two.flows, two.consensuses, two.agents)
        assert (one.streams, one.programs) == (two.streams, two.programs)

    def test_long_form_plans_the_same(self, offer: StrategyOffer, plan: Plan) -> None:
        """What `kdmesh plan --expand` prints is read back as the same plan, with and without every default."""
        for spec in (plan.spec, plan.resolved()):
            again = make_plan(parse(spec.dump()), registry())
            assert shown(again) == shown(plan)

    def test_long_form_trains_to_the_same_weights(
        self, offer: StrategyOffer, settings: dict[str, Any], plan: Plan, run_mesh: RunMesh
    ) -> None:
        """The long form and the resolved one, with every default, give the same bits."""
        data = self.small_mesh(offer, settings)[1]
        one, two = (run_mesh(spec.dump(), data=data, out=False) for spec in (plan.spec, plan.resolved()))
        assert one.weights == two.weights, "the long form trains to other weights with every default written"


def shown(plan: Plan) -> tuple[Any, ...]:
    """What two equal plans have in common: the resolved mesh, and every stage's steps."""
    stages = [
        (stage.name, stage.weights, stage.generation, {key: phase.text() for key, phase in stage.phases.items()})
        for stage in plan.stages
    ]
    return plan.resolved().dump(), stages, plan.hosts
