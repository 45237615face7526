"""Whence a run's models: teachers, data, stores and written streams, also of the runs that those came from.

Of another run it is said whether what was taken from it is still as it was: by the sums of both.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kdmesh.contracts.run_files import MANIFEST, SEEDS, STREAMS, SUMMARY, SUMS
from kdmesh.errors import MeshError
from kdmesh.files import WEIGHTS, read_json
from kdmesh.provenance import bom

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

AGENTS = "agents"
DEEP = 20  # runs one after the other
SAME, CHANGED, GONE, UNSUMMED = "as it was", "changed since", "gone", "without sums"
Row = dict[str, Any]


class Taken(NamedTuple):
    """An agent's weights, or a stream's texts, of an earlier run. ``state``: whether they still are what they were."""

    run: Path
    what: str
    state: str


def lineage(root: Path) -> Row:
    """The graph of a run: ``nodes`` and ``edges``, and what is ``odd``. MeshError for what is no run's folder."""
    nodes: dict[str, Row] = {}
    edges: dict[tuple[str, str, str], Row] = {}
    waiting, seen = [(root, 0)], set[Path]()
    for run, depth in waiting:  # grows while it is read
        if run.resolve() in seen or depth > DEEP:
            continue
        seen.add(run.resolve())
        manifest = read_json(run / MANIFEST)
        if manifest is None:
            if run == root:
                raise MeshError(f"{root} has no {MANIFEST} that can be read", instead="the folder of a run")
            continue
        for node in _nodes(run, manifest):
            nodes.setdefault(node["id"], node)
        for edge in _edges(run, manifest):
            edges.setdefault((edge["from"], edge["to"], edge["how"]), edge)
        waiting += [(one.run, depth + 1) for one in _taken(manifest).values() if one.state != GONE]
    there = {edge["from"] for edge in edges.values()} | {edge["to"] for edge in edges.values()}
    nodes |= {one: {"id": one, "kind": "gone"} for one in there if one not in nodes}
    return {"run": root.name, "nodes": list(nodes.values()), "edges": list(edges.values()), **_bom(root)}


def _bom(root: Path) -> Row:
    """What is odd about the bill of materials: of another version than kdmesh writes."""
    if why := other_version(root):
        return {"odd": [why]}
    return {}


def other_version(root: Path) -> str:
    """Why a folder's bill of materials is none that kdmesh wrote; "" where it is one, or is not there."""
    found = read_json(root / bom.NAME)
    if found is None:
        return f"{bom.NAME} cannot be read as JSON" if (root / bom.NAME).is_file() else ""
    version = found.get("specVersion")
    if found.get("bomFormat") != "CycloneDX" or version != bom.VERSION:
        named = f"{found.get('bomFormat') or 'an unknown format'} {version or 'of no version'}"
        return f"{bom.NAME} is {named}; kdmesh writes CycloneDX {bom.VERSION}"
    return ""


def _id(run: Path, name: str) -> str:
    return f"{run.name}/{name}"


def _summary(run: Path) -> Row:
    """A run's summary; of one with several seeds that of its first."""
    found = read_json(run / SUMMARY)
    parts = sorted((run / SEEDS).glob(f"*/{SUMMARY}"))
    return found or (read_json(parts[0]) if parts else None) or {}


def _nodes(run: Path, manifest: Mapping[str, Any]) -> Iterator[Row]:
    mesh, summary = manifest.get("mesh", {}), _summary(run).get("agents", {})
    for name, spec in mesh.get("agents", {}).items():
        facts = summary.get(name, {})
        yield {
            "id": _id(run, name), "kind": "agent", "run": run.name, "role": facts.get("role"),
            "update": spec.get("update", "grad"), "weights_sha256": facts.get("weights_sha256"),
        }  # fmt: skip
    for name, stream in (mesh.get("streams") or {}).items():
        if stream.get("generated_by") or stream.get("consensus_of"):
            yield {"id": _id(run, f"{STREAMS}/{name}"), "kind": "stream", "run": run.name}
    for number, one in enumerate(_sources(manifest)):
        if not str(one["from"]).startswith("by way of"):  # these stand in their own run, where that is there
            licence = one["expression"] or one["licence"] or "unknown"
            yield {"id": _id(run, f"source-{number}"), "kind": one["kind"], "name": one["name"], "licence": licence,
                   "from": one["from"]}  # fmt: skip


def _sources(manifest: Mapping[str, Any]) -> list[Row]:
    found: list[Row] = manifest.get("licences", {}).get("sources", [])
    return found


