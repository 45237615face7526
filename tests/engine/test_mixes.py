"""Batches that are mixed, and agents that draw as others do: the same wherever and however often they run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import kdmesh
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.hosts import build, guard
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

FROZEN = {"update": "frozen", "model": {"mlp": {"hidden": [16]}}}
NOISE = {"noise": {"std": 0.5}}


def taught(mesh: Any, teacher: Any, student: Any, flow: dict[str, Any] | None = None, **fields: Any) -> kdmesh.Mesh:
    """A frozen teacher and a student, by what each sees."""
    made = mesh({"t": {**FROZEN, "view": teacher}, "s": {"view": student}}, **fields)
    made.connect("ensemble", teachers="t", student="s", labels=0.5, **(flow or {}))
    return made


def digits(per: str, placement: str = "together") -> Any:
    """Images, of which a teacher and two students that teach each other see the same mixes."""
    view = {"augment": ["shift", {"cutmix": {"per": per}}]}
    agents = {"t": {**FROZEN, "view": {"of": "a"}}, "a": {"model": "mlp", "view": view}}
    agents["b"] = {"model": "mlp", "view": {"augment": [{"cutmix": {"per": per}}]}}
    flows = [
        {"from": "labels", "to": ["a", "b"], "objective": "ce"},
        {"from": "t", "to": ["a", "b"], "objective": "kl"},
        {"from": "a", "to": "b", "objective": "kl"},
        {"from": "b", "to": "a", "objective": "kl"},
    ]
    few = {"few": {"of": "train", "size": 90}}
    for flow in flows:
        flow["stream"] = "few"
    train = {"epochs": 3, "batch_size": 32, "optimizer": {"sgd": {"lr": 0.1}}}
    fields = {"data": "digits", "streams": few, "agents": agents, "flows": flows, "train": train}
    return parse({**fields, "placement": placement})


def sums(summary: Any) -> dict[str, str]:
    return {name: agent["weights_sha256"] for name, agent in summary["agents"].items()}


@pytest.mark.ray
@pytest.mark.parametrize("per", ["batch", "sample"])
def test_on_ray_and_spread_the_bits_are_those_of_one_process(per: str, ray_session: Any) -> None:
    inline = sums(run_once(Request(digits(per), "inline", store="off"))[0])
    assert sums(run_once(Request(digits(per, "spread"), store="off"), session=ray_session)[0]) == inline
    assert sums(run_once(Request(digits(per, "spread"), "inline", store="off"))[0]) == inline


def test_broken_off_anywhere_it_ends_with_the_same_bits(mesh: Any, hashes: Any, broken_off: Any) -> None:
    def made() -> kdmesh.Mesh:
        return taught(mesh, {"of": "s"}, {"augment": [NOISE, {"mixup": {"per": "sample"}}]})

    expected = hashes(made())
    for summary in broken_off(made):
        assert sums(summary) == expected


def seen(opened: Any, made: kdmesh.Mesh, *names: str, epoch: int = 2) -> list[torch.Tensor]:
    """What agents see of the same samples."""
    _, hosts = opened(made)
    agents = {name: one for host in hosts.values() for name, one in host.agents.items()}
    x = torch.rand(20, 8, generator=torch.Generator().manual_seed(0))
    return [agents[name].see(x, torch.arange(20), epoch) for name in names]


def test_the_same_draws_or_others_by_choice(mesh: Any, opened: Any) -> None:
    two = [NOISE, {"drop": {"p": 0.4}}]
    same = seen(opened, taught(mesh, {"of": "s"}, {"augment": two}), "t", "s")
    assert torch.equal(*same)
    apart = seen(opened, taught(mesh, {"augment": two}, {"augment": two}), "t", "s")
    assert torch.equal(apart[1], same[1]) and not torch.equal(*apart)
    own = {"of": "s", "augment": [{"noise": {"std": 1.0}}]}  # the same numbers, twice as loud
    quiet, loud = seen(opened, taught(mesh, own, {"augment": [NOISE]}), "s", "t")
    x = torch.rand(20, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose((loud - x) / (quiet - x), torch.tensor(2.0), atol=1e-3)


def test_the_long_form_says_what_an_agent_sees(mesh: Any, hashes: Any) -> None:
    made = taught(mesh, {"of": "s"}, {"augment": [NOISE, "mixup"], "draws": 3})
    view = made.plan().spec.agents["t"].view
    assert [one.name for one in view.augment] == ["noise", "mixup"] and view.draws == 3
    again = mesh({name: {"view": one.view.model_dump(mode="json")} for name, one in made.plan().spec.agents.items()})
    assert again.plan().spec.agents["t"].view == view


def test_a_frozen_teacher_under_fresh_draws_is_live_and_no_peer(mesh: Any, tmp_path: Any) -> None:
    made = taught(mesh, {"of": "s"}, {"augment": [NOISE]})
    plan = made.plan()
    assert [stage.agents for stage in plan.stages] == [["s"]] and plan.edges[-1].live
    before = made.run(backend="inline", store=str(tmp_path))
    after = taught(mesh, {"of": "s"}, {"augment": [NOISE]}, {"refresh": "step"}).run(backend="inline", store="off")
    assert sums(before.summary) == sums(after.summary)
    assert "new views" in before.summary["store"]["not_kept"]["t"]
    assert before.summary["agents"]["t"]["role"] == "teacher" and before.summary["agents"]["s"]["role"] == "student"


def test_what_is_mixed_is_not_kept_and_counted_views_are(mesh: Any, tmp_path: Any) -> None:
    found = [
        taught(mesh, {"of": "s"}, {"augment": [NOISE, *mixed], "draws": 2}).run(backend="inline", store=str(tmp_path))
        for mixed in (["mixup"], [])
    ]
    assert "mixed anew" in found[0].summary["store"]["not_kept"]["t"]
    assert found[1].summary["store"]["not_kept"] == {} and found[1].summary["store"]["agents"]["t"]["kept"] >= 0


def test_of_samples_what_is_stored_teaches_as_what_is_live(mesh: Any, hashes: Any) -> None:
    """A teacher that sees samples: its answers are mixed as labels are, published or made in the step."""
    found = [hashes(taught(mesh, {}, {"augment": ["mixup"]}, {"refresh": refresh})) for refresh in ("once", "step")]
    assert found[0] == found[1]
    unmixed = hashes(taught(mesh, {}, {}))
    assert unmixed["s"] != found[0]["s"]


def test_old_weights_see_the_same_mixes(mesh: Any) -> None:
    made = mesh({"a": {"view": {"augment": ["mixup"]}}, "b": {"view": {"augment": ["mixup"]}}})
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow("a", "b", objective="kl", refresh="epoch", stale="snapshot")
    made.flow("b", "a", objective="kl", refresh="epoch", stale="publish")
    result = made.run(backend="inline")
    assert all(agent["updates"] == 9 for agent in result.summary["agents"].values())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.ones(3, 2), r"not \(x, partner, share\)"),
        ((torch.ones(3, 2), torch.arange(2), 0.5), "its partner is"),
        ((torch.ones(3, 2), torch.tensor([0, 1, 3]), 0.5), "its partner is"),
        ((torch.ones(3, 2), torch.arange(3), 1.5), "its share is 1.5"),
        ((torch.ones(3, 2), torch.arange(3), torch.tensor([0.1, 0.2, -0.1])), "its share is"),
        ((torch.ones(3, 2), torch.arange(3), torch.ones(3).double()), "its share is"),
    ],
)
def test_what_a_plugins_mix_gives_is_checked(value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        guard.mixed(value, torch.ones(3, 2))


MIX = {"augment": ["mixup"]}
REFUSED = {
    "not last": (({}, {"augment": ["mixup", NOISE]}, {}), "s.view.augment.0", "augment what is no sample"),
    "twice": (({}, {"augment": ["mixup", "cutmix"]}, {}), "s.view.augment.0", "augment what is no sample"),
    "others": ((MIX, {"augment": [{"mixup": {"alpha": 0.2}}]}, {}), "connect.0", "of other mixes than s sees"),
    "none": ((MIX, {}, {}), "connect.0", "of mixes, and s sees none"),
    "once": ((MIX, MIX, {"refresh": "once"}), "t.view.augment", "neither learns nor answers"),
    "views once": (({"augment": [NOISE]}, {}, {"refresh": "once"}), "t.view.draws", "a new draw of every sample"),
    "apart": (({}, {"augment": [NOISE], "apart": True}, {}), "s.view.apart", "mixes no batches"),
    "unknown": (({"of": "x"}, {"augment": [NOISE]}, {}), "t.view.of", "unknown agent 'x'"),
    "itself": (({"of": "t"}, {}, {}), "t.view.of", "cannot refer to itself"),
    "nothing": (({"of": "s"}, {}, {}), "t.view.of", "nothing to draw"),
    "own nothing": (({"of": "s", "augment": []}, {"augment": [NOISE]}, {}), "t.view.of", "draws nothing"),
    "draws": (({"of": "s", "draws": 2}, {"augment": [NOISE]}, {}), "t.view.draws", "their draws differ"),
    "of": (({"of": "s"}, {"of": "t"}, {}), "t.view.of", "s draws as t does"),
    "draws of a mix": (({}, {"augment": ["mixup"], "draws": 2}, {}), "s.view.draws", "no augmentations to draw"),
    "settings": (({}, {"augment": [{"mixup": {"alpha": 0}}]}, {}), "s.view.augment.0", "greater than 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(mesh: Any, case: str) -> None:
    given, where, said = REFUSED[case]
    with pytest.raises(MeshError, match=said) as error:
        taught(mesh, *given).plan()
    assert where in error.value.where, error.value.where


@pytest.mark.parametrize(
    ("flow", "said"),
    [
        ({"objective": "ce", "gate": {"small_loss": {}}}, "says which samples count"),
        ({"objective": "ce", "denominator": {"group": "g"}}, "counts samples"),
    ],
)
def test_what_looks_at_samples_is_refused_beside_mixes(mesh: Any, flow: dict[str, Any], said: str) -> None:
    made = mesh({"s": {"view": MIX}})
    made.flow("labels", "s", **flow)
    with pytest.raises(MeshError, match=said):
        made.plan()


def test_what_is_recorded_is_of_samples(mesh: Any) -> None:
    made = mesh({"s": {"view": MIX}})
    made.connect("self", student="s", teacher="batch")
    with pytest.raises(MeshError, match="of mixes, and what is recorded is read by sample"):
        made.plan()


def test_texts_are_not_mixed(mesh: Any) -> None:
    plan = taught(mesh, {}, MIX).plan()
    host = SimpleNamespace(plan=plan, registry=registry(), seed=0, reading=SimpleNamespace(texts=True))
    with pytest.raises(MeshError, match="mixes numbers, and the data are texts"):
        build.view(host, "s", 0)
