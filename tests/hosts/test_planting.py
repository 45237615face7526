"""Canaries stand in train alone, half of them by a coin, and leave every other sample where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.source import Source
from kdmesh.plugins import registry
from kdmesh.report.plan_text import plan_text
from kdmesh.spec.read import parse
from kdmesh.streams.stream import Stream
from kdmesh.streams.table import Table

SECRET = {"kind": "secret", "count": 40, "text": "guest {number} has the code {secret}."}


def mesh(data: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"data": data, "agents": {"t": {"model": {"mlp": {"hidden": [4]}}}}, **more}


def loaded(data: dict[str, Any], **more: Any) -> tuple[Table, dict[str, Stream]]:
    return Source().load(make_plan(parse(mesh(data, **more)), registry()))


def texts(folder: Path, labelled: bool = False) -> dict[str, Any]:
    rows = [{"text": f"line number {one}", "label": "ab"[one % 2]} for one in range(60)]
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {"dataset": {"text": {"path": str(folder / "texts.jsonl"), **({"label": "label"} if labelled else {})}}}


def modelled(data: dict[str, Any]) -> tuple[Table, dict[str, Stream]]:
    model = {"hf": {"config": {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 64},
                    "tokenizer": {"characters": {}}, "max_length": 60}}  # fmt: skip
    return loaded(data, agents={"t": {"model": model}}, task="language_modelling")


@settings(max_examples=15)
@given(st.sampled_from(["random", "mislabelled"]), st.integers(8, 60), st.integers(1, 3), st.integers(0, 50))
def test_they_stand_in_train_alone_and_move_no_other_sample(kind: str, count: int, times: int, seed: int) -> None:
    data = {"dataset": "digits", "transfer": 0.1, "seed": seed}
    plain, before = loaded(data)
    table, after = loaded({**data, "canaries": {"kind": kind, "count": count, "times": times}})
    planted = table.planted
    assert planted is not None and torch.equal(table.tensor[: len(plain)], plain.tensor)
    inside = [one for one in planted.canaries if one.inside]
    assert 0 < len(inside) < count and len(table) == len(plain) + times * len(inside)
    assert planted.rows.tolist() == [*range(len(plain), len(table))]
    for name, stream in before.items():
        more = planted.rows if name == "train" else planted.rows[:0]
        assert torch.equal(after[name].rows, torch.cat([stream.rows, more]))
    assert table.y is not None and plain.y is not None
    for one in inside:
        assert len(one.rows) == times and isinstance(one.x, torch.Tensor)
        assert all(torch.equal(table.tensor[row], one.x) and table.y[row] == one.label for row in one.rows)
    train = before["train"].rows
    for one in planted.canaries:
        same = train[(plain.tensor[train] == one.x).flatten(1).all(1)]
        assert len(same) if kind == "mislabelled" else not len(same)
        assert all(plain.y[row] != one.label for row in same)
    again, _ = loaded({**data, "canaries": {"kind": kind, "count": count, "times": times}})
    assert again.fingerprint == table.fingerprint != plain.fingerprint


def test_coins_are_fair_and_of_the_data_seed() -> None:
    sides = []
    for seed in range(12):
        planted = loaded({"dataset": "digits", "seed": seed, "canaries": {"kind": "random", "count": 200}})[0].planted
        assert planted is not None
        sides.append([one.inside for one in planted.canaries])
    share = sum(map(sum, sides)) / 2400
    assert abs(share - 0.5) < 5 * (0.25 / 2400) ** 0.5
    assert len({tuple(one) for one in sides}) == 12


def test_secrets_stand_in_their_template_and_what_looks_for_personal_data_takes_them_out(tmp_path: Path) -> None:
    data = {**texts(tmp_path), "canaries": SECRET}
    table, streams = modelled(data)
    assert table.planted is not None
    for one in table.planted.canaries:
        assert len(one.secret) == 8 and one.secret.isdigit()
        said = f"guest {one.number} has the code {one.secret}."
        assert [table.texts[row].text for row in one.rows] == [said] * one.inside
    assert len({one.secret for one in table.planted.canaries}) == 40
    held = torch.cat([streams["test"].rows, streams["validation"].rows])
    assert not torch.isin(held, table.planted.rows).any()
    looked = {"find": {"pattern": {"match": "[0-9]{8}", "kind": "CODE"}}}
    redacted, _ = modelled({**data, "personal": {"action": "redact", **looked}})
    assert redacted.planted is not None
    counts = redacted.planted.counts()
    assert counts["changed"] == counts["in"] == sum(one.inside for one in table.planted.canaries)
    assert {redacted.texts[row].text.split(" has ")[1] for row in redacted.planted.rows.tolist()} == {
        "the code [CODE]."
    }
    assert any(f"{counts['in']} changed" in note for note in redacted.notes)
    dropped, _ = modelled({**data, "personal": {"action": "drop", **looked}})
    assert dropped.planted is not None and not len(dropped.planted.rows)
    assert dropped.planted.counts()["dropped"] == counts["in"]


def test_texts_with_a_class_have_secrets_of_any_class(tmp_path: Path) -> None:
    bert = {"hf": {"config": {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
                              "intermediate_size": 8, "max_position_embeddings": 64},
                   "tokenizer": {"characters": {}}, "max_length": 60}}  # fmt: skip
    table, _ = loaded({**texts(tmp_path, labelled=True), "canaries": SECRET}, agents={"t": {"model": bert}})
    assert table.planted is not None and {one.label for one in table.planted.canaries} == {0, 1}


def test_plan_and_file_say_them() -> None:
    fields = mesh({"dataset": "digits", "canaries": {"kind": "random", "count": 20, "times": 3}})
    said = plan_text(make_plan(parse(fields), registry()))
    assert "Canaries, planted in train\n  of 20 random ones about half, by the toss of a coin, 3 times each" in said
    assert "Canaries" not in plan_text(make_plan(parse(mesh({"dataset": "digits"})), registry()))


@pytest.mark.parametrize(
    ("canaries", "told"),
    [
        ({"kind": "secret", "count": 9}, "names its secret once"),
        ({"kind": "secret", "count": 9, "text": "{secret}", "length": 2}, "an audit needs 10,000"),
        ({"kind": "secret", "count": 9, "text": "{secret}", "characters": "aa"}, "names one twice"),
        ({"kind": "secret", "count": 9, "text": "{secret}", "prompt": "{secret}"}, "stands in the text"),
        ({"kind": "random", "count": 9, "length": 9}, "`length` is of canaries of kind secret"),
        ({"kind": "random", "count": 7}, "count"),
        (SECRET, "samples are numbers"),
    ],
)
def test_what_cannot_be_planted_is_refused(canaries: dict[str, Any], told: str) -> None:
    with pytest.raises(MeshError, match=told):
        loaded({"dataset": "digits", "canaries": canaries})


def test_they_are_refused_where_they_would_be_no_samples_of_the_data(tmp_path: Path) -> None:
    some = {"kind": "random", "count": 9}
    with pytest.raises(MeshError, match="texts, not numbers"):
        modelled({**texts(tmp_path), "canaries": some})
    with pytest.raises(MeshError, match="samples with a class"):
        loaded({"dataset": "diabetes", "canaries": some}, task="regression")
    with pytest.raises(MeshError, match="samples with a class"):
        modelled({**texts(tmp_path), "canaries": {"kind": "mislabelled", "count": 9}})
    with pytest.raises(MeshError, match="prepared first"):
        loaded({"dataset": "digits", "prepare": [{"columns": "numbers", "scale": "standard"}], "canaries": some})
    lazy = {"dataset": {"text": {"path": texts(tmp_path)["dataset"]["text"]["path"], "lazy": True}}}
    with pytest.raises(MeshError, match="read when they are asked for"):
        modelled({**lazy, "canaries": SECRET})


@pytest.mark.parametrize("canaries", [{"kind": "random", "count": 9}, {"kind": "mislabelled", "count": 9}, SECRET])
def test_a_mesh_with_every_default_reads_back(canaries: dict[str, Any]) -> None:
    plan = make_plan(parse(mesh({"dataset": "digits", "canaries": canaries})), registry())
    resolved = plan.resolved().model_dump(mode="json", by_alias=True, exclude_none=True)
    again = parse(resolved).data
    assert plan.spec.data is not None and again is not None and again.canaries == plan.spec.data.canaries
