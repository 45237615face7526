"""Licences through a mesh: what an agent in fact learns from, judged for the mesh's purpose."""

import json

import pytest
import torch
from safetensors.torch import save_file
from test_licence_matrix import LLAMA, MATRIX
from transformers import GPT2Config, GPT2LMHeadModel

import kdmesh
from kdmesh.builtin.models.mlp import MLP
from kdmesh.checks import bases, licence_sources, licences
from kdmesh.cli import main
from kdmesh.engine.check import check, examine
from kdmesh.errors import MeshError
from kdmesh.licences.judging import Student, judge
from kdmesh.provenance.lineage import lineage
from kdmesh.spec import ModelRef

CASES = [pytest.param(*row[:4], id=f"{place} {' + '.join(row[1])} {row[2]}") for place, row in enumerate(MATRIX)]
TOKENS = {"tokenizer": {"bpe": {"vocabulary": 260}}}


def mlp(folder, licence=""):
    """A folder with a teacher's weights, and a card."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    save_file(MLP((1, 8, 8), 10).state_dict(), folder / "model.safetensors")
    return carded(folder, licence)


def gpt2(folder, licence=""):
    """The same of a language model that transformers wrote."""
    torch.manual_seed(0)
    size = {
        "n_embd": 8,
        "n_layer": 1,
        "n_head": 1,
        "n_positions": 32,
        "vocab_size": 260,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    GPT2LMHeadModel(GPT2Config(**size)).save_pretrained(folder)
    return carded(folder, licence)


def carded(folder, licence):
    if licence:
        (folder / "README.md").write_text(f"---\nlicense: other\nlicense_name: {json.dumps(licence)}\n---\n# A model\n")
    return folder


def digits(teachers, **more):
    """A mesh of images: frozen teachers by their weights' folders, and a student."""
    agents = {
        name: {"model": "mlp", "weights": str(folder / "model.safetensors"), "update": "frozen"}
        for name, folder in teachers.items()
    }
    return {
        "data": {"dataset": "digits", "licence": "own"},
        "agents": {**agents, "s": {"model": "mlp"}},
        "connect": [{"ensemble": {"teachers": [*teachers], "student": "s"}}],
        "train": {"epochs": 1},
        **more,
    }


def texts(teachers, data, **more):
    """The same of texts."""
    agents = {
        name: {"model": {"hf": {"path": str(folder), **TOKENS}}, "update": "frozen"}
        for name, folder in teachers.items()
    }
    tiny = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 32}
    return {
        "task": "language_modelling",
        "data": {"dataset": {"text_file": {"path": str(data), "characters": 24}}, "licence": "own"},
        "text": {"max_length": 24},
        "agents": {**agents, "s": {"model": {"hf": {"config": tiny, **TOKENS}}}},
        "connect": [{"ensemble": {"teachers": [*teachers], "student": "s"}}],
        "train": {"epochs": 1},
        **more,
    }


@pytest.fixture(scope="module")
def poem(tmp_path_factory):
    path = tmp_path_factory.mktemp("poem") / "poem.txt"
    path.write_text("the cat sat on the mat and a dog ran after the cat\n" * 20)
    return path


def asked(purpose, policy="warn"):
    return {"licences": {"purpose": purpose, "policy": policy}}


@pytest.mark.parametrize(("student", "names", "purpose", "answer"), CASES)
def test_the_check_of_a_mesh_answers_as_the_matrix_says(student, names, purpose, answer, poem, tmp_path):
    talks = student is not None and student.language_model
    make = gpt2 if talks else mlp
    teachers = {f"t{place}": make(tmp_path / f"t{place}", licence) for place, licence in enumerate(names)}
    mesh = texts(teachers, poem, **asked(purpose)) if talks else digits(teachers, **asked(purpose))
    if student is LLAMA:
        mesh["agents"]["s"]["model"] = {"hf": {"path": str(gpt2(tmp_path / "base", "llama2")), **TOKENS}}
    plan = kdmesh.Mesh(**mesh).plan()
    found = examine(plan).licences.outcomes["s"]
    assert found.answer == answer
    assert {one.source.name for one in found.findings} >= teachers.keys()
    if answer in ("against", "unknown"):
        mesh["licences"]["policy"] = "strict"
        with pytest.raises(MeshError) as told:
            examine(kdmesh.Mesh(**mesh).plan())
        assert f"{purpose} use of s" in str(told.value)
        assert ("is unknown" in str(told.value)) or answer == "against"


