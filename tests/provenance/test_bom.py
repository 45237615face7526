"""What a run says of its origin: a valid bill of materials, cards that the hub reads, rows on training content."""

import json
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from huggingface_hub import ModelCard

from kdmesh.files import read_json, sha256
from kdmesh.provenance.bom import bom
from kdmesh.provenance.content import content


def faults(found):
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(found if isinstance(found, str) else json.dumps(found))


SOURCES = [
    {"name": "big", "kind": "teacher", "licence": "llama3.1", "expression": "LicenseRef-llama3.1", "from": "a card"},
    {"name": "s", "kind": "weights", "licence": "MIT OR Apache-2.0", "expression": "MIT OR Apache-2.0", "from": "x"},
    {"name": "asked", "kind": "endpoint", "licence": "", "expression": "", "from": ""},
    {"name": "news", "kind": "data", "licence": "own", "expression": "", "from": "data.licence"},
    {"name": "old.jsonl", "kind": "texts", "licence": "other", "expression": "", "from": ""},
]
MANIFEST = {
    "run": "ab12",
    "seed": 3,
    "packages": {"kdmesh": "0.1.0", "torch": "2.13.0+cpu", "peft": "not installed"},
    "teachers": {"big": {"file": "big.safetensors", "sha256": "0" * 64}},
    "data": {"samples": 10, "streams": {"train": 8}, "personal": {"action": "redact", "changed": 2}},
    "licences": {
        "purpose": "commercial",
        "sources": SOURCES,
        "agents": {"big": {"sources": [0]}, "s": {"answer": "unknown", "sources": [0, 1, 2, 3, 4]}},
        "shared_base": {"s": [{"teacher": "big", "base": "net.safetensors"}]},
    },
    "mesh": {
        "agents": {"s": {"model": {"mlp": {}}, "update": "grad"}, "big": {"model": "mlp", "update": "frozen"}},
        "streams": {"told": {"generated_by": "big", "prompts": "train"}},
    },
}
SUMMARY = {
    "name": "a|b",
    "task": "classification",
    "agents": {
        "big": {"role": "teacher", "teachers": [], "metrics": {}, "weights_sha256": None, "parameters": None},
        "s": {
            "role": "student",
            "teachers": ["big"],
            "parameters": 12,
            "metrics": {"test": {"accuracy": 0.5, "confusion": [[1]], "undefined": {"f1": "why"}}},
            "weights_sha256": "f" * 64,
        },
    },
}


def test_every_kind_of_source_stands_in_a_valid_bill():
    made = bom(MANIFEST, SUMMARY)
    assert faults(made) is None
    refs = {one["bom-ref"]: one for one in (*made["components"], *made["services"])}
    assert refs["source-0"]["hashes"] == [{"alg": "SHA-256", "content": "0" * 64}]
    assert refs["source-1"]["licenses"] == [{"expression": "MIT OR Apache-2.0"}]
    assert refs["source-2"]["name"] == "asked" and "licenses" not in refs["source-2"]
    student = refs["agent-s"]
    assert student["modelCard"]["modelParameters"]["datasets"] == [{"ref": "source-3"}, {"ref": "source-4"}]
    assert student["modelCard"]["quantitativeAnalysis"]["performanceMetrics"] == [
        {"type": "accuracy", "value": "0.5", "slice": "test"}
    ]
    assert [one["name"] for one in student["pedigree"]["ancestors"]] == ["big", "s"]
    assert (
        "begins with the weights of its teacher big"
        in student["modelCard"]["considerations"]["technicalLimitations"][0]
    )
    depends = {one["ref"]: one["dependsOn"] for one in made["dependencies"]}
    assert depends["agent-s"] == ["agent-big", *(f"source-{number}" for number in range(5))]
    assert "pkg:pypi/torch@2.13.0+cpu" in refs and not any("peft" in ref for ref in refs)


def test_the_validator_tells_a_wrong_bill():
    made = bom(MANIFEST, SUMMARY)
    made["components"][0]["modelCard"]["modelParameters"]["approach"]["type"] = "distillation"
    assert faults(made) is not None


def test_what_the_run_does_not_know_is_said_in_the_rows():
    text = content(MANIFEST, SUMMARY)
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert "s, 12 parameters" in rows["1.2 Models"] and "big" not in rows["1.2 Models"]
    assert "big (licence: LicenseRef-llama3.1)" in rows["2.5 Synthetic data: models whose answers taught"]
    assert "stream told, by big" in rows["2.5 Synthetic data: texts written in the run"]
    assert "to be filled in" in rows["1.1 Provider"] and "redact" in rows["3.3 Other: personal data taken out"]


@pytest.mark.parametrize("name", ["small", "several"])
def test_every_run_leaves_them_and_its_sums_cover_them(runs, name):
    root = runs[name]
    parts = [root] if name == "small" else sorted(one.parent for one in root.rglob("bom.json"))
    assert len(parts) >= (1 if name == "small" else 2)
    for part in parts:
        assert faults((part / "bom.json").read_text(encoding="utf-8")) is None
        sums = read_json(part / "sums.json")["sha256"]
        assert all(sums[one] == sha256(part / one) for one in ("bom.json", "training-content.md"))


def test_the_hub_reads_the_head_of_a_card(runs):
    card = ModelCard((runs["small"] / "agents/s/README.md").read_text(encoding="utf-8"), ignore_metadata_errors=False)
    assert "## Licences" in card.text
    (test,) = [
        one for one in card.data.eval_results or () if one.dataset_split == "test" and one.metric_name == "accuracy"
    ]
    summary = json.loads(Path(runs["small"] / "summary.json").read_text(encoding="utf-8"))
    assert test.metric_value == summary["agents"]["s"]["metrics"]["test"]["accuracy"]
