"""Relative paths in a file start from its folder: settings of plugins that are paths by their type, anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import DirectoryPath, Field, FilePath

from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.offers import Config, ConsensusOffer, DatasetOffer, ObjectiveOffer, SignalOffer, StrategyOffer, ViewOffer
from kdmesh.plugins import registry
from kdmesh.spec.base import ObjectiveRef
from kdmesh.spec.read import read_mesh


class Inner(Config):
    """Settings within settings."""

    table: Path | None = None
    text: str = ""


class Settings(Config):
    """Paths in every place that a path may have, and texts that look like one."""

    file: Path | None = None
    there: FilePath | None = None
    home: DirectoryPath | None = None
    several: list[Path] = Field(default_factory=list)
    named: dict[str, Path] = Field(default_factory=dict)
    pairs: list[tuple[Path, Path]] = Field(default_factory=list)
    inner: Inner | None = None
    inners: list[Inner] = Field(default_factory=list)
    either: str | Path = ""
    path: str = ""
    aliased: Path | None = Field(None, alias="else")


class Draws(Config):
    """A strategy's, which names an objective."""

    agents: list[str]
    objective: ObjectiveRef
    log: Path


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    for offer in (
        ConsensusOffer("filed", "a:B", Settings),
        ObjectiveOffer("filed", "a:B", Settings),
        SignalOffer("filed", "a:B", Settings),
        ViewOffer("filed", "a:B", Settings),
        DatasetOffer("filed", "a:B", Settings),
        StrategyOffer("filed", "a:B", Draws),
    ):
        monkeypatch.setitem(registry()._offers[offer.kind], offer.name, offer)


WRITTEN = {
    "file": "a.txt",
    "there": "sub/here.txt",
    "home": "sub",
    "several": ["a", "/absolute/b", "s3://c"],
    "named": {"one": "d"},
    "pairs": [["e", "f"]],
    "inner": {"table": "g", "text": "h"},
    "inners": [{"table": "i"}],
    "either": "j",
    "path": "k",
    "else": "l",
}


def expected(folder: Path) -> dict[str, Any]:
    def at(name: str) -> str:
        return str(folder / name)

    return {
        "file": at("a.txt"),
        "there": at("sub/here.txt"),
        "home": at("sub"),
        "several": [at("a"), "/absolute/b", "s3://c"],
        "named": {"one": at("d")},
        "pairs": [[at("e"), at("f")]],
        "inner": {"table": at("g"), "text": "h"},
        "inners": [{"table": at("i")}],
        "either": "j",
        "path": "k",
        "else": at("l"),
    }


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "here.txt").write_text("x")
    fields = {
        "data": {"dataset": {"filed": WRITTEN}},
        "agents": {"a": {"model": "mlp", "view": {"augment": [{"filed": WRITTEN}]}}, "b": {"model": "mlp"}},
        "connect": [{"filed": {"agents": ["a"], "objective": {"filed": WRITTEN}, "log": "log.txt"}}],
        "consensus": {"c": {"rule": "filed", **WRITTEN}},
        "flows": [
            {"from": "a", "to": "b", "objective": {"filed": WRITTEN}, "signal": {"filed": WRITTEN}},
            {"from": "a", "to": "b", "objective": "kl"},
        ],
    }
    (tmp_path / "mesh.yaml").write_text(json.dumps(fields))
    return tmp_path / "mesh.yaml"


def test_every_path_by_its_type_starts_from_the_files_folder(mesh: Path) -> None:
    folder, read = mesh.parent, read_mesh(mesh)
    whole = expected(folder)
    found = [
        read.agents["a"].view.augment[0].config,
        read.consensus["c"].rule.config,
        read.flows[0].objective.config,
        read.flows[0].signal.config,
        read.connect[0].config["objective"]["filed"],
    ]
    assert found == [whole] * len(found)
    assert read.connect[0].config["log"] == str(folder / "log.txt")
    assert read.data.dataset.config == {**whole, "path": str(folder / "k")}  # of data sets, by its name too
    assert registry().check("consensus", "filed", read.consensus["c"].rule.config).there == folder / "sub" / "here.txt"


def test_wherever_the_command_is_given(mesh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mesh.parent)
    assert read_mesh("mesh.yaml").consensus["c"].rule.config == expected(mesh.parent)
    monkeypatch.chdir(mesh.parent / "sub")
    assert read_mesh("../mesh.yaml").consensus["c"].rule.config == expected(mesh.parent)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(
        "agents: {a: {model: mlp}, b: {model: mlp}}\n"
        "consensus: {c: {rule: {filed: {there: gone.txt}}}}\n"
        "flows: [{from: a, to: c}, {from: c, to: b, objective: kl}]\n"
    )
    with pytest.raises(MeshError, match=r"consensus\.c\.rule\.filed\.there"):
        make_plan(read_mesh(tmp_path / "mesh.yaml"), registry())
