"""A mesh whose personal data is taken out: nothing of it reaches a model, a folder, or a message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kdmesh import load
from kdmesh.cli import main
from kdmesh.errors import MeshError
from kdmesh.hosts.personal import without_personal
from kdmesh.personal.log import verify
from kdmesh.privacy import keys
from kdmesh.spec.personal import PersonalSpec
from kdmesh.streams.table import Table
from kdmesh.streams.texts import Sample, Texts
from kdmesh.testing.run_mesh import RunMesh

TINY = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16}  # fmt: skip
COUNT = 48
SECRETS = [f"ann{number}@mail.example.org" for number in range(COUNT)]


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KDMESH_PERSONAL_KEY", raising=False)


@pytest.fixture
def run_mesh(request: pytest.FixtureRequest, tmp_path: Path) -> RunMesh:
    return RunMesh(request.config, tmp_path)


def letters(root: Path) -> Path:
    """Texts that tell a class, each with an address, and a column with another."""
    rows = [
        {"text": f"{'yes' if number % 2 else 'no'} {number} by {secret}", "label": "ab"[number % 2],
         "from": f"10.0.0.{number}"}
        for number, secret in enumerate(SECRETS)
    ]  # fmt: skip
    (root / "letters.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return root / "letters.jsonl"


def mesh(path: Path, personal: dict[str, Any], **dataset: Any) -> dict[str, Any]:
    """A teacher and a student of texts."""
    model = {"hf": {"config": TINY, "tokenizer": {"characters": {}}}}
    return {
        "name": "letters",
        "data": {"dataset": {"text": {"path": str(path), "label": "label", **dataset}}, "personal": personal},
        "agents": {"t": {"model": model}, "s": {"model": model}},
        "connect": [{"ensemble": {"teachers": ["t"], "student": "s"}}],
        "train": {"epochs": 2, "batch_size": 16},
        "text": {"max_length": 48},
    }


REDACT = {"action": "redact", "find": ["email", "ip_address"]}


def holds(root: Path, words: list[str]) -> list[str]:
    """The files below a folder that hold one of some texts, in any form in which they are written."""
    found = []
    for path in root.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            found += [f"{path.name}: {word}" for word in words if word.encode() in content]
    return found


@pytest.mark.parametrize("lazy", [False, True])
def test_no_file_of_a_run_holds_what_was_taken_out(run_mesh: RunMesh, tmp_path: Path, lazy: bool) -> None:
    path = letters(tmp_path)
    run = run_mesh(mesh(path, REDACT, lazy=lazy))
    assert run.folder is not None and not holds(run.folder, [*SECRETS, "10.0.0."])
    told = run.summary["personal"]
    assert told["parts"] == {"EMAIL": COUNT, "IP_ADDRESS": COUNT} and told["samples"] == COUNT
    title, *lines = map(json.loads, (run.folder / "personal.jsonl").read_text().splitlines())
    assert title == {"log": 1, "action": "redact", "key": None} and len(lines) == 2 * COUNT
    assert lines[0] == {"row": 0, "field": "text", "rule": "email", "kind": "EMAIL", "action": "redact"}


@pytest.mark.ray
@pytest.mark.parametrize("action", ["redact", "pseudonymise", "drop"])
def test_read_later_and_on_ray_it_is_the_same(
    run_mesh: RunMesh, tmp_path: Path, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.create(tmp_path / "key")
    monkeypatch.setenv("KDMESH_PERSONAL_KEY", str(tmp_path / "key"))
    kept = [f"yes {number}" for number in range(20)] if action == "drop" else []
    path = letters(tmp_path)
    with path.open("a") as file:
        file.writelines("\n" + json.dumps({"text": one, "label": "b", "from": "here"}) for one in kept)
    personal = {**REDACT, "action": action}
    one = run_mesh(mesh(path, personal, lazy=False))
    later = run_mesh(mesh(path, personal, lazy=True))
    assert one.weights == later.weights and one.summary["personal"] == later.summary["personal"]
    assert one.summary["personal"]["dropped"] == (COUNT if kept else 0)
    if action != "drop":
        ray = run_mesh(mesh(path, personal, lazy=action == "pseudonymise"), backend="ray")
        assert ray.weights == one.weights


def test_predictions_and_figures_are_of_texts_without(
    run_mesh: RunMesh, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = letters(tmp_path)
    personal = mesh(path, REDACT, test_path=str(path))
    run = run_mesh(personal)
    assert run.folder is not None
    agent = run.folder / "agents" / "s"
    assert main(["evaluate", str(agent), str(path), "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)["figures"]
    assert found == run.summary["agents"]["s"]["metrics"]["test"]
    module = load(agent)
    one, other = (module.predict([f"yes 1 by {who}"]) for who in ("ann@mail.example.org", "bob@other.example.com"))
    assert torch.equal(one.scores, other.scores)


def test_a_pseudonym_is_the_same_wherever_a_value_is_and_another_by_another_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["call +1 202-555-0100", "or +12025550100, or ann@x.org", "Ann@X.org"]
    spec = PersonalSpec.model_validate({"action": "pseudonymise", "find": ["phone", "email"]})
    told = []
    for name in ("one", "two", "one"):
        path = tmp_path / name
        if not path.exists():
            keys.create(path)
        monkeypatch.setenv("KDMESH_PERSONAL_KEY", str(path))
        table = without_personal(Table(Texts([Sample(one) for one in texts]), None, 0), spec)
        told.append([one.text for one in table.texts])
    assert told[0] == told[2] != told[1]
    first, second, third = told[0]
    assert first.removeprefix("call ") in second and third in second and third.startswith("[EMAIL-")


def test_every_text_of_a_sample_is_looked_at() -> None:
    spec = PersonalSpec.model_validate(REDACT)
    call = json.dumps({"tool_calls": [{"function": {"name": "mail", "arguments": {"to": "a@b.org"}}}]})
    sample = Sample(
        text="a@b.org", pair="a@b.org", prompt="to a@b.org", candidates=("a@b.org", "b"), tools='[{"d": "a@b.org"}]',
        messages=(("user", "a@b.org"), ("assistant", "a@b.org", call)), rejected=("assistant", "a@b.org"),
        spans=((0, 7, "MAIL"),),
    )  # fmt: skip
    table = without_personal(Table(Texts([sample]), None, 0, columns={"of": ["a@b.org"]}), spec)
    (found,) = table.texts
    assert "a@b.org" not in repr(found) and list(table.columns["of"]) == ["[EMAIL]"]
    assert found.spans == ((0, 7, "MAIL"),) and found.text == "[EMAIL]"


@pytest.mark.parametrize(
    ("personal", "words"),
    [
        ({"action": "redact"}, "it finds nothing: write `find: [email, phone]`, or `profile: hipaa`"),
        ({"action": "hide", "find": ["email"]}, "redact"),
        ({"action": "redact", "find": ["emial"]}, "email"),
        ({"action": "redact", "find": ["email", "email"]}, "names 'email' twice"),
        ({"action": "redact", "find": ["email"], "kinds": ["PHONE"]}, "nothing that is looked for is of kind 'PHONE'"),
        ({"action": "redact", "find": ["email"], "columns": ["form"]}, "no column 'form'"),
        ({"action": "redact", "find": [{"pattern": {"match": "("}}]}, "is no regular expression"),
        ({"action": "redact", "find": [{"pattern": {"match": "a", "kind": "low"}}]}, "kind"),
        ({"action": "redact", "find": [{"words": {}}]}, "it needs `words`"),
        ({"action": "redact", "find": [{"words": {"path": "none.txt"}}]}, "none.txt"),
        ({"action": "pseudonymise", "find": ["email"]}, "kdmesh personal key FILE"),
        ({"action": "drop", "find": ["email"]}, "every sample holds personal data"),
        ({"action": "redact", "profile": "hippa"}, "hipaa"),
    ],
)
def test_what_cannot_be_done_is_refused_with_what_to_write(
    tmp_path: Path, personal: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mesh.yaml").write_text(json.dumps(mesh(letters(tmp_path), personal)), encoding="utf-8")
    assert main(["check", str(tmp_path / "mesh.yaml")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert words in said and "Traceback" not in said, said
    assert not any(secret in said for secret in SECRETS)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("{find: nope}", "keep.0.personal.find.0: unknown recogniser 'nope'"),
        ("{find: email, kinds: [PHONE]}", "keep.0.personal.kinds: nothing that is looked for is of kind 'PHONE'"),
        ("{}", "it finds nothing"),
    ],
)
def test_a_filter_of_written_texts_is_checked(asked: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "augment", "--set", f"streams.new.keep=[{{personal: {asked}}}]"]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_numbers_without_texts_have_nothing_to_look_at(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    fields = {"name": "n", "data": {"dataset": "digits", "personal": REDACT}, "agents": {"a": {"model": "mlp"}},
              "flows": [{"from": "labels", "to": "a", "objective": "ce"}]}  # fmt: skip
    (tmp_path / "mesh.yaml").write_text(json.dumps(fields))
    assert main(["check", str(tmp_path / "mesh.yaml")]) == 2
    assert "there is no column of texts to look at" in " ".join(capsys.readouterr().err.split())


def test_cells_that_prepare_makes_numbers_of_are_looked_at(run_mesh: RunMesh, tmp_path: Path) -> None:
    lines = [f"{number / 7:.2f},{secret},{'ab'[number % 2]}" for number, secret in enumerate(SECRETS)]
    (tmp_path / "rows.csv").write_text("\n".join(["size,owner,label", *lines]))
    run = run_mesh(
        {
            "name": "rows",
            "data": {
                "dataset": {"csv": {"path": str(tmp_path / "rows.csv"), "label": "label"}},
                "prepare": [{"columns": ["owner"], "encode": "one_hot"}],
                "personal": REDACT,
            },
            "agents": {"a": {"model": {"mlp": {"hidden": [4]}}}},
            "flows": [{"from": "labels", "to": "a", "objective": "ce"}],
            "train": {"epochs": 1, "batch_size": 16},
        }
    )
    assert run.folder is not None and not holds(run.folder, SECRETS)
    assert run.summary["personal"]["parts"] == {"EMAIL": COUNT}
    module = load(run.folder / "agents" / "a")
    one, other = (module.predict([{"size": 1.5, "owner": who}]) for who in ("x@y.org", "another@mail.example.com"))
    assert torch.equal(one.scores, other.scores)
    (tmp_path / "new.csv").write_text("size,owner\n1.5,nobody@new.example.net\n")
    out = tmp_path / "out.jsonl"
    assert (
        main(["predict", str(run.folder / "agents" / "a"), str(tmp_path / "new.csv"), "--out", str(out), "--quiet"])
        == 0
    )


def test_a_log_is_proved_or_refused(run_mesh: RunMesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = keys.create(tmp_path / "key")
    monkeypatch.setenv("KDMESH_PERSONAL_KEY", str(tmp_path / "key"))
    run = run_mesh(mesh(letters(tmp_path), REDACT))
    assert run.folder is not None
    log = run.folder / "personal.jsonl"
    assert verify(log, secret) == 2 * COUNT
    assert main(["personal", "verify", str(run.folder)]) == 0
    whole = log.read_text()
    lines = whole.splitlines(keepends=True)
    spans = {json.loads(line)["span"] for line in lines[1:-1]}
    assert len(spans) == 2 * COUNT, "a tag of its own for each value"
    for edited in (
        whole.replace('"row": 3', '"row": 4', 1), "".join([*lines[:2], *lines[3:]]), "".join(lines[:-1]), "",
        "".join([lines[0], lines[2], lines[1], *lines[3:]]), whole.replace("EMAIL", "PHONE", 1), whole + "{}\n",
    ):  # fmt: skip
        log.write_text(edited)
        with pytest.raises(MeshError):
            verify(log, secret)
    log.write_text(whole)
    with pytest.raises(MeshError, match="not of"):
        verify(log, keys.create(tmp_path / "other"))


def test_a_file_is_scanned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": "Ann at a@b.org", "spans": [{"start": 0, "end": 3, "label": "PERSON"},
                                                 {"start": 7, "end": 14, "label": "MAIL"}]},
            {"text": "nothing", "spans": []}, {"text": "on 2024-03-01", "spans": []}]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["personal", "scan", str(tmp_path / "rows.jsonl"), "--marked", "spans"]) == 0
    out = capsys.readouterr().out
    assert "recall 50.0%, precision 50.0%; of 2 texts without a mark 1 were flagged" in " ".join(out.split())
    assert all(len(line) <= 80 for line in out.splitlines())
    assert main(["personal", "scan", str(tmp_path / "rows.jsonl"), "--find", "email,nope"]) == 2
    assert main(["personal", "scan", str(tmp_path / "rows.jsonl"), "--profile", "law"]) == 2
    assert main(["personal", "scan", str(tmp_path / "rows.jsonl"), "--column", "body"]) == 2
    assert "Traceback" not in capsys.readouterr().err