def _edges(run: Path, manifest: Mapping[str, Any]) -> Iterator[Row]:
    mesh, summary = manifest.get("mesh", {}), _summary(run).get("agents", {})
    sources, kept = _sources(manifest), manifest.get("licences", {}).get("agents", {})
    for name in mesh.get("agents", {}):
        for teacher in summary.get(name, {}).get("teachers", ()):
            yield {"from": _id(run, teacher), "to": _id(run, name), "how": "taught"}
        for number in kept.get(name, {}).get("sources", ()):
            one = sources[number]
            mine = one["kind"] not in ("weights", "teacher", "endpoint", "store") or one["name"] == name
            if mine and not str(one["from"]).startswith("by way of"):
                yield {"from": _id(run, f"source-{number}"), "to": _id(run, name), "how": _how(one["kind"])}
    for name, stream in (mesh.get("streams") or {}).items():
        at = _id(run, f"{STREAMS}/{name}")
        if stream.get("consensus_of"):
            for other in stream["consensus_of"]:
                yield {"from": _id(run, f"{STREAMS}/{other}"), "to": at, "how": "agreed"}
        elif stream.get("generated_by"):
            yield {"from": _id(run, stream["generated_by"]), "to": at, "how": "wrote"}
    for flow in mesh.get("flows", ()):
        stream, target = flow.get("stream", "train"), flow.get("to")
        if (mesh.get("streams") or {}).get(stream, {}).get("generated_by") and target in mesh.get("agents", {}):
            yield {"from": _id(run, f"{STREAMS}/{stream}"), "to": _id(run, target), "how": "was learned by"}
    for name, one in _taken(manifest).items():
        for target in [name] if name else [other for other in kept if "answer" in kept[other]]:
            how = "is begun from" if name else "was read by"
            yield {"from": _id(one.run, one.what), "to": _id(run, target), "how": how, "state": one.state}


def _how(kind: str) -> str:
    return {"data": "was learned by", "texts": "was learned by"}.get(kind, "is begun from")


def _taken(manifest: Mapping[str, Any]) -> dict[str, Taken]:
    """What a run took from earlier ones: by agent, its weights; under "", the texts that are its data."""
    found = {}
    mesh, inputs = manifest.get("mesh", {}), manifest.get("inputs", {})
    for name, spec in mesh.get("agents", {}).items():
        weights = manifest.get("teachers", {}).get(name)
        config = next(iter(spec["model"].values())) if isinstance(spec.get("model"), dict) else {}
        path = config.get("path") if isinstance(config, dict) else None
        if isinstance(weights, dict):
            found[name] = _of_agent(Path(weights["file"]).parent, {Path(weights["file"]).name: weights["sha256"]})
        elif isinstance(path, str):
            sums = inputs.get(f"agents.{name}.model.path")
            found[name] = _of_agent(Path(path), sums if isinstance(sums, dict) else {})
    dataset = (mesh.get("data") or {}).get("dataset")
    written = dataset.get("written") if isinstance(dataset, dict) else None
    if isinstance(written, dict) and isinstance(written.get("path"), str):
        path = Path(written["path"])
        if path.parent.name == STREAMS:
            run = path.parent.parent
            found[""] = Taken(run, f"{STREAMS}/{path.stem}", UNSUMMED if path.is_file() else GONE)
    return {name: one for name, one in found.items() if one is not None}


def _of_agent(folder: Path, sums: Mapping[str, str]) -> Taken | None:
    """The agent of a run whose folder was read; None of a folder that is none."""
    if folder.parent.name != AGENTS:
        return None
    run = folder.parent.parent
    known = (read_json(run / SUMS) or {}).get("sha256")
    if not (run / MANIFEST).is_file():
        return Taken(run, folder.name, GONE)
    if not isinstance(known, dict):
        return Taken(run, folder.name, UNSUMMED)
    kept = {name: value for name, value in sums.items() if name.endswith(Path(WEIGHTS).suffix)} or sums
    same = all(known.get(f"{AGENTS}/{folder.name}/{name}") == value for name, value in kept.items())
    return Taken(run, folder.name, SAME if same and kept else CHANGED)


def told(graph: Row) -> list[str]:
    """The graph as lines: each agent of the run with what it came from, and those of earlier runs below."""
    names = {node["id"]: node for node in graph["nodes"]}
    into: dict[str, list[Row]] = {}
    for edge in graph["edges"]:
        into.setdefault(edge["to"], []).append(edge)
    lines = list(graph.get("odd", ()))
    runs: dict[str, list[Row]] = {}
    for node in graph["nodes"]:
        if node["kind"] in ("agent", "stream"):
            runs.setdefault(node["run"], []).append(node)
    for run, nodes in runs.items():
        lines.append(f"run {run}")
        for node in nodes:
            what = node["id"].partition("/")[2]
            role = f" ({node['role']})" if node.get("role") else ""
            lines.append(f"  {what}{role}")
            lines += [f"    {_said(names[edge['from']], edge)}" for edge in into.get(node["id"], ())]
    return lines


def _said(node: Row, edge: Row) -> str:
    """One edge, as it is read at its end."""
    how = {
        "taught": "taught by", "wrote": "written by", "agreed": "made of", "was learned by": "learned",
        "is begun from": "began with", "was read by": "read",
    }[edge["how"]]  # fmt: skip
    what = f"{node['kind']} {node['name']}: {node['licence']}" if "licence" in node else node["id"]
    what += f" ({node['from']})" if node.get("from") else ""
    return f"{how} {what}{', ' + edge['state'] if edge.get('state') else ''}"
