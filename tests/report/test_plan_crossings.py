"""`kdmesh plan` says how language models' outputs cross, from sizes alone, and as the values then decide it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdmesh.builtin import plugin as builtin
from kdmesh.engine.check import check
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import Registry
from kdmesh.report.plan_text import plan_json, plan_text
from kdmesh.signals.crossing import crosses_hidden, fewest
from kdmesh.signals.lazy import FactoredLogits
from kdmesh.spec import MeshSpec

OFFERED = Registry([builtin])


def llama(width: int, words: int | None) -> dict[str, Any]:
    sizes = {"hidden_size": width} | ({"vocab_size": words} if words else {})
    return {"hf": {"config": {"model_type": "llama", **sizes}, "tokenizer": {"bpe": {"vocabulary": 300}}}}


def mesh(teacher: dict[str, Any], batch: int = 8, **flow: Any) -> MeshSpec:
    return MeshSpec.model_validate(
        {
            "task": "language_modelling",
            "data": {"dataset": {"text": {"path": "nowhere.jsonl", "text": "text"}}},
            "text": {"max_length": 128},
            "agents": {"t": {"model": teacher, "update": "frozen"}, "s": {"model": llama(64, 32_000)}},
            "flows": [{"from": "t", "to": "s", "objective": "kl", **flow}],
            "train": {"steps": 10, "batch_size": batch},
        }
    )


def row(teacher: dict[str, Any], **more: Any) -> tuple[dict[str, Any], str]:
    made = make_plan(mesh(teacher, **more), OFFERED)
    (found,) = plan_json(made, OFFERED)["crossings"]
    return found, " ".join(plan_text(made, OFFERED).split())


@given(rows=st.integers(1, 5000), width=st.integers(1, 600), columns=st.integers(1, 40_000))
def test_the_fewest_rows_are_where_hidden_rows_begin_to_cross(rows: int, width: int, columns: int) -> None:
    assert crosses_hidden(rows, width, columns) == (rows >= fewest(width, columns))


def test_the_plan_chooses_as_the_values_do() -> None:
    for batch, width, words in ((8, 512, 32_000), (1, 512, 600), (4, 512, 32_000), (1, 64, 300)):
        found, text = row(llama(width, words), batch=batch, refresh="step")
        assert found["rows"] == batch * 128 and found["hidden"] == width and found["outputs"] == words
        value = FactoredLogits(torch.empty(found["rows"], width), torch.empty(words, width))
        assert found["sends"] == ("hidden" if value.compact else "logits")
        assert f"t to s, up to {batch * 128:,} tokens a step: " in text
        assert f"from {fewest(width, words):,} tokens on" in text
        assert f"{width:,} values a token in place of {words:,}" in text


def test_of_a_stream_the_plan_says_from_how_many_tokens_on() -> None:
    found, text = row(llama(512, 32_000), refresh="epoch")
    assert found["sends"] is None and found["rows"] is None and found["hidden_from"] == fewest(512, 32_000)
    assert "stream train (epoch): hidden rows and the layer that maps them from " in text
    assert f"from {found['hidden_from']:,} tokens on, else logits" in text


def test_what_the_settings_do_not_tell_is_left_to_check() -> None:
    found, text = row(llama(512, None), refresh="step")
    assert found["outputs"] is None and found["sends"] is None and "whichever are fewer numbers; see `check`" in text


def test_a_signal_that_is_made_crosses_as_it_is() -> None:
    found, text = row(llama(512, 32_000), refresh="step", signal={"top_k": {"k": 8}})
    assert found["sends"] == found["made"] and "as the flow says" in text


def test_a_folders_sizes_are_read_from_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"n_embd": 256, "vocab_size": 50_257}), encoding="utf-8")
    found, _ = row({"hf": {"path": str(tmp_path)}}, refresh="step")
    assert (found["hidden"], found["outputs"], found["sends"]) == (256, 50_257, "hidden")
    (tmp_path / "config.json").write_text("[", encoding="utf-8")
    assert row({"hf": {"path": str(tmp_path)}}, refresh="step")[0]["hidden"] is None


def test_a_consensus_is_heard_by_its_readers() -> None:
    spec = mesh(llama(512, 32_000)).model_dump(mode="json", by_alias=True, exclude_unset=True)
    spec["consensus"] = {"c": {"rule": "mean"}}
    spec["flows"] = [{"from": "t", "to": "c", "refresh": "step"}, {"from": "c", "to": "s", "objective": "kl"}]
    found = plan_json(make_plan(MeshSpec.model_validate(spec), OFFERED), OFFERED)["crossings"]
    assert [(one["from"], one["to"], one["rows"]) for one in found] == [("t", ["c"], 8 * 128)]


def test_other_tasks_say_nothing_and_torch_is_not_loaded(tmp_path: Path) -> None:
    plain = {"agents": {"a": {}}, "flows": [{"from": "labels", "to": "a", "objective": "ce"}]}
    assert plan_json(make_plan(MeshSpec.model_validate(plain), OFFERED), OFFERED)["crossings"] == []
    file, spec = tmp_path / "mesh.json", mesh(llama(512, 32_000), refresh="step")
    file.write_text(spec.model_dump_json(by_alias=True, exclude_unset=True), encoding="utf-8")
    code = (
        "import sys\nfrom kdmesh.cli import main\n"
        f"assert main(['plan', {str(file)!r}]) == 0\nassert not {{'torch', 'transformers'}} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "What crosses" in done.stdout, done.stderr


@pytest.mark.parametrize("refresh", ["step", "once"])
def test_check_counts_what_a_consensus_of_language_models_takes(tmp_path: Path, refresh: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in ["abc", "abcde"] * 20), encoding="utf-8")
    spec = mesh(llama(16, 300), refresh=refresh).model_dump(mode="json", by_alias=True, exclude_unset=True)
    spec["data"] = {"dataset": {"text": {"path": str(path), "text": "text"}}, "validation": 0, "test": 0}
    spec["consensus"] = {"c": {"rule": "mean"}}
    spec["flows"] = [{"from": "t", "to": "c", "refresh": refresh}, {"from": "c", "to": "s", "objective": "kl"}]
    spec["agents"]["s"] = {"model": llama(16, 300)}
    for agent in spec["agents"].values():
        agent["model"]["hf"] |= {"tokenizer": {"characters": {}}}
        agent["model"]["hf"]["config"] |= {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    told = check(make_plan(MeshSpec.model_validate(spec), OFFERED))
    (line,) = [line for line in told if line.startswith("t sends")]
    tokens = "160 tokens each publication (once)" if refresh == "once" else "32 tokens a step"
    assert tokens in line  # a unit for each character: 8 samples a step, 4 on average
