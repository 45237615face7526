"""The same file and seed give the same bits: inline, all agents on one host and each on its own, and so on Ray."""

from __future__ import annotations

import pytest
from accounted import accounts
from few_texts import few_samples, topology

from kdmesh.backends import Session
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import bundled, parse, read_mesh

LONGEST, COUNTS = 2, ("epochs", "rounds", "digest_epochs")
# On one actor a mesh is a process with nothing to send, whatever the mesh: of each kind of task one is enough.
TOGETHER = {"council", "multi-label", "ranking", "regression", "sequence-level"}
# The contract of each strategy runs it on Ray too: of meshes that only connect the same ones otherwise, one is enough.
ALIKE = {
    *("confidence-ensemble", "ensemble-then-mutual", "one-shot", "previous-epoch", "privileged-self"),
    *("specialists", "star", "votes"),
}
NAMES = sorted({*bundled()} - {"api-classifier"})  # which asks a server


def shortened(value):
    """The same mesh with no more than two epochs or rounds of anything."""
    if isinstance(value, dict):
        return {
            key: min(item, LONGEST) if isinstance(item, int) and key in COUNTS else shortened(item)
            for key, item in value.items()
        }
    return [shortened(item) for item in value] if isinstance(value, list) else value


def mesh(name, placement):
    fields = shortened(topology(name).dump())
    placed = {} if "parties" in fields else {"placement": placement}  # parties say who lives where
    return parse({**fields, "data": few_samples(name, fields["data"]), **placed})


def outcome(name, placement, session, keys):
    spec = mesh(name, placement)
    summary, _, _ = run_once(Request(spec, privacy=accounts(spec, keys)), session=session)
    agents = {
        agent: (facts["weights_sha256"], facts["updates"], facts["metrics"])
        for agent, facts in summary["agents"].items()
    }
    return agents, summary.get("texts")


@pytest.mark.ray
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else []) for name in NAMES]
)
def test_inline_and_ray_give_equal_bits_wherever_agents_are(name, ray_session, tmp_path):
    inline, keys = Session("inline"), tmp_path / "keys"
    expected = outcome(name, "together", inline, keys)
    if name not in ("fedavg", "feddf"):  # whose agents have one set of weights in the end
        plan = make_plan(mesh(name, "together"), registry())
        owners = {owner for owner in plan.owner.values() if not plan.withheld(owner)}
        assert len({expected[0][owner][0] for owner in owners}) == len(owners)  # no agent is another's copy
    assert outcome(name, "spread", inline, keys) == expected
    assert outcome(name, "spread", ray_session, keys) == expected
    if name in TOGETHER:
        assert outcome(name, "together", ray_session, keys) == expected


def test_another_seed_gives_other_bits():
    spec = parse(shortened(read_mesh("ensemble").dump()))
    first, second = (
        run_once(Request(spec.model_copy(update={"seed": seed}), "inline"))[0]["agents"]["student"] for seed in (0, 1)
    )
    assert first["weights_sha256"] != second["weights_sha256"]
