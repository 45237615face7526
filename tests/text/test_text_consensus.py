"""A consensus of language models is read in its sources' own tokens, whatever its reader's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from text_meshes import gpt, llama

import kdmesh
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse


def mesh(path: Path, objective: str, space: str | None, sources: int = 2, **more: Any) -> dict[str, Any]:
    """Teachers of characters and a student of byte pairs, with a consensus between them (``space``: no flow by itself).

    ``rule``, ``refresh``, ``nested``: of the consensus; the rest is the mesh's own.
    """
    rule, refresh, nested = more.pop("rule", "mean"), more.pop("refresh", "once"), more.pop("nested", False)
    teachers = [f"t{number + 1}" for number in range(sources)]
    models = {"t1": gpt(16, 1, None), "t2": llama(16, 1, None)}
    last = "d" if nested else "c" if space else "t1"
    flows: list[dict[str, Any]] = [{"from": "labels", "to": [*teachers, "s"], "objective": "ce"}]
    consensus = {}
    if space:
        flows.append({"from": teachers, "to": "c", "refresh": refresh})
        consensus["c"] = {"rule": rule, "space": "logits" if nested else space}
    if nested:
        flows += [{"from": "c", "to": "d"}, {"from": "t1", "to": "d", "refresh": refresh}]
        consensus["d"] = {"rule": "mean", "space": space}
    flows.append({"from": last, "to": "s", "objective": objective, **({} if space else {"refresh": refresh})})
    return {
        "task": "language_modelling",
        "data": {"dataset": {"text": {"path": str(path), "text": "text"}}},
        "agents": {**{name: {"model": models[name]} for name in teachers}, "s": {"model": gpt(8)}},
        "consensus": consensus,
        "flows": flows,
        "train": {"epochs": 1, "batch_size": 24},
        "placement": "together",
        **more,
    }


def run(mesh: dict[str, Any]) -> tuple[str, dict[str, float]]:
    """The student's weights and what its objective says of itself."""
    result = kdmesh.Mesh(**mesh).run(backend="inline", out=None)
    (said,) = result.summary["agents"]["s"]["objectives"].values()
    return str(result["s"].weights_sha256), said


@pytest.mark.parametrize(("objective", "refresh"), [("span", "once"), ("span", "step"), ("uld", "once")])
def test_a_consensus_of_one_teaches_as_its_source_does(texts: Path, objective: str, refresh: str) -> None:
    direct = run(mesh(texts, objective, None, 1, refresh=refresh))
    for space in ("loss", "logits"):
        assert run(mesh(texts, objective, space, 1, refresh=refresh)) == direct
    assert run(mesh(texts, objective, "probs", 1, refresh=refresh))[1] == direct[1]
    assert direct[1]["coverage"] == 1.0 and (objective == "uld" or direct[1]["token_coverage"] > 0.2)


@pytest.mark.parametrize(
    ("objective", "space", "more"),
    [
        ("span", "probs", {}),
        ("span", "probs", {"rule": "confidence"}),
        ("uld", "logits", {"rule": "entropy", "refresh": "step"}),
        ("span", "loss", {"rule": "entropy"}),
        ("uld", "loss", {"rule": "confidence", "refresh": "step"}),
        ("span", "probs", {"nested": True}),
        ("span", "loss", {"nested": True}),
    ],
)
def test_every_space_and_rule_covers_the_students_tokens(texts: Path, objective: str, space: str, more: Any) -> None:
    _, said = run(mesh(texts, objective, space, **more))
    assert said["coverage"] == 1.0 and (objective == "uld" or said["token_coverage"] > 0.2)


@pytest.mark.parametrize("more", [{}, {"nested": True}])
@pytest.mark.parametrize("space", ["probs", "loss"])
def test_sources_with_unlike_tokens_are_no_consensus(texts: Path, space: str, more: Any) -> None:
    odd = mesh(texts, "span", space, **more)
    odd["agents"]["t2"]["model"] = gpt(16)
    with pytest.raises(MeshError, match="t1 and t2 cut texts into different tokens, and c combines") as error:
        examine(make_plan(parse(odd), registry()))
    assert error.value.where == "flows.1" and "from each a flow of its own, with objective uld or span" in str(error)


def test_sources_of_unequal_vocabularies_need_a_rule(texts: Path) -> None:
    odd = mesh(texts, "span", "probs")
    odd["agents"]["t2"]["model"]["hf"]["config"]["vocab_size"] = 64
    with pytest.raises(MeshError, match="t1 has 27 outputs and t2 64: their vocabularies differ"):
        examine(make_plan(parse(odd), registry()))
    _, said = run({**odd, "text": {"vocabulary": "prefix"}})
    assert said["token_coverage"] > 0.2


def test_a_snapshot_reads_its_own_tokens(texts: Path) -> None:
    odd = mesh(texts, "uld", "probs", 1)
    odd["flows"][1] |= {"refresh": "epoch", "stale": "snapshot"}
    odd["train"]["epochs"] = 2
    assert run(odd)[1]["coverage"] == 1.0


@pytest.mark.parametrize("space", [None, "probs"])
def test_a_teacher_that_learns_in_the_same_step_is_heard_as_it_was(texts: Path, space: str | None) -> None:
    """Between hosts, what it said is packed after its update: with the last layer as it was when it spoke."""
    live = mesh(texts, "span", space, 1, refresh="step")
    assert run(live) == run({**live, "placement": "spread"})
