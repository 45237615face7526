"""Filters of written texts: equal bits on one host and several, on Ray, broken off and resumed; counts; refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_text_rollouts import calls, changed, elsewhere, mesh, outcome, seldom, sequence  # noqa: F401  calls is a fixture
from text_runs import run, told

from kdmesh.backends import Session
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError, RunFailed
from kdmesh.filters import WrittenText
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

HERE = __name__


def odd(text: WrittenText) -> bool:
    """A verifier: answers that end in an odd digit."""
    return text.text[-1:] in tuple("13579")


def starts(text: WrittenText, with_: str = "1") -> bool:
    return text.text.startswith(with_)


def breaks(text: WrittenText) -> bool:
    """A verifier with a fault, on one prompt."""
    if text.prompt.startswith("2+"):
        raise KeyError("no such answer")
    return True


def yes(text: WrittenText) -> bool:
    return "yes"  # type: ignore[return-value]


def untyped(text):
    return True


SHORT = {"pattern": {"match": "[0-4]"}}
MESHES = {
    "each step": mesh(keep=[SHORT]),
    "several steps": mesh(refresh="3 steps", keep=["length", SHORT, {"dedup": {"across": True}}]),
    "once": sequence(keep=[{"perplexity": {"max": 17}}, SHORT, f"{HERE}:odd"]),
    "answers that end rightly": sequence(
        keep=[{"answer": {"pattern": "[0-9]"}}], sampling={"max_new_tokens": 4, "samples": 4}
    ),
    "by a frozen agent": mesh(refresh="epoch", keep=[{"perplexity": {"max": 16, "of": "t"}}]),
    "accumulated": {
        **mesh(sampling={"max_new_tokens": 3, "samples": 2}, keep=[SHORT]),
        "train": {"epochs": 2, "batch_size": 4, "accumulate": 2, "optimizer": {"adamw": {"lr": 3e-3}}},
    },
    "mixed": mesh(refresh="2 steps", mix={"of": "train", "share": 0.5}, keep=[SHORT]),
    "mixed and accumulated": {
        **mesh(mix={"of": "train", "share": 0.5}, keep=["length", SHORT]),
        "train": {"epochs": 2, "batch_size": 4, "accumulate": 2, "optimizer": {"adamw": {"lr": 3e-3}}},
    },
    "half precision": {
        **mesh(refresh="2 steps", keep=[{"perplexity": {"max": 16.5, "of": "t"}}, SHORT]),
        "train": {"epochs": 2, "batch_size": 5, "precision": "bf16", "optimizer": {"adamw": {"lr": 3e-3}}},
    },
    "half precision, accumulated": {
        **sequence(keep=[{"perplexity": {"max": 17}}, SHORT]),
        "train": {
            "epochs": 2,
            "batch_size": 5,
            "precision": "bf16",
            "accumulate": 2,
            "optimizer": {"adamw": {"lr": 3e-3}},
        },
    },
}


@pytest.mark.parametrize(("name", "whole", "broken"), elsewhere(MESHES))
def test_bits_depend_neither_on_hosts_nor_on_breaks(
    name: str,
    whole: str,
    broken: str,
    tmp_path: Path,
    calls: dict[str, int],  # noqa: F811
) -> None:
    expected = outcome(MESHES[name], whole, out=tmp_path / "whole")
    (folder,) = (tmp_path / "whole").glob("*/*")
    (tally, lines), made = told(folder), calls["made"]
    calls.update(made=0, last=made * 4 // 5 + 1)
    with pytest.raises(KeyboardInterrupt):
        outcome(MESHES[name], broken, out=tmp_path / "broken")
    calls.update(made=0, last=0)
    (folder,) = (tmp_path / "broken").glob("*/*")
    assert outcome(MESHES[name], broken, resume=folder) == expected
    assert told(folder) == (tally, lines)
    assert 0 < calls["made"] < made
    assert tally["kept"] + sum(tally["dropped"].values()) == tally["written"] == len(lines)
    assert 0 < tally["kept"] < tally["written"]
    assert [line["kept"] for line in lines].count(True) == tally["kept"]


@pytest.mark.ray
@pytest.mark.parametrize("name", seldom(["once"], *(name for name in MESHES if name != "once")))
def test_on_ray_they_are_the_same(name: str, ray_session: Session) -> None:
    expected = outcome(MESHES[name])
    assert outcome(MESHES[name], "spread", session=ray_session) == expected


REFUSED = [
    (mesh(keep=["lenght"]), "streams.rollouts.keep.0", "unknown filter 'lenght'"),
    (mesh(keep=[{"length": {"min": 5, "max": 2}}]), "streams.rollouts.keep.0.length", "at least 5 tokens"),
    (mesh(keep=[{"pattern": {"match": "("}}]), "streams.rollouts.keep.0.pattern.match", "no regular expression"),
    (mesh(keep=["pattern"]), "streams.rollouts.keep.0.pattern", "`match`, or `without`"),
    (mesh(keep=[{"dedup": {"alike": 0.9}}]), "streams.rollouts.keep.0.dedup", "of `by: near`"),
    (mesh(keep=[{"dedup": "near"}]), "streams.rollouts.keep.0", "stands by its name: write {dedup: {by: near}}; found"),
    (mesh(keep=[{"length": 4}]), "streams.rollouts.keep.0", "write {length: {min: 4}} or {length: {max: 4}}"),
    (mesh(keep=[{"answer": "#+"}]), "streams.rollouts.keep.0", 'write {answer: {pattern: "#+"}} or {answer: {column'),
    (mesh(keep=[{"dedup": "fuzzy"}]), "streams.rollouts.keep.0", "write a name, or one name with its settings"),
    (mesh(keep=[{"length": {"of": "t"}}]), "streams.rollouts.keep.0.length.of", "reads no agent's loss"),
    (mesh(keep=[{"perplexity": {"of": "x"}}]), "streams.rollouts.keep.0.perplexity.of", "unknown agent 'x'"),
    (mesh(keep=[{"perplexity": {"of": "u"}}]), "streams.rollouts.keep.0.perplexity.of", "u trains"),
    (mesh(keep=["agreement"]), "streams.rollouts.keep.0", "one is written to each"),
    (
        mesh(keep=["agreement"], sampling={"max_new_tokens": 4, "samples": 2}),
        "streams.rollouts.keep.0",
        "batches of 5 divide them",
    ),
    (mesh(keep=[{"answer": {"column": "final"}}]), "streams.rollouts.keep.0.answer.column", "no column 'final'"),
    (mesh(keep=["no_such_module:thing"]), "streams.rollouts.keep.0", "cannot import"),
    (mesh(keep=[f"{HERE}:untyped"]), "streams.rollouts.keep.0", "no function that says"),
    (mesh(keep=[f"{HERE}:MESHES"]), "streams.rollouts.keep.0", "no Filter class"),
    (changed(mesh(), streams={"rollouts": {"keep": ["length"]}}), "streams.rollouts.keep", "no agent writes"),
    (
        changed(mesh(keep=[{"perplexity": {"of": "t", "max": 9}}]), placement={"a": ["t"], "b": ["s", "u"]}),
        "placement",
        "reads what t says",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "where", "what"), REFUSED, ids=[what for *_, what in REFUSED])
def test_what_cannot_filter_is_refused(fields: dict[str, Any], where: str, what: str) -> None:
    with pytest.raises(MeshError) as caught:
        examine(make_plan(parse(fields), registry()))
    assert caught.value.where == where and what in caught.value.what


SMALL = {"epochs": 2, "batch_size": 5, "optimizer": {"adamw": {"lr": 3e-3}}}


NEVER = {"pattern": {"match": "never written"}}


@pytest.mark.parametrize("fields", [mesh(keep=[NEVER]), sequence(keep=[NEVER])], ids=["each step", "once"])
def test_a_stream_of_which_nothing_is_kept_ends_its_stage(fields: dict[str, Any]) -> None:
    with pytest.raises(RunFailed, match=r"none of the \d+ texts that [st] wrote is kept \(pattern \d+\)") as caught:
        run(fields)
    assert caught.value.where == "streams.rollouts.keep"


def test_batches_of_which_nothing_is_kept_add_no_loss_and_are_said() -> None:
    one = mesh(keep=[{"pattern": {"match": "7"}}])
    one["train"] = {**SMALL, "batch_size": 2}
    summary = run(one)
    tally = summary["streams"]["rollouts"]
    assert 0 < tally["empty"] < 24
    assert summary["agents"]["s"]["updates"] == 24  # the schedule goes on; weights stay, as in no loss at all
    said = f"rollouts: batches without a text that was kept, which added no loss: {tally['empty']}"
    assert said in summary["notes"]


def test_a_verifier_that_raises_is_named_with_its_sample() -> None:
    with pytest.raises(RunFailed, match=r"breaks failed on what s wrote for 'rollouts' to .*KeyError") as caught:
        run(mesh(keep=[f"{HERE}:breaks"]))
    assert caught.value.where == "streams.rollouts.keep.0"


def test_a_verifier_that_gives_no_bool_is_refused() -> None:
    with pytest.raises(RunFailed, match="it gave 'yes', which is no bool"):
        run(mesh(keep=[f"{HERE}:yes"]))


def test_a_verifier_has_settings_and_is_told_of() -> None:
    fields = mesh(keep=[{f"{HERE}:starts": {"with_": "2"}}])
    assert f"imports {HERE}:starts (streams.rollouts.keep.0)" in examine(make_plan(parse(fields), registry())).notes
    tally = run(fields)["streams"]["rollouts"]
    assert 0 < tally["dropped"][f"{HERE}:starts"] < tally["written"]


def test_answers_of_no_token_are_counted_named_and_dropped_by_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a writer that ends every second answer at once."""
    from kdmesh.hosts import generating

    inner = generating.Writing.write

    def write(self: Any, agent: Any, asked: Any, rows: int) -> Any:
        texts = inner(self, agent, asked, rows)
        end = self._encoder.tokenizer.eos_token_id
        return [([*ids[:before], end], before) if at % 2 else (ids, before) for at, (ids, before) in enumerate(texts)]

    monkeypatch.setattr(generating.Writing, "write", write)
    fields = mesh(refresh="once", generated_by="t")
    summary = run(fields)
    assert summary["streams"]["rollouts"]["blank"] == 12
    assert any(
        "rollouts: 12 of 24 texts of t have no token before their end, first the one to 2+1" in note
        for note in summary["notes"]
    ), summary["notes"]
    tally = run(mesh(refresh="once", generated_by="t", keep=["length"]))["streams"]["rollouts"]
    assert tally["dropped"] == {"length": 12}


