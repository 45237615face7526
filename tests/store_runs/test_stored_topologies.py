"""Every bundled topology of several generations gives the same bits with a store as without, cold and warm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from accounted import accounts
from few_texts import few_samples, topology

from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import bundled, parse, read_mesh

STAGES = [
    name
    for name in bundled()
    if max(stage.generation for stage in make_plan(read_mesh(name), registry()).stages)
    and not any(stream.generated_by for stream in read_mesh(name).streams.values())  # nobody is asked twice there
]
LIVE = (
    "confidence-ensemble",
    "ensemble",
    "hint",
    "multi-label",
    "ranking",
    "regression",
    "single-teacher",
    "specialists",
)


def short(name: str, epochs: int) -> dict[str, Any]:
    """A topology, with few epochs and samples."""
    mesh = topology(name).dump()
    mesh["data"] = few_samples(name, mesh["data"])
    mesh.setdefault("train", {})["epochs"] = epochs
    for agent in mesh["agents"].values():
        agent.get("train", {}).pop("epochs", None)
    for line in mesh.get("connect", ()):
        for settings in line.values():
            settings |= {key: 1 for key in ("local_epochs", "digest_epochs") if key in settings}
            settings |= {"rounds": 2} if "rounds" in settings else {}
    return mesh


def frozen(mesh: dict[str, Any], view: dict[str, Any]) -> list[str]:
    """Freeze the first generation of a mesh, which answers live, and sees samples in a view; returns who that is."""
    stages = make_plan(parse(mesh), registry()).stages
    names = [agent for stage in stages if not stage.generation for agent in stage.agents]
    for name in names:
        mesh["agents"][name] |= {"update": "frozen", "view": view}
        mesh["agents"][name].pop("train", None)
    for line in mesh.get("connect", ()):
        for settings in line.values():
            settings["refresh"] = "step"
    return names


def made(mesh: dict[str, Any], store: str | Path, session: Any = None, keys: Path | None = None) -> dict[str, Any]:
    """The summary of a run in this process, or on the hosts of a session."""
    backend = "inline" if session is None else None
    spec = parse(mesh)
    keys = None if keys is None else accounts(spec, keys)
    summary, _, _ = run_once(Request(spec, backend, store=str(store), privacy=keys), session=session)
    return summary


def said(summary: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on the store: all figures, and the bits of all weights."""
    agents = {name: (agent["weights_sha256"], agent["metrics"]) for name, agent in summary["agents"].items()}
    return {
        "agents": agents,
        "consensus": summary["consensus"],
        "rounds": [one["metrics"] for one in summary["rounds"]],
        "texts": summary.get("texts"),
    }


def left(summary: dict[str, Any]) -> set[str]:
    """Agents whose answers are not kept, as is right where their bits depend on a sample's place, on some machines."""
    told = summary["store"]["not_kept"]
    assert all("the last bits of an answer depend on its place" in why for why in told.values())
    return {*told}


@pytest.mark.parametrize("name", STAGES)
def test_finished_teachers(name: str, tmp_path: Path) -> None:
    mesh, keys = short(name, 1), tmp_path / "keys"
    without, cold, warm = (made(mesh, store, keys=keys) for store in ("off", tmp_path / "store", tmp_path / "store"))
    assert said(without) == said(cold) == said(warm)
    assert "store" not in without
    assert left(cold) == left(warm) and warm["store"]["all"].get("foreign", 0) == 0
    if name == "council":  # its teachers publish again and again, as they are then
        return
    assert left(warm) or cold["store"]["all"]["written"] == warm["store"]["all"]["found"] > 0
    assert warm["store"]["all"]["forwarded"] == 0
    counts = [sum(one["forwards"]["made"] for one in run["agents"].values()) for run in (without, cold, warm)]
    if any(stream.generated_by for stream in make_plan(parse(mesh), registry()).spec.streams.values()):
        assert counts[0] == counts[1] == counts[2]  # what is found are texts, which are not counted as forwards
    else:
        assert counts[0] == counts[1] > counts[2]


DRAWS = [  # one view for ever is the least of several, and so it is there for any mesh, or for none
    pytest.param(name, draws, marks=[pytest.mark.slow] * (draws == 1 and name not in ("ensemble", "hint")))
    for name in LIVE
    for draws in (1, 4)
]


@pytest.mark.parametrize(("name", "draws"), DRAWS)
def test_frozen_teachers_that_answer_live(name: str, draws: int, tmp_path: Path) -> None:
    mesh = short(name, 2)
    teachers = frozen(mesh, {"augment": ["noise"], "draws": draws})
    without, cold, warm = (made(mesh, store) for store in ("off", tmp_path, tmp_path))
    assert said(without) == said(cold) == said(warm)
    kept = {*teachers} - left(warm)
    assert kept and warm["store"]["all"]["forwarded"] == 0
    for name in kept:
        counts = [run["agents"][name]["forwards"]["made"] for run in (without, cold, warm)]
        assert counts[0] >= counts[1] > counts[2] == 0


def debate_of_frozen() -> dict[str, Any]:
    """The topology `debate`, whose debaters learn nothing."""
    mesh = short("debate", 1)
    for name in "abc":
        mesh["agents"][name]["update"] = "frozen"
    del mesh["connect"][0]["debate"]["practice"]
    return mesh


def frozen_debaters(mesh: dict[str, Any], store: Path, session: Any = None) -> None:
    """Cold and warm have the bits of no store; warm, nobody who is frozen answers or writes anything."""
    without = made(mesh, "off")
    cold, warm = (made({**mesh, "placement": "spread"}, store, session) for _ in range(2))
    assert said(without) == said(cold) == said(warm)
    assert warm["store"]["all"]["forwarded"] == 0 < warm["store"]["all"]["found"]
    assert {warm["agents"][name]["forwards"]["made"] for name in {*"abc"} - left(warm)} <= {0}


def test_frozen_debaters_say_nothing_twice(tmp_path: Path) -> None:
    frozen_debaters(debate_of_frozen(), tmp_path)


@pytest.mark.ray
@pytest.mark.slow
def test_frozen_debaters_on_hosts_of_ray(tmp_path: Path, ray_session: Any) -> None:
    frozen_debaters(debate_of_frozen(), tmp_path, ray_session)


RAY = [(name, 0) for name in STAGES] + [(name, draws) for name in LIVE for draws in (1, 4)]


@pytest.mark.ray
@pytest.mark.parametrize(
    ("name", "draws"), [one if one == ("ensemble", 4) else pytest.param(*one, marks=pytest.mark.slow) for one in RAY]
)
def test_on_hosts_of_ray(name: str, draws: int, tmp_path: Path, ray_session: Any) -> None:
    """Each agent on a host of its own, where a mesh allows it: cold and warm, the bits of one process and no store.

    ``draws``: views of frozen teachers that answer live; 0: teachers train first, and publish once.
    """
    mesh = short(name, 2 if draws else 1)
    teachers = frozen(mesh, {"augment": ["noise"], "draws": draws}) if draws else []
    without = made(mesh, "off")
    mesh["placement"] = "spread"
    cold, warm = (made(mesh, tmp_path, ray_session) for _ in range(2))
    assert said(without) == said(cold) == said(warm)
    assert name == "council" or warm["store"]["all"]["forwarded"] == 0
    assert {warm["agents"][one]["forwards"]["made"] for one in {*teachers} - left(warm)} <= {0}
