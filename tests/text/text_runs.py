"""Runs of small meshes over texts, in this process or on Ray, and what they leave in their folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kdmesh.backends import Session
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.spec.read import parse


def run(fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Run a mesh in this process; its summary."""
    return run_once(Request(parse(fields), "inline", **more))[0]


def lines(out: Path, stream: str) -> list[dict[str, Any]]:
    """What was written on a stream of the one run beneath a folder."""
    (file,) = out.glob(f"*/*/streams/{stream}.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def told(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a run says of its stream `rollouts`: the summary's tally, and the lines of its file without their time."""
    tally = json.loads((folder / "summary.json").read_text())["streams"]["rollouts"]
    written = [json.loads(line) for line in (folder / "streams" / "rollouts.jsonl").read_text().splitlines()]
    assert all(line.pop("time") for line in written)
    return tally, written


def student(fields: dict[str, Any], placement: str, session: Session | None = None) -> str:
    """Run a mesh; the sha256 of the weights of `s`."""
    request = Request(parse({**fields, "placement": placement}))
    summary, _, _ = run_once(request, session=session or Session("inline"))
    return str(summary["agents"]["s"]["weights_sha256"])
