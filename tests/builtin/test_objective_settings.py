"""Every setting of every built-in objective: in each form of target it changes the loss, or the file is refused."""

from __future__ import annotations

import pytest
import torch

from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.graph.unrun import refuse_unrun
from kdmesh.plugins import registry
from kdmesh.spec.read import parse
from kdmesh.testing import ObjectiveContract

BASE = {"temperature": 3.0}  # at 1 its square scales nothing
OTHER = {
    "label_smoothing": 0.2,
    "class_weights": [1.0, 2.0, 3.0, 4.0, 5.0],
    "temperature": 2.0,
    "t2_scale": False,
    "beta": 0.3,
    "skew": 0.4,
    "per_element": True,
    "adapter": "always",
    "p": 3,
}
"""Another value of each setting."""
OFFERS = [offer for offer in registry().offers("objectives") if offer.factory.startswith("kdmesh.")]
CASES = [
    pytest.param(offer, form, field, id=f"{offer.name}-{form}-{field}")
    for offer in OFFERS
    for form in offer.forms
    for field in offer.config.model_fields
]
TASKS = {"indicators": "multi_label", "values": "regression", "relevance": "ranking", "classes": "classification"}


def loss(offer, form, settings):
    """One seeded loss. The target is the same whatever the settings are."""
    kit = type("Kit", (ObjectiveContract,), {"__test__": False})()
    if offer.name == "in_batch":
        kit.__class__.shape = kit.__class__.target_shape = (4, 7)
    if offer.name.startswith("attention_"):
        kit.__class__.shape = (5,)
    student, target = kit.sides(offer, form, 3.0)
    torch.manual_seed(1)
    beside = kit.beside(offer, torch.arange(len(student)))
    return kit.build(offer, settings).double()(student, target, form=form, **beside).item()


def base(offer):
    return {field: value for field, value in BASE.items() if field in offer.config.model_fields}


@pytest.mark.parametrize(("offer", "form", "field"), CASES)
def test_a_setting_changes_the_loss_or_is_said_not_to(offer, form, field):
    changed = loss(offer, form, base(offer)) != loss(offer, form, {**base(offer), field: OTHER[field]})
    assert changed == (form in offer.forms_of.get(field, offer.forms)), "what the offer says is not so"


def mesh(offer, form, settings):
    """A mesh with a flow that carries the form to its student."""
    task = next(TASKS[kind] for kind in TASKS if kind in offer.labels) if form in ("labels", "marginals") else None
    own = {"from": "labels" if form == "labels" else "t", "to": "s", "objective": {offer.name: settings}}
    nodes = {}
    flows = [{"from": "labels", "to": "t", "objective": "ce"}, own]
    if form in ("probs", "marginals"):
        nodes = {"consensus": {"c": {"rule": "mean", "space": form}}}
        own["from"] = "c"
        flows += [{"from": "labels", "to": "u", "objective": "ce"}, {"from": ["t", "u"], "to": "c"}]
    agents = {name: {"model": "mlp"} for name in ("t", "s", *(["u"] if nodes else []))}
    return {"task": task or "classification", "data": "digits", "agents": agents, "flows": flows, **nodes}


@pytest.mark.parametrize(
    ("offer", "form", "field"),
    [
        pytest.param(offer, form, field, id=f"{offer.name}-{form}-{field}")
        for offer in OFFERS
        for field, forms in offer.forms_of.items()
        for form in offer.forms
    ],
)
def test_a_setting_without_effect_is_refused_where_it_stands(offer, form, field):
    plan = make_plan(parse(mesh(offer, form, {field: OTHER[field]})), registry())
    if form in offer.forms_of[field]:
        refuse_unrun(plan, registry())
        return
    with pytest.raises(MeshError) as refused:
        refuse_unrun(plan, registry())
    assert refused.value.where == f"flows.1.objective.{offer.name}.{field}"
    assert "so it has no effect" in str(refused.value) and "leave it out" in refused.value.instead


def test_each_edge_of_a_flow_may_use_what_another_does_not():
    spec = mesh(registry().find("objectives", "ce"), "logits", {"temperature": 4, "label_smoothing": 0.1})
    spec["flows"][1]["from"] = ["labels", "t"]
    refuse_unrun(make_plan(parse(spec), registry()), registry())


def test_every_default_written_out_is_as_good_as_none():
    for form in ("labels", "logits", "probs"):
        offer = registry().find("objectives", "ce")
        plan = make_plan(parse(mesh(offer, form, {})), registry())
        again = make_plan(parse(plan.resolved().dump()), registry())
        refuse_unrun(again, registry())


def test_in_the_short_form_the_strategy_is_named():
    connect = [{"ensemble": {"teachers": "t", "student": "s", "objective": {"ce": {"label_smoothing": 0.1}}}}]
    spec = {"data": "digits", "agents": {"t": {"model": "mlp"}, "s": {"model": "mlp"}}, "connect": connect}
    with pytest.raises(MeshError, match="label_smoothing") as refused:
        refuse_unrun(make_plan(parse(spec), registry()), registry())
    assert refused.value.where == "connect.0.ensemble.objective.ce.label_smoothing"
