"""A run's bill of materials: CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json/.

Agents are machine-learning models with a model card; what they began with, their teachers from elsewhere and the data
are components, and services are endpoints. Who learned from whom stands in ``dependencies`` and pedigrees.
"""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NAME = "bom.json"
VERSION = "1.6"
SHA256 = re.compile("[0-9a-f]{64}")
MODELS = ("teacher", "weights", "store")
Row = dict[str, Any]


def bom(manifest: Mapping[str, Any], summary: Mapping[str, Any], at: datetime | None = None) -> Row:
    """Of a run's manifest and summary. ``at``: the time it says, by default now."""
    packages: Mapping[str, str] = manifest.get("packages", {})
    licences: Mapping[str, Any] = manifest.get("licences", {})
    sources: list[Row] = licences.get("sources", [])
    ours = str(packages.get("kdmesh", "unknown"))
    run = str(manifest.get("run", ""))
    name = str(summary.get("name", "mesh"))
    agents: Mapping[str, Row] = summary.get("agents", {})
    models = [_agent(one, facts, manifest, summary) for one, facts in agents.items()]
    others = [_source(number, one, manifest) for number, one in enumerate(sources) if one["kind"] != "endpoint"]
    services = [
        {"bom-ref": f"source-{number}", "name": one["name"], **_licences(one), "properties": _properties(_known(one))}
        for number, one in enumerate(sources)
        if one["kind"] == "endpoint"
    ]
    libraries = [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{one}@{version}",
            "name": one,
            "version": version,
            "purl": f"pkg:pypi/{one}@{version}",
        }
        for one, version in packages.items()
        if one != "kdmesh" and version != "not installed"
    ]
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{VERSION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": VERSION,
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'kdmesh:{run}')}",
        "version": 1,
        "metadata": {
            "timestamp": (at or datetime.now(UTC)).isoformat(timespec="seconds"),
            "tools": {"components": [{"type": "application", "name": "kdmesh", "version": ours}]},
            "component": {"type": "application", "bom-ref": "run", "name": name, "version": run or "unknown"},
            "properties": _properties({"seed": manifest.get("seed"), "python": manifest.get("python")}),
        },
        "components": [*models, *others, *libraries],
        **({"services": services} if services else {}),
        "dependencies": [
            {"ref": "run", "dependsOn": [*(one["bom-ref"] for one in models), *(one["bom-ref"] for one in libraries)]},
            *({"ref": _ref(one), "dependsOn": _learned(one, facts, licences)} for one, facts in agents.items()),
        ],
    }


def as_before(made: Row, before: Any) -> Row:
    """A bill that says nothing new has the time of the one before."""
    known = before.get("metadata") if isinstance(before, dict) else None
    if not isinstance(known, dict) or {**before, "metadata": {**known, "timestamp": ""}} != {
        **made,
        "metadata": {**made["metadata"], "timestamp": ""},
    }:
        return made
    return {**made, "metadata": {**made["metadata"], "timestamp": known.get("timestamp")}}


def _ref(agent: str) -> str:
    return f"agent-{agent}"


def _learned(agent: str, facts: Row, licences: Mapping[str, Any]) -> list[str]:
    """What an agent was made of: agents that taught it here, and all that comes from elsewhere."""
    numbers = licences.get("agents", {}).get(agent, {}).get("sources", [])
    return list(dict.fromkeys([*map(_ref, facts.get("teachers", ())), *(f"source-{number}" for number in numbers)]))


def _agent(name: str, facts: Row, manifest: Mapping[str, Any], summary: Mapping[str, Any]) -> Row:
    licences: Mapping[str, Any] = manifest.get("licences", {})
    sources: list[Row] = licences.get("sources", [])
    numbers = licences.get("agents", {}).get(name, {}).get("sources", [])
    spec: Row = manifest.get("mesh", {}).get("agents", {}).get(name, {})
    model = spec.get("model")
    architecture = next(iter(model)) if isinstance(model, dict) and model else model
    shared = licences.get("shared_base", {}).get(name, [])
    figures = [
        {"type": metric, "value": f"{value:.6g}", "slice": split}
        for split, values in (facts.get("metrics") or {}).items()
        if isinstance(values, dict)
        for metric, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    data = [{"ref": f"source-{number}"} for number in numbers if sources[number]["kind"] in ("data", "texts")]
    told = {"approach": {"type": "supervised"}, "task": str(summary.get("task", ""))}
    sha256 = facts.get("weights_sha256")
    limits = [f"It begins with the weights of its teacher {one['teacher']} ({one['base']})." for one in shared]
    return {
        "type": "machine-learning-model",
        "bom-ref": _ref(name),
        "name": name,
        **({"hashes": _hashes(sha256)} if _hashes(sha256) else {}),
        "modelCard": {
            "modelParameters": {
                **told,
                **({"modelArchitecture": str(architecture)} if architecture else {}),
                **({"datasets": data} if data else {}),
            },
            **({"quantitativeAnalysis": {"performanceMetrics": figures}} if figures else {}),
            **({"considerations": {"technicalLimitations": limits}} if limits else {}),
        },
        **_pedigree(numbers, sources),
        "properties": _properties(
            {
                "role": facts.get("role"),
                "parameters": facts.get("parameters"),
                "update": spec.get("update") if isinstance(spec.get("update"), str) else None,
                "licences": licences.get("agents", {}).get(name, {}).get("answer"),
                "purpose": licences.get("purpose"),
            }
        ),
    }


def _pedigree(numbers: Iterable[int], sources: list[Row]) -> Row:
    """The models from elsewhere that an agent began with or learned from."""
    found = [sources[number] for number in numbers if sources[number]["kind"] in MODELS]
    models = [{"type": "machine-learning-model", "name": one["name"], **_licences(one)} for one in found]
    return {"pedigree": {"ancestors": models}} if models else {}


def _source(number: int, one: Row, manifest: Mapping[str, Any]) -> Row:
    found: Row = {"bom-ref": f"source-{number}", "name": one["name"], **_licences(one)}
    sums = [manifest.get("teachers", {}).get(one["name"], {}).get("sha256")]
    if one["kind"] in MODELS:
        hashes = _hashes(*sums)
        found = {"type": "machine-learning-model", **found, **({"hashes": hashes} if hashes else {})}
    else:
        found = {"type": "data", **found, "data": [{"type": "dataset", "name": one["name"]}]}
    return {**found, "properties": _properties(_known(one))}


def _known(one: Row) -> Row:
    return {
        "kind": one["kind"],
        "licence": one["expression"] or one["licence"] or "unknown",
        "licence from": one["from"],
    }


def _licences(one: Row) -> Row:
    return {"licenses": [{"expression": one["expression"]}]} if one.get("expression") else {}


def _hashes(*sums: Any) -> list[Row]:
    return [{"alg": "SHA-256", "content": one} for one in sums if isinstance(one, str) and SHA256.fullmatch(one)]


def _properties(values: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {"name": f"kdmesh:{name}", "value": str(value)} for name, value in values.items() if value not in (None, "")
    ]
