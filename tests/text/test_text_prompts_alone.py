"""Data whose samples are prompts that nothing answers: agents write the answers; what needs the data's is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_text_rollouts import calls, outcome  # noqa: F401  calls is a fixture
from text_meshes import llama
from text_runs import run

import kdmesh
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError
from kdmesh.filters import WrittenText
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SUMS = [(one, other) for one in range(6) for other in range(4)]


def even(text: WrittenText) -> float:
    """A verifier that needs no answer of the data."""
    return float(len(text.text) % 2 == 0)


def put(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def prompts(folder: Path, **columns: str) -> str:
    """Sums as prompts, with what a template makes of both numbers in further columns."""
    rows = [
        {"prompt": f"{one}+{other}=", **{name: made.format(one, other) for name, made in columns.items()}}
        for one, other in SUMS
    ]
    return put(folder / "prompts.jsonl", rows)


def mesh(folder: Path, **more: Any) -> dict[str, Any]:
    """A student that is taught on what it writes to prompts alone, and tested on sums with answers."""
    test = put(folder / "test.jsonl", [{"prompt": f"{n}+1=", "text": str(n), "hint": "0"} for n in range(4)])
    path = prompts(folder, hint="{1}")
    sampling = {"max_new_tokens": 3}
    return {
        "task": "language_modelling",
        "data": {"dataset": {"text": {"path": path, "prompt": "prompt", "test_path": test}}, "validation": 0},
        "agents": {
            "t": {"model": llama(16, vocabulary=None), "update": "frozen"},
            "s": {"model": llama(8, vocabulary=None)},
        },
        "streams": {"rollouts": {"generated_by": "s", "prompts": "train", "sampling": sampling}},
        "flows": [{"from": "t", "to": "s", "stream": "rollouts", "objective": "reverse_kl"}],
        "metrics": ["exact_match"],
        "text": {"decoding": {"max_new_tokens": 3}},
        "train": {"epochs": 2, "batch_size": 5, "optimizer": {"adamw": {"lr": 3e-3}}},
        "placement": "together",
        **more,
    }


def unanswered(folder: Path, **more: Any) -> dict[str, Any]:
    """The same where validation and test are prompts alone, too, and a verifier judges what is written."""
    data = {"dataset": {"text": {"path": prompts(folder), "prompt": "prompt"}}, "validation": 4, "test": 4}
    verifier = {"verifier": {"path": f"{__name__}:even"}}
    return mesh(folder, data=data, metrics=[verifier], primary="verifier", **more)


def sequence(folder: Path) -> dict[str, Any]:
    """A frozen teacher answers each prompt twice, and the student learns what it writes."""
    fields = mesh(folder)
    stream = {"generated_by": "t", "refresh": "once", "sampling": {"max_new_tokens": 3, "samples": 2}}
    fields["streams"]["rollouts"] |= {**stream, "keep": ["dedup"]}
    return {**fields, "flows": [{"from": "labels", "to": "s", "objective": "ce", "stream": "rollouts"}]}


def told(folder: Path) -> dict[str, Any]:
    """A student that is taught by itself, told a hint that stands in a column."""
    fields = mesh(folder)
    fields["agents"]["h"] = {"weights_of": "s", "view": {"prompt": "{{ prompt }}{{ hint }}"}}
    return {**fields, "flows": [*fields["flows"], {**fields["flows"][0], "from": "h", "objective": "jsd"}]}


@pytest.mark.parametrize("make", [mesh, unanswered, sequence, told])
def test_bits_depend_neither_on_hosts_nor_on_breaks(
    make: Any,
    tmp_path: Path,
    calls: dict[str, int],  # noqa: F811
) -> None:
    fields = make(tmp_path)
    expected, whole = outcome(fields), calls["made"]
    calls.update(made=0, last=whole * 2 // 3 + 1)
    with pytest.raises(KeyboardInterrupt):
        outcome(fields, "spread", out=tmp_path / "runs")
    calls.update(made=0, last=0)
    (folder,) = (tmp_path / "runs").glob("*/*")
    assert outcome(fields, "spread", resume=folder) == expected


def test_answers_that_nothing_reads_change_no_bit(tmp_path: Path) -> None:
    fields = mesh(tmp_path)
    without = run(fields)
    prompts(tmp_path, text="{1}", hint="{1}")
    assert run(fields)["agents"]["s"]["weights_sha256"] == without["agents"]["s"]["weights_sha256"]


def test_what_is_written_to_prompts_alone_is_measured_by_a_verifier(tmp_path: Path) -> None:
    summary = run(unanswered(tmp_path))
    for agent in "ts":
        for split in ("validation", "test"):
            figures = summary["agents"][agent]["metrics"][split]
            assert set(figures) == {"verifier", "texts"} and 0 <= figures["verifier"] <= 1
            assert all(one["given"] == "" for one in figures["texts"])
    assert any("the samples of test are prompts alone" in note for note in summary["notes"])


def test_a_whole_run_of_chats_that_wait_for_an_answer(tmp_path: Path) -> None:
    from small_texts import architecture, bpe

    made = bpe()
    made.chat_template = TEMPLATE
    made.save_pretrained(tmp_path / "tokenizer")
    ask, said = {"role": "user", "content": "who?"}, {"role": "assistant", "content": "the cat"}
    chats = [[ask], [ask, said, {"role": "user", "content": "now?"}]] * 8
    train = put(tmp_path / "train.jsonl", [{"messages": chat} for chat in chats])
    test = put(tmp_path / "answered.jsonl", [{"messages": [ask, said]}] * 4)
    model = {"hf": {"config": architecture("gpt2"), "tokenizer": str(tmp_path / "tokenizer"), "max_length": 48}}
    fields = mesh(tmp_path, agents={"t": {"model": model, "update": "frozen"}, "s": {"model": model}})
    fields["data"] = {"dataset": {"text": {"path": train, "messages": "messages", "test_path": test}}, "validation": 0}
    result = kdmesh.Mesh(**fields).run(backend="inline", out=tmp_path / "runs")
    lines = [json.loads(line) for line in (result.folder / "streams" / "rollouts.jsonl").read_text().splitlines()]
    assert len(lines) == 32 and {line["prompt"] for line in lines} == {
        "who?\n",
        "who?\nthe cat\nnow?\n",
    }
    assert "exact_match" in result.summary["agents"]["s"]["metrics"]["test"]


def changed(folder: Path, **stream: Any) -> dict[str, Any]:
    fields = mesh(folder)
    fields["streams"]["rollouts"] |= stream
    return fields


def taught(folder: Path, **flow: Any) -> dict[str, Any]:
    fields = mesh(folder)
    return {**fields, "flows": [*fields["flows"], {"to": "s", **flow}]}


def viewed(folder: Path) -> dict[str, Any]:
    fields = mesh(folder)
    fields["agents"]["t"]["view"] = {"prompt": "{{ prompt }}{{ text }}"}
    return fields


def measured(folder: Path, *without: str, **more: Any) -> dict[str, Any]:
    fields = unanswered(folder)
    return {name: value for name, value in {**fields, **more}.items() if name not in without}


def stopped(folder: Path) -> dict[str, Any]:
    fields = unanswered(folder)
    return {**fields, "train": {**fields["train"], "early_stopping": {"patience": 1, "metric": "loss"}}}


ALONE = "prompts alone, which the data do not answer"
REFUSED: list[tuple[Any, str, str, str]] = [
    (
        lambda f: taught(f, **{"from": "labels", "objective": "ce"}),
        "flows.1",
        f"on 'train': its 24 samples are {ALONE}",
        "{generated_by: AGENT, prompts: train}",
    ),
    (lambda f: taught(f, **{"from": "t", "objective": "kl"}), "flows.1", "nothing to learn on 'train'", "prompts: tr"),
    (lambda f: changed(f, mix={"of": "train", "share": 0.5}), "streams.rollouts.mix.of", ALONE, "or no `mix`"),
    (lambda f: changed(f, keep=["answer"]), "streams.rollouts.keep.0", "prompts.jsonl, line", ""),
    (lambda f: changed(f, template="{{ text }}"), "streams.rollouts.template", "line 1: the template fails: 'text'",
     "hint, prompt (the data answer nothing)"),
    (viewed, "agents.t.view.prompt", "prompts.jsonl, line 1: the template fails: 'text' is undefined", "hint, prompt"),
    (lambda f: measured(f, "primary"), "data.validation", "bits_per_character compares with what the data answer",
     "validation_path: a file with answers"),
    (lambda f: measured(f, primary="perplexity"), "primary", "the samples of 'validation' are", "{validation: 0}"),
    (lambda f: measured(f, "primary", data={**unanswered(f)["data"], "validation": 0}), "data.test",
     "the samples of 'test' are", "test_path: a file with answers"),
    (lambda f: measured(f, metrics=["repetition", "exact_match"], primary="answer_length"), "metrics.1",
     "exact_match compares with what", "as verifier"),
    (lambda f: measured(f, metrics=["perplexity"], primary="answer_length"), "metrics.0", "perplexity compares",
     "verifier"),
    (stopped, "train.early_stopping.metric", "loss compares with what the data answer", "validation_path"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "where", "what", "instead"), REFUSED, ids=[what for _, _, what, _ in REFUSED])
def test_what_needs_an_answer_is_refused_with_stream_and_field(
    make: Any, where: str, what: str, instead: str, tmp_path: Path
) -> None:
    with pytest.raises(MeshError) as caught:
        examine(make_plan(parse(make(tmp_path)), registry()))
    assert caught.value.where == where and what in caught.value.what and instead in caught.value.instead


def test_the_short_form_says_the_same(tmp_path: Path) -> None:
    fields = mesh(tmp_path)
    del fields["flows"], fields["streams"]
    fields["connect"] = [{"ensemble": {"teachers": "t", "student": "s", "labels": 0.5}}]
    with pytest.raises(MeshError, match=ALONE) as caught:
        examine(make_plan(parse(fields), registry()))
    assert caught.value.where == "connect.0.ensemble"


def test_chats_without_a_template_name_agent_and_sample(tmp_path: Path) -> None:
    fields = mesh(tmp_path)
    path = put(tmp_path / "chats.jsonl", [{"messages": [{"role": "user", "content": "1+1="}]}] * 6)
    fields["data"] = {"dataset": {"text": {"path": path, "messages": "messages"}}, "validation": 0, "test": 0}
    del fields["metrics"], fields["text"]
    with pytest.raises(MeshError, match=r"chats.jsonl, line 1, field 'messages': .* no chat template") as caught:
        examine(make_plan(parse(fields), registry()))
    assert caught.value.where == "agents.t"


METRIC = {"best_of": {"metric": "numeric_answer", "least": 1}}


def chosen(fields: dict[str, Any], rule: dict[str, Any]) -> dict[str, Any]:
    """The student learns the best of two texts of the teacher's."""
    how = {"generated_by": "t", "prompts": "train", "refresh": "once", "sampling": {"max_new_tokens": 3}}
    streams = {"one": how, "other": how, "rollouts": {"consensus_of": ["one", "other"], "rule": rule}}
    flows = [{"from": "labels", "to": "s", "stream": "rollouts", "objective": "ce"}]
    return {**fields, "streams": streams, "flows": flows}


