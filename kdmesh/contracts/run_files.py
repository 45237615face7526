"""The files of a run's folder by name: shared by the engine, which writes them, and by whatever reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT = 1
"""The manifest's ``format``. Rises when a file goes away or changes its meaning; not when one is added."""

MANIFEST = "manifest.json"  # what was asked: a folder without it is no run's
GIVEN, RESOLVED = "mesh.yaml", "resolved.yaml"
PERSONAL = "personal.jsonl"  # what personal data was found and taken out, without the data
CANARIES = "canaries.jsonl"  # those that were made up: which are in, and their secrets
SIGNATURE = "signature.json"  # of all files that were there: nothing may be added or changed after
AUDITED = "audit.json"  # what `kdmesh audit` found
PLACEMENT = "placement.json"  # what `auto` measured and chose
FAULT = "error.txt"  # the traceback of an error that nobody foresaw
LOG = "events.jsonl"
LOCK = ".lock"  # says who is at work; what counts is that it is locked
PROGRESS = "progress.json"  # how far it is, while it goes on
SUMMARY = "summary.json"
ANSWERS = "answers.safetensors"  # how every test sample was answered
COSTS = "costs.json"  # what it cost; in the summary, too
LATENCY = "latency.json"  # how long agents take to answer, measured in fresh processes where that is asked for
RESULTS, SHEET = "results.json", "results.csv"  # the table of everything; it comes last
SUMS = "sums.json"
FORGOTTEN = "forgotten.jsonl"  # what was taken out of it since, a line for each time
EXPIRED = "expired.jsonl"  # what was deleted at the end of its term, `keep`
INTENT = "forgetting.json"  # which samples are being taken out, until that is done
COMPARED, COMPARISON = "compare.json", "comparison.json"  # of a comparison: what was asked, and the table at its end
SWEPT, SWEEP = "sweep.json", "sweep_result.json"  # of a sweep, likewise
TRIALS = "trials"  # folder of either, with its runs
CHOSEN = "chosen.json"  # of a sweep: what each arm chose, from the moment on that its search is over
POINT = "point.json"  # of a sweep: beside the trials of a point, its value of each path
ENDPOINTS = "endpoints"  # folder of what was sent to endpoints, a file of lines for each agent
STREAMS = "streams"  # folder of the texts that agents wrote, a file of lines for each stream
CHECKPOINTS, SEEDS, CONTROLS = "checkpoints", "seeds", "controls"  # folders
MOST_SEEDS = 1000  # that one run trains


def point_name(text: str) -> str:
    """The folder of a point of a sweep, by its JSON: a short name of it."""
    from hashlib import sha256

    return sha256(text.encode()).hexdigest()[:10]


def seed_name(seed: int) -> str:
    """How a seed is called where it is told of."""
    return f"seed {seed}"


def control_name(seed: int, student: str, which: str) -> str:
    """How a control is called where it is told of."""
    said = {"alone": "alone", "averaged": "by averaged weights", "pooled": "on pooled samples"}
    return f"seed {seed}, {student} {said.get(which, 'by the best teacher only')}"


def refuse_newer(manifest: Mapping[str, Any], root: Path) -> int:
    """The format of a run, by its manifest. MeshError for one that a later version of kdmesh wrote."""
    found = manifest.get("format", 1)  # runs before there was a number have the same files
    if isinstance(found, int) and found <= FORMAT:
        return found
    packages = manifest.get("packages")
    by = packages.get("kdmesh", "?") if isinstance(packages, dict) else "?"
    raise MeshError(
        f"this run was written by kdmesh {by}, in format {found!r}; this version reads up to format {FORMAT}",
        file=str(root),
        instead="the version of kdmesh that wrote it, or a later one",
    )