def sources(mesh, agent="s"):
    return {one.name: one for one in licences.examine(kdmesh.Mesh(**mesh).plan()).learned[agent]}


def test_who_teaches_nobody_does_not_count_and_who_teaches_through_others_does(tmp_path):
    mesh = digits({"t": mlp(tmp_path / "t", "cc-by-nc-4.0"), "idle": mlp(tmp_path / "idle", "llama2")})
    mesh["agents"]["middle"] = {"model": "mlp"}
    mesh["connect"] = [
        {"ensemble": {"teachers": ["t"], "student": "middle"}},
        {"ensemble": {"teachers": ["middle"], "student": "s"}},
    ]
    assert sources(mesh).keys() == {"t", "digits"}
    assert sources(mesh, "middle").keys() == {"t", "digits"}


def test_a_declared_licence_goes_before_the_card_and_a_difference_is_said(tmp_path):
    mesh = digits({"t": mlp(tmp_path / "t", "llama2")})
    mesh["agents"]["t"]["licence"] = "MIT"
    found = licences.examine(kdmesh.Mesh(**mesh).plan())
    assert found.learned["s"][0].licence.expression == "MIT"
    assert found.marks == ["licences: t is declared as 'MIT' at agents.t.licence, and its card states 'llama2'"]
    mesh["licences"] = {"policy": "off"}
    assert licences.examine(kdmesh.Mesh(**mesh).plan()).marks == []


def test_a_data_card_is_read_and_the_mesh_may_say_otherwise(tmp_path):
    rows = "".join(f"{number % 7},{number % 2}\n" for number in range(60))
    (tmp_path / "news.csv").write_text(f"a,y\n{rows}")
    carded(tmp_path, "CC BY-SA 4.0")
    mesh = {
        "data": {"dataset": {"csv": {"path": str(tmp_path / "news.csv"), "label": "y"}}},
        "agents": {"s": {"model": "mlp"}},
        "licences": {"purpose": "redistribution"},
    }
    assert sources(mesh)["news.csv"].licence.expression == "CC-BY-SA-4.0"
    told = " ".join(" ".join(check(kdmesh.Mesh(**mesh).plan())).split())
    assert "news.csv data CC-BY-SA-4.0" in told and "licenses it as CC-BY-SA-4.0" in told
    mesh["data"]["licence"] = "own"
    assert sources(mesh)["news.csv"].own


@pytest.mark.parametrize("declared", ["other", "LicenseRef-Acme", "no licence (yet", "GPL-9"])
def test_a_licence_that_names_none_is_unknown_and_refused_under_strict(declared):
    mesh = {"data": {"dataset": "digits", "licence": declared}, "agents": {"s": {"model": "mlp"}}}
    found = licences.examine(kdmesh.Mesh(**mesh, licences={"purpose": "research"}).plan())
    assert found.outcomes["s"].answer == "unknown" and len(found.marks) == 1
    with pytest.raises(MeshError, match="research use of s: the licence of data digits is unknown") as told:
        licences.examine(kdmesh.Mesh(**mesh, licences={"purpose": "research", "policy": "strict"}).plan())
    assert told.value.where == "data.licence"


@pytest.mark.parametrize(
    ("agent", "answer"),
    [
        ({"terms": "openai services agreement", "base_url": "https://example.org/v1"}, "depends"),
        ({"base_url": "https://example.org/v1"}, "unknown"),
        ({"base_url": "http://127.0.0.1:9/v1"}, "unknown"),
    ],
)
def test_an_endpoint_is_asked_for_its_terms(agent, answer):
    api = {"model": "m", "read": "text", "labels": [str(number) for number in range(10)], **agent}
    ref = ModelRef.model_validate({"api": api})
    found = licence_sources._served("t", ref, None, "agents.t.licence")
    outcome = judge(Student(True), [one.source for one in found], "commercial")
    assert outcome.answer == answer and [one.kind for one in found] == ["endpoint"]
    local = licence_sources._served("t", ref, "MIT", "agents.t.licence")
    assert local[0].licence.expression == "MIT"
    assert len(local) == (1 if "127" in agent["base_url"] else 2)


