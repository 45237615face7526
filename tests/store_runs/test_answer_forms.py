"""Answers in a form: what students learn from is the same with a cold store, a warm one and none, inline and on Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from small_runs import mesh, run, said
from torch import nn

from kdmesh.cli import main
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.report.plan_text import plan_text
from kdmesh.spec.agents import AnswersSpec
from kdmesh.spec.read import parse
from kdmesh.store import Store, forms

LOSSY = [form for form in forms.DENSE if form != forms.EXACT]
FLOWS = {
    "once": {"refresh": "once"},
    "step": {"refresh": "step"},
    "hidden": {"objective": "hint", "tap": {"of": "layers.0", "to": "layers.0"}, "refresh": "step"},
    "top k": {"signal": {"top_k": {"k": 2}}, "refresh": "step"},
}


def test_the_file_names_every_form_of_the_store() -> None:
    assert get_args(AnswersSpec.model_fields["form"].annotation) == forms.FORMS


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("form", LOSSY)
def test_a_form_is_the_same_cold_warm_and_without_a_store(form: str, flow: str, tmp_path: Path) -> None:
    def made(form: str) -> Any:
        return mesh(teacher={"answers": {"form": form}}, flow=FLOWS[flow])

    exact = said(run(made("exact"), "off"))
    without, cold, warm = (run(made(form), store) for store in ("off", tmp_path, tmp_path))
    assert said(without) == said(cold) == said(warm)
    assert said(without)["t"] == exact["t"]  # an agent is measured on what it computes
    assert (said(without)["s"] == exact["s"]) is (form == "float32")
    assert warm["agents"]["t"]["forwards"]["made"] == 0 and warm["store"]["not_kept"] == {}
    assert cold["store"]["agents"]["t"]["written"] == 170
    if flow != "hidden":
        return
    wide = run(made("exact"), tmp_path / "exact")["store"]["all"]["kept"]
    assert (cold["store"]["all"]["kept"] < wide) is (form != "float32")


@pytest.mark.parametrize("refresh", ["once", "step"])
@pytest.mark.parametrize("signal", [{"top_k": {"k": 2, "tail": "bucket"}}, {"sampled": {"k": 1, "draws": 2}}])
def test_sparse_answers_are_packed_and_logits_that_nobody_reads_are_not_kept(
    signal: dict[str, Any], refresh: str, tmp_path: Path
) -> None:
    def made(form: str, signal: Any = signal) -> Any:
        return mesh(teacher={"answers": {"form": form}}, flow={"signal": signal, "refresh": refresh})

    without, cold, warm = (run(made("packed"), store) for store in ("off", tmp_path, tmp_path))
    assert said(without) == said(cold) == said(warm) != said(run(made("exact"), "off"))
    assert warm["agents"]["t"]["forwards"]["made"] == 0 and warm["store"]["not_kept"] == {}
    kept = [one for one in Store.open(tmp_path).entries() if one.key is not None and one.key.signal.get("form")]
    assert [one.key.signal["form"] for one in kept if one.key] == ["packed"] and "made" in kept[0].key.signal
    run(made("exact"), tmp_path / "exact")
    rows = {bool(one.key.signal.get("made")): one.rows for one in Store.open(tmp_path / "exact").entries() if one.key}
    assert rows[True] == kept[0].rows and rows[False] == 170 - rows[True]  # logits of what it is measured on alone


def test_what_names_no_outputs_is_not_packed() -> None:
    made = mesh(teacher={"answers": {"form": "packed"}})
    with pytest.raises(MeshError, match="carries logits, which names no outputs"):
        run(made, "off")


def test_forms_of_one_teacher_are_entries_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for form in forms.DENSE:
        run(mesh(teacher={"answers": {"form": form}}), tmp_path)
    again = run(mesh(teacher={"answers": {"form": "int8"}}), tmp_path)
    assert again["store"]["all"]["forwarded"] == 0
    assert main(["store", "ls", "--store", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "6 entries" in text and all(f"logits {form}" in text for form in LOSSY)  # two exact ones: measured, too


@pytest.mark.ray
@pytest.mark.parametrize("form", ["bfloat16", "int8"])
def test_a_form_on_ray(form: str, tmp_path: Path, ray_session: Any) -> None:
    made = mesh(teacher={"answers": {"form": form}}, data=None)
    fields = {**made._fields, "data": "digits", "placement": "spread"}
    fields["streams"] = {"few": {"of": "train", "size": 200}}
    for flow in fields["flows"]:
        flow["stream"] = "few"
    for refresh in ("once", "step"):
        fields["flows"][1]["refresh"] = refresh
        spec = parse(fields)
        without, _, _ = run_once(Request(spec, "inline", store="off"))
        for _ in range(2):
            summary, _, _ = run_once(Request(spec, store=str(tmp_path)), session=ray_session)
            assert said(summary) == said(without)


@pytest.mark.parametrize("refresh", ["once", "step"])
@pytest.mark.parametrize("store", ["off", "kept"])
def test_values_that_a_form_cannot_hold_are_named(refresh: str, store: str, tmp_path: Path) -> None:
    loud = nn.Linear(8, 3)
    with torch.no_grad():
        loud.bias.fill_(1e6)
    made = mesh(teacher={"model": loud, "seed": None, "answers": {"form": "float16"}}, flow={"refresh": refresh})
    with pytest.raises(MeshError, match=r"agents\.t\.answers\.form: .* float16 cannot hold"):
        run(made, "off" if store == "off" else tmp_path)


@pytest.mark.parametrize(
    ("teacher", "flow", "why"),
    [
        ({"update": "grad"}, {"refresh": "step"}, "still trains"),
        ({"update": "grad"}, {"refresh": "epoch"}, "still trains"),
        ({}, {"mode": "train", "refresh": "step"}, "train mode"),
        ({"update": "grad"}, {"refresh": "epoch", "stale": "snapshot"}, "stale: snapshot"),
        ({"update": "grad"}, {"detach": False}, "gradient"),
        ({"view": {"augment": ["noise"]}}, {"refresh": "step"}, "in no form: each epoch it sees new views"),
        ({}, {"stream": "own"}, r"in no form: what it says of private samples \(own\)"),
    ],
)
def test_a_form_of_what_is_not_kept_is_refused(teacher: dict[str, Any], flow: dict[str, Any], why: str) -> None:
    made = mesh(teacher={**teacher, "answers": {"form": "int8"}}, flow=flow)
    if "stream" in flow:
        made._fields["streams"] = {"own": {"of": "train", "private": True}}
    with pytest.raises(MeshError, match=why) as caught:
        made.plan()
    assert caught.value.where == "agents.t.answers.form" and "leave it out" in caught.value.instead
    assert "each epoch" not in why or "view: {draws: 4} (agents.t.view)" in caught.value.instead


def test_a_form_that_nobody_reads_is_refused() -> None:
    made = mesh()
    made._fields["agents"]["s"]["answers"] = {"form": "int8"}
    with pytest.raises(MeshError, match="nobody reads what s says"):
        made.plan()


def test_a_teacher_that_trains_first_may_have_a_form(tmp_path: Path) -> None:
    fields = {"update": "grad", "answers": {"form": "int8"}}
    without, cold, warm = (
        run(mesh(teacher=fields, flow={"refresh": "once"}), store) for store in ("off", *2 * [tmp_path])
    )
    assert said(without) == said(cold) == said(warm)
    assert said(without)["s"] != said(run(mesh(teacher={"update": "grad"}, flow={"refresh": "once"}), "off"))["s"]


def test_the_plan_shows_forms() -> None:
    assert "int8" in plan_text(mesh(teacher={"answers": {"form": "int8"}}).plan())