def test_a_rule_does_not_score_by_answers_that_there_are_not(tmp_path: Path) -> None:
    what = "has no answer, and the metric of rule 'best_of' compares with it"
    with pytest.raises(MeshError, match=what) as caught:
        examine(make_plan(parse(chosen(mesh(tmp_path), METRIC)), registry()))
    assert caught.value.where == "streams.rollouts.rule.best_of.metric" and "verifier" in caught.value.instead
    examine(
        make_plan(parse(chosen(mesh(tmp_path), {"best_of": {"metric": {"pattern": {"match": "[0-4]"}}}})), registry())
    )


@pytest.mark.parametrize(("name", "where"), [("other", "other.labels"), ("rollouts", "rollouts.rule.best_of.metric")])
def test_a_rule_does_not_score_by_answers_that_are_hidden(name: str, where: str, tmp_path: Path) -> None:
    data = {"dataset": {"sums": {"below": 5}}, "train": 12}
    fields = chosen({**mesh(tmp_path), "data": data}, METRIC)
    examine(make_plan(parse(fields), registry()))
    fields["streams"][name] = {**fields["streams"][name], "labels": False}
    fields["flows"] = [{"from": "t", "to": "s", "stream": "rollouts", "objective": "kl"}]
    with pytest.raises(MeshError, match=f"'{name}' hides what the data answer, and the metric of") as caught:
        examine(make_plan(parse(fields), registry()))
    assert caught.value.where == f"streams.{where}"