def test_a_writer_that_never_stops_is_named_with_its_first_text() -> None:
    summary = run(mesh(refresh="once", generated_by="t", sampling={"max_new_tokens": 1, "greedy": True}))
    assert summary["streams"]["rollouts"]["cut"] == summary["streams"]["rollouts"]["written"] == 24
    said = "rollouts: t ended none of its 24 texts, which were cut at max_new_tokens, first the one to "
    assert any(note.startswith(said) and "+" in note.removeprefix(said) for note in summary["notes"]), summary["notes"]
    some = run(mesh())["streams"]["rollouts"]
    assert 0 < some["cut"] < some["written"]


def test_what_is_held_out_is_never_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that says, nearly, what validation or test hold is not listened to, though no filter is asked for."""
    from kdmesh.hosts import generating

    words = [" ".join(f"w{(n * 7 + at * 11) % 90}" for n in range(30)) for at in range(12)]
    path = tmp_path / "told.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{at}:", "text": one}) + "\n" for at, one in enumerate(words)))
    inner = generating.Writing.write

    def write(self: Any, agent: Any, asked: Any, rows: int) -> Any:
        encode = self._encoder.tokenizer
        texts = inner(self, agent, asked, rows)
        said = [encode(words[(one.sample + 1) % 12] + " and so on")["input_ids"] for one in asked]
        return [(ids[:before] + own, before) for (ids, before), own in zip(texts, said, strict=True)]

    monkeypatch.setattr(generating.Writing, "write", write)
    fields = mesh(refresh="once", generated_by="t")
    fields |= {
        "data": {"dataset": {"text": {"path": str(path), "prompt": "prompt"}}, "test": 3, "validation": 2},
        "text": {"max_length": 256},
    }
    for agent in fields["agents"].values():
        agent["model"]["hf"] |= {"max_length": 256}
        agent["model"]["hf"]["config"]["max_position_embeddings"] = 256
    run(fields, out=tmp_path / "runs")
    (folder,) = (tmp_path / "runs").glob("*/*")
    held = examine(make_plan(parse(fields), registry())).streams
    tally, lines = told(folder)
    for line in lines:
        said = (line["sample"] + 1) % 12
        names = [name for name in ("test", "validation") if said in held[name].rows.tolist()]
        assert line["dropped"] == (f"near {names[0]}" if names else None)
    assert sum(tally["dropped"].values()) == sum(not line["kept"] for line in lines) > 0


def test_a_written_stream_is_the_data_of_a_later_run(tmp_path: Path) -> None:
    run(MESHES["once"], out=tmp_path / "first")
    (folder,) = (tmp_path / "first").glob("*/*")
    tally, _ = told(folder)
    fields = {
        "task": "language_modelling",
        "data": {"dataset": {"written": {"path": str(folder / "streams" / "rollouts.jsonl")}}},
        "agents": {"a": {"model": MESHES["once"]["agents"]["s"]["model"]}},
        "train": SMALL,
    }
    found = examine(make_plan(parse(fields), registry()))
    assert 0 < len(found.table) <= tally["kept"]
    assert run(fields)["agents"]["a"]["updates"] > 0


def test_each_round_has_texts_of_its_own(tmp_path: Path) -> None:
    lines = [{"train": ["s", "u"], "steps": 7}]
    fields = {**mesh(refresh="round"), "program": [{"of": ["s", "u"], "repeat": 2, "do": lines}]}
    run(fields, out=tmp_path)
    (folder,) = tmp_path.glob("*/*")
    _, written = told(folder)
    assert [line["step"] for line in written] == [0] * 34 + [7] * 34  # batches of 5, one of 4 at an epoch's end
    assert [line["updates"] for line in written] == [0] * 34 + [7] * 34
    assert all(line["weights_sha256"] for line in written)
