"""What docs/text.md and the README write about texts is valid: every setting exists."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.published import OFFERED
from kdmesh.spec.read import parse

ROOT = Path(__file__).parents[2]


def blocks(page: str) -> list[dict]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


def test_every_block_of_the_page_is_valid() -> None:
    found = blocks("docs/text.md")
    assert len(found) == 25
    for block in found:
        if "name" in block:
            continue  # it is run below
        base = {"agents": {name: {"model": {"hf": {"path": "x"}}} for name in ("teacher", "student", "other")}}
        mesh = parse({**base, **block})
        for ref in mesh.connect:
            registry().check("strategies", ref.name, ref.config)
        for agent in mesh.agents.values():
            assert (agent.model is None) == (agent.weights_of is not None)
            if agent.model is not None:
                registry().check("models", agent.model.name, agent.model.config)
        for ref in (ref for stream in mesh.streams.values() for ref in stream.filters.values() if not ref.is_import):
            registry().check("filters", ref.name, ref.settings)
        for verifier in (ref for stream in mesh.streams.values() for ref in stream.reward or () if not ref.is_import):
            registry().check("metrics", verifier.name, verifier.settings)
        for rule in (stream.rule for stream in mesh.streams.values() if stream.rule is not None):
            if ("text_rules", rule.name) not in OFFERED:
                registry().check("text_rules", rule.name, rule.config)
        for flow in mesh.flows:
            assert (flow.objective is None) == (flow.to[0] in mesh.consensus or flow.as_ == "weights")
            if flow.objective is None or ("objectives", flow.objective.name) in OFFERED:
                continue  # of a package of its own, which tests what it shows
            registry().check("objectives", flow.objective.name, flow.objective.config)


def test_the_page_has_a_file_of_filters_and_metrics_that_runs() -> None:
    (fields,) = (block for block in blocks("docs/text.md") if "name" in block and "answers" in block["streams"])
    summary = run_once(Request(parse(fields), "inline"))[0]
    tally = summary["streams"]["answers"]
    assert set(tally["dropped"]) == {"answer", "dedup"} and tally["kept"] > 0
    assert all(
        {"numeric_answer", "rouge_l", "perplexity"} <= {*one["metrics"]["test"]} for one in summary["agents"].values()
    )


def test_every_data_set_of_the_page_is_offered() -> None:
    page = (ROOT / "docs" / "text.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+: \{.*?\})` \|", page, re.MULTILINE)
    assert len(rows) == 12
    for row in rows:
        ((name, config),) = yaml.safe_load(row).items()
        registry().check("datasets", name, config)


def test_the_readme_meshes_are_valid() -> None:
    found = [block for block in blocks("README.md") if "name" in block]
    assert {"three", "questions"} <= {block["name"] for block in found}
    for block in found:
        mesh = parse(block)
        assert mesh.data is not None
        registry().check("datasets", mesh.data.dataset.name, mesh.data.dataset.config)
        for agent in mesh.agents.values():
            assert agent.model is not None
            registry().check("models", agent.model.name, agent.model.config)


def test_the_page_has_a_file_of_an_agent_that_only_writes() -> None:
    """Which is planned here: the bundled `augment` is much the same, and is run by its own test."""
    (fields,) = (block for block in blocks("docs/text.md") if "name" in block and "new" in block["streams"])
    assert make_plan(parse(fields), registry()).language_models == {"writer"}