def test_fields_that_would_do_nothing_are_refused():
    plain = {"data": "digits", "agents": {"s": {"model": "mlp"}}}
    for wrong, said in (
        ({"licences": {}}, "it says no purpose"),
        ({"licences": {"policy": "off", "purpose": "research"}}, "`purpose` has no effect"),
        ({"agents": {"s": {"model": "mlp"}, "e": {"weights_of": "s", "licence": "MIT"}}}, "weights of its own"),
    ):
        with pytest.raises(MeshError, match=said):
            kdmesh.Mesh(**{**plain, **wrong}).plan()
    drawn = kdmesh.Mesh(**{**plain, "agents": {"s": {"model": "mlp", "licence": "MIT"}}}).plan()
    with pytest.raises(MeshError, match="drawn here"):
        licences.examine(drawn)


def test_what_a_student_learned_from_comes_along_to_the_next_run(tmp_path):
    first = digits({"t": mlp(tmp_path / "t", "llama3.1")}, name="first", licences={"purpose": "commercial"})
    first["agents"]["s"]["init_of"] = "t"
    done = kdmesh.Mesh(**first).run(backend="inline", out=tmp_path / "runs")
    root = next((tmp_path / "runs" / "first").iterdir())
    card = (root / "agents/s/README.md").read_text()
    assert "Its name begins with “Llama”." in card and "Built with Llama" in card
    assert "begins with the weights of its teacher t" in card and "arXiv:2507.14805" in card
    again = digits({"old": root / "agents/s"}, name="second")
    again["agents"]["s"] = {"model": "mlp", "weights": str(tmp_path / "t" / "model.safetensors")}
    plan = kdmesh.Mesh(**again).plan()
    found = licences.examine(plan)
    along = {one.name: one for one in found.learned["s"]}
    assert along["t"].licence.expression == "LicenseRef-llama3.1" and along["t"].where.startswith("by way of")
    assert found.outcomes["s"].begins == "Llama"
    assert bases.shared(plan, {})["s"][0].teacher == "old"  # which began with the same weights, in that run
    graph = lineage(root)
    assert {"from": f"{root.name}/t", "to": f"{root.name}/s", "how": "taught"} in graph["edges"]
    assert done["s"].metrics


def test_agents_of_other_weights_share_no_base(tmp_path):
    mesh = digits({"t": mlp(tmp_path / "t")})
    assert bases.shared(kdmesh.Mesh(**mesh).plan(), {}) == {}
    mesh["agents"]["s"]["weights"] = mesh["agents"]["t"]["weights"]
    assert [one.teacher for one in bases.shared(kdmesh.Mesh(**mesh).plan(), {})["s"]] == ["t"]


@pytest.mark.parametrize("policy", ["strict", "warn"])
def test_an_export_asks_for_the_name_that_a_licence_asks_for(policy, tmp_path, capsys):
    """Its file goes nowhere without what is owed; under `strict` not by another name."""
    mesh = digits({"t": mlp(tmp_path / "t", "llama3.1")}, licences={"purpose": "redistribution", "policy": policy})
    kdmesh.Mesh(**mesh).run(backend="inline", out=tmp_path / "runs")
    (agent,) = (tmp_path / "runs").glob("*/*/agents/s")
    asked = ["export", str(agent), "--to", "torch_export", "--quiet"]
    code = main([*asked, "--out", str(tmp_path / "other")])
    shown = " ".join("".join(capsys.readouterr()).split())
    assert "its name is 's', and a licence of what it learned from asks for one that begins with 'Llama'" in shown
    assert (code == 2 and "--name Llama-s" in shown) if policy == "strict" else code == 0
    assert (tmp_path / "other").exists() is (policy == "warn")
    assert main([*asked, "--out", str(tmp_path / "right"), "--name", "Llama-digits"]) == 0
    assert "a licence of what" not in "".join(capsys.readouterr())
    told = (tmp_path / "right" / "LICENCES.md").read_text(encoding="utf-8")
    assert told.startswith("# Llama-digits\n") and "Built with Llama" in told and "llama3.1" in told
