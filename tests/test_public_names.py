"""What plugins were written with in the first form of 0.1.0 is where it was, and takes what it took in that order."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest

from kdmesh import hookspecs, offers
from kdmesh.contracts.run_info import RunInfo

NAMES = {
    "kdmesh": "Mesh MeshError Result RunFailed TargetsCollator data hookimpl load targets",
    "kdmesh.errors": "MeshError RunFailed",
    "kdmesh.consensus": "UHC Concat Confidence Entropy GeometricMedian LowestCE Mean Median Route Rule TrimmedMean "
    "Vote Weighted normalised present_of silenced uniform weighted_sum",
    "kdmesh.objectives": "JSD MAE MSE Aligned AttentionKL AttentionMSE AttentionTransfer CrossEntropy ForwardKL Hint "
    "Objective ReverseKL SkewedKL SkewedReverseKL Tempered TotalVariation Universal at_least_float32 batchmean "
    "comparable elementmean kept lazily log_probs probs refuse_form",
    "kdmesh.strategies": "AgentSpec Canvas ConsensusSpec LabelWeight Names ObjectiveRef Period ProgramItem Ramp "
    "RuleRef SignalRef Strategy StreamSpec TapRef Weight apart divided one_or_many softened students teaching",
    "kdmesh.streams.table": "Table",
    "kdmesh.testing": "ConsensusContract DatasetContract ModelContract ObjectiveContract StrategyContract",
}
BASE = "name factory config summary paper api"
FIELDS = {
    "StrategyOffer": "",
    "ObjectiveOffer": "reads forms tempered needs",
    "ConsensusOffer": "needs_labels stateful trained spaces inputs partial needs_column",
    "SignalOffer": "reads form lazy",
    "ModelOffer": "gives encoder sizes",
    "DatasetOffer": "",
    "ViewOffer": "",
}
ARGUMENTS = {
    "kdmesh_run_started": "run",
    "kdmesh_stage_started": "run stage",
    "kdmesh_round_finished": "run stage round metrics",
    "kdmesh_agent_evaluated": "run agent stream metrics",
    "kdmesh_host_lost": "run host error",
    "kdmesh_run_finished": "run summary",
    "kdmesh_place_agents": "mesh groups resources measured",
}


@pytest.mark.parametrize("module", NAMES)
def test_public_names_are_where_they_were(module: str) -> None:
    found = import_module(module)
    assert [name for name in NAMES[module].split() if not hasattr(found, name)] == []


@pytest.mark.parametrize("name", FIELDS)
def test_an_offer_takes_what_it_took_by_position(name: str) -> None:
    """What is new comes last, and may be left out."""
    kind: Any = getattr(offers, name)
    known = [*BASE.split(), *FIELDS[name].split()]
    found = [field.name for field in fields(kind)]
    assert found[: len(known)] == known
    kind("one", "module:One")


@pytest.mark.parametrize("name", ARGUMENTS)
def test_hooks_are_called_with_what_they_were(name: str) -> None:
    known = getattr(hookspecs, name).__code__
    assert set(ARGUMENTS[name].split()) <= set(known.co_varnames[: known.co_argcount])


def test_the_plan_of_a_run_warns_and_says_when_it_is_gone() -> None:
    """An observer of old reads `run.plan.spec`."""
    plan: Any = SimpleNamespace(spec=["a"])
    run = RunInfo(plan.spec, 0, "inline", None, {}, {}, plan)
    with pytest.warns(DeprecationWarning, match=r"RunInfo\.plan goes away in kdmesh 0\.3: read RunInfo\.mesh"):
        copied = run.plan
    assert copied.spec == run.mesh and copied.spec is not run.mesh


def test_an_objective_may_still_write_its_gradient_under_the_old_name() -> None:
    import torch

    from kdmesh.objectives import ForwardKL, Objective

    with pytest.warns(DeprecationWarning, match=r"Old\.descend is now called loss_and_gradient.*0\.3"):

        class Old(Objective):
            def forward(self, student, target, *, form="logits", weights=None):
                return ((student - target).square().sum(1) * weights).sum() / len(student)

            def descend(self, logits, target, form, factors, spare, **facts):
                return super().descend(logits, target, form, factors, spare, **facts) + 1000

    logits, target = torch.randn(2, 3, 4).unbind()
    given = logits.clone()
    loss = Old().loss_and_gradient(given, target, "logits", torch.ones(3), torch.empty(4, 3, 4))
    torch.testing.assert_close(loss, (logits - target).square().sum() + 1000)
    torch.testing.assert_close(given, 2 * (logits - target))

    with pytest.warns(DeprecationWarning, match=r"Steep\.slope is now called gradient"):

        class Steep(ForwardKL):
            def slope(self, rows):
                return super().gradient(rows)

    assert Steep.closed_form and Steep.gradient is Steep.slope
