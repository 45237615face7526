"""Encoders that know some of the classes: heads of their own classes, saved by their names."""

from __future__ import annotations

import json
from pathlib import Path

import text_meshes

import kdmesh
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.spec.read import parse


def test_encoders_of_some_classes_teach_one_of_all(texts: Path, tmp_path: Path) -> None:
    mesh = text_meshes.classified(texts)
    mesh["agents"]["t1"]["labels"] = [2, 0]
    mesh["agents"]["t2"]["labels"] = [0, 1]
    mesh["connect"][0]["ensemble"] |= {"consensus": "uhc", "labels": None, "stream": "transfer"}
    summary, folder, _ = run_once(Request(parse(mesh), "inline", out=tmp_path))
    assert folder is not None
    known = {"t1": ["number", "animal"], "t2": ["animal", "colour"], "s": ["animal", "colour", "number"]}
    for name, names in known.items():
        config = json.loads((folder.root / "agents" / name / "config.json").read_text(encoding="utf-8"))
        assert [config["id2label"][str(column)] for column in range(len(names))] == names
        assert kdmesh.load(folder.root / "agents" / name)(["the red cat"]).shape == (1, len(names))
        assert 0 < summary["agents"][name]["metrics"]["test"]["loss"] < 3
