"""Parties take personal data out of their own samples, and each keeps the log of these; public ones are everyone's."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from kdmesh.backends.wire import pack, unpack
from kdmesh.engine.check import examine
from kdmesh.graph.planner import make_plan
from kdmesh.parties.coordinating import keyed
from kdmesh.parties.member import Member
from kdmesh.parties.service import Coordinator
from kdmesh.plugins import registry
from kdmesh.privacy import keys
from kdmesh.spec.read import parse

TINY = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16}  # fmt: skip
SIZES = {"public": 40, "north": 12, "south": 8}


@pytest.fixture
def fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.delenv("KDMESH_PERSONAL_KEY", raising=False)
    sets = {}
    for name, size in SIZES.items():
        rows = [{"text": f"{'yes' if one % 2 else 'no'} {one} of {name}{one}@mail.org", "label": "ab"[one % 2]}
                for one in range(size)]  # fmt: skip
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        sets[name] = {"text": {"path": str(tmp_path / f"{name}.jsonl"), "label": "label"}}
    model = {"hf": {"config": TINY, "tokenizer": {"characters": {}}}}
    return {
        "data": {"dataset": sets["public"], "transfer": 0.5, "personal": {"action": "redact", "find": ["email"]}},
        "agents": {"a": {"model": model}, "b": {"model": model}},
        "parties": {"north": {"agents": "a", "data": sets["north"]}, "south": {"agents": "b", "data": sets["south"]}},
        "connect": [{"rounds": {"students": ["a", "b"], "rounds": 2, "labels_stream": "own"}}],
        "train": {"batch_size": 8},
        "text": {"max_length": 32},
    }


def test_a_simulation_looks_at_all_and_says_whose(fields: dict[str, Any]) -> None:
    plan = make_plan(parse(fields), registry())
    found = examine(plan)
    assert found.table.personal is not None and not any("@" in one.text for one in found.table.texts)
    told = found.table.personal.counts()
    assert told["samples"] == SIZES["public"]
    assert {one["part"]: one["samples"] for one in told["others"]} == {"north": 12, "south": 8}
    assert any("personal data of north: 12 parts" in note for note in found.notes)


def test_a_party_keeps_the_log_of_its_own(fields: dict[str, Any], tmp_path: Path) -> None:
    member = Member(parse(fields), "north", tmp_path / "mine")
    message = pack({"incarnation": 0, "open": 1, "seed": 0, "sizes": {"south": 8, "north": 12}})
    assert unpack(member.answer(message)) == {"value": None}
    lines = [json.loads(line) for line in (tmp_path / "mine" / "personal.jsonl").read_text().splitlines()[1:]]
    assert [line.get("part", "") for line in lines] == [""] * SIZES["public"] + ["north"] * 12


def test_who_has_another_key_is_told_why_its_public_samples_are_others(
    fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for action in ("pseudonymise", "redact"):
        fields["data"]["personal"]["action"] = action
        spec, hellos = parse(fields), []
        for name in ("one", "two"):
            if not (tmp_path / name).exists():
                keys.create(tmp_path / name)
            monkeypatch.setenv("KDMESH_PERSONAL_KEY", str(tmp_path / name))
            hellos.append(Member(spec, "north", tmp_path / "mine").hello())
        made = Coordinator.__new__(Coordinator)
        made.names, made.expected, made.remark = (
            ["north"],
            {key: hellos[0][key] for key in ("mesh", "public")},
            keyed(spec),
        )
        made._here, made._sizes, made._changed = {}, {}, threading.Condition()
        said += [made._fault("north", hello) for hello in hellos]
    assert [bool(why) for why in said] == [False, True, False, False]
    assert "write data.personal.action: redact, or have all use one key" in said[1]
