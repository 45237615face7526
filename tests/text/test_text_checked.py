"""What a check knows of streams that agents write before a run does: writers, filters, templates and how is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_texts import architecture, model
from test_text_augmented import ASKED, FROZEN, HIDDEN
from test_text_augmented import mesh as classified
from test_text_rollouts import changed, mesh, other, sequence
from text_meshes import bert
from text_runs import told as lines_of

from kdmesh.engine.check import check, examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.filters import Answer, WrittenText
from kdmesh.graph.planner import make_plan
from kdmesh.graph.roles import roles
from kdmesh.plugins import registry
from kdmesh.report.drawing.words import agents
from kdmesh.spec.read import parse, read_mesh
from kdmesh.streams.texts import Sample
from kdmesh.text.views import STEPS, PromptView

LM = "language_modelling"
BERT = {"model": bert(8, vocabulary=None)}
NOTHING = "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}{{ prompt }}"
HIDES = {"data": {"dataset": {"sums": {"below": 8}}, "train": 24, "transfer": 9}}
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    (other("t", **BERT), "agents.t.model.hf.config", "bert sees the tokens that it is to predict"),
    (other("s", **BERT), "agents.s.model.hf.config", "bert sees the tokens that it is to predict"),
    (
        classified({**BERT, "update": "frozen"}, template=ASKED),
        "agents.w.model.hf.config",
        "bert sees the tokens that it is to predict",
    ),
    (
        other("s", view={"prompt": NOTHING}),
        "agents.s.view.prompt",
        "s cannot be asked: 5+6: the template fails: it takes more than 1,000,000 steps",
    ),
    (
        classified(FROZEN, template=NOTHING),
        "streams.rollouts.template",
        "the template fails: it takes more than 1,000,000 steps",
    ),
    (
        mesh(sampling={"max_new_tokens": 4, "top_k": 99}),
        "streams.rollouts.sampling.top_k",
        "drawing among the 99 likeliest has no effect",
    ),
    (
        classified(FROZEN, template="One more: ", sampling={"max_new_tokens": 8, "greedy": True}),
        "streams.rollouts.template",
        "w would write one text to every prompt",
    ),
    (
        changed(
            other("s", view={"prompt": "Add."}), streams=mesh(sampling={"max_new_tokens": 4, "greedy": True})["streams"]
        ),
        "agents.s.view.prompt",
        "s would write one text to every prompt",
    ),
    (
        {**HIDDEN, "streams": {"rollouts": {**HIDDEN["streams"]["rollouts"], "keep": ["answer"]}}},
        "streams.rollouts.keep.0",
        "compares with the class of a text, and 'rollouts' hides it",
    ),
    (
        {**mesh(prompts="transfer", keep=["answer"]), **HIDES},
        "streams.rollouts.keep.0",
        "'rollouts' hides what the data answer",
    ),
    (
        mesh(keep=["agreement"]),
        "streams.rollouts.keep.0",
        "compares the texts of a prompt, and one is written to each",
    ),
]


@pytest.mark.parametrize(("fields", "where", "what"), REFUSED, ids=[what for *_, what in REFUSED])
def test_what_no_run_could_do_is_refused(fields: dict[str, Any], where: str, what: str) -> None:
    with pytest.raises(MeshError) as caught:
        examine(make_plan(parse(fields), registry()))
    assert caught.value.where == where and what in caught.value.what and caught.value.instead


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_model_without_memory_is_known_to_see_what_it_predicts(kind: str, device: str) -> None:
    state = torch.get_rng_state()
    with torch.device(device), pytest.raises(MeshError) as caught:
        model(LM, config=architecture(kind))
    assert caught.value.what == f"{kind} sees the tokens that it is to predict"
    torch.set_rng_state(state)
    with torch.device(device):
        assert model(LM, config=architecture(kind, is_decoder=True)).net.config.is_decoder


def test_a_model_without_memory_draws_nothing() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    with torch.device("meta"):
        model(LM, config=architecture("llama"))
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_right_answer_of_a_text_that_is_classified_is_its_class(tmp_path: Path) -> None:
    one = WrittenText(0, 0, "p", "so it is odd", 4, True, given="seventeen", label="odd")
    assert one.known == "odd" and WrittenText(0, 0, "p", "x", 1, True, given="seventeen").known == "seventeen"
    assert Answer("odd|even", None, False).keep([one, one.__class__(0, 0, "p", "even", 1, True, label="odd")]) == [
        True,
        False,
    ]
    keep = [{"answer": {"pattern": "[eo]"}}, "length"]
    fields = classified(FROZEN, template=ASKED, sampling={"max_new_tokens": 8, "samples": 6}, keep=keep)
    fields["agents"] = {name: fields["agents"][name] for name in ("w", "s")}
    fields["flows"] = [{"from": "labels", "to": "s", "objective": "ce", "stream": "rollouts"}]
    run_once(Request(parse(fields), "inline", out=tmp_path))
    (folder,) = tmp_path.glob("*/*")
    _, lines = lines_of(folder)
    last = {"even": "e", "odd": "o"}
    assert {line["kept"] for line in lines} == {True, False}
    for line in lines:
        said = [sign for sign in line["text"] if sign in "eo"]
        assert line["kept"] == (said[-1:] == [last[line["label"]]])


def test_a_constant_prompt_is_said_and_one_string_stops() -> None:
    fields = other("s", view={"prompt": "Add."})
    fields["streams"]["rollouts"]["sampling"]["stop"] = "9"
    plan = make_plan(parse(fields), registry())
    sampling = plan.spec.streams["rollouts"].sampling
    assert sampling is not None and sampling.stop == ["9"]
    said = check(plan)
    assert "note: agents.s.view.prompt names nothing of a sample: every prompt is the same" in said


def test_signs_of_a_template_that_its_agent_does_not_know_are_counted() -> None:
    """A tokenizer that is made of the data's sums has no letters: such a judge reads nothing of what it is asked."""
    fields = mesh()
    first = fields["streams"]["rollouts"]
    judge = {**first, "generated_by": "t", "reads": {"a": "rollouts"}, "template": "Is {{ prompt }}{{ a.text }} right?"}
    fields["streams"] = {"rollouts": first, "judge": judge}
    fields["flows"] = [*fields["flows"], {"from": "labels", "to": "u", "stream": "judge", "objective": "ce"}]
    found = examine(make_plan(parse(fields), registry()))
    prompt = found.table.x[int(found.streams["judge"].rows[0])]
    (told,) = (note for note in found.notes if note.startswith("streams.judge.template: "))
    unknown, whole = len("Is  right?"), 1 + len("Is  right?") + len(prompt.asks())  # one begins every text
    assert f"{unknown} of the {whole} tokens that t is asked of {prompt.at}" in told
    assert told.endswith("beside what it reads, are unknown to its tokenizer")


def test_data_of_one_sample_are_checked(tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text('{"q": "1+1=", "a": "2"}\n', encoding="utf-8")
    data = {"dataset": {"text": {"path": str(tmp_path / "one.jsonl"), "prompt": "q", "text": "a"}}}
    fields = {"task": LM, "data": {**data, "validation": 0, "test": 0}, "agents": {"s": mesh()["agents"]["s"]}}
    assert check(make_plan(parse(fields), registry()))[-1] == "everything fits"


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}", "steps"),
        ("{% for i in range(99999) %}{{ range(99999) | sum and '' }}{% endfor %}", "steps"),
        ("{% for i in range(99999) | map('string') %}{% for j in range(99999) | map('string') %}{% endfor %}"
         "{% endfor %}", "steps"),
        ("{% set ns = namespace(x='aa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}", "steps"),
        ("{% set ns = namespace(x='aa') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", "steps"),
        ("\ud800{{ prompt }}", "surrogates not allowed"),
        ("{{ prompt.strip }}", "strip is called with parentheses"),
        ("{{ a }}", "it would write has parts: name one, text"),
        ("{{ [1, 2] | random }}", "No filter named 'random'"),
        ("{{ lipsum() }}", "'lipsum' is undefined"),
    ],
)  # fmt: skip
def test_a_template_is_bounded_and_draws_nothing(template: str, what: str) -> None:
    with pytest.raises(MeshError, match=what) as caught:
        PromptView(template, "streams.x.template")(
            Sample("4", prompt="2+2=", at="f.jsonl, line 3"), {"a": {"text": ""}}
        )
    assert caught.value.where == "streams.x.template"


def test_a_template_may_loop_over_what_there_is() -> None:
    template = (
        "{% for word in prompt.split() %}{{ loop.index }}/{{ loop.length }}{{ ',' if not loop.last }}{% endfor %}"
        "{{ other | default('-') }}{% for i in range(99999) %}{% endfor %}{{ a.text | upper }}"
    )
    view, sample = PromptView(template, "streams.x.template"), Sample("4", prompt="add two", at="f.jsonl, line 3")
    for _ in range(3):  # each prompt has as many steps
        assert view(sample, {"a": {"text": "so"}}).prompt == "1/2,2/2-SO"
    assert view.names == {"prompt", "other", "a"} and STEPS > 3 * 99999


def test_roles_say_who_writes_and_who_learns_what_is_written() -> None:
    def of(name: str) -> dict[str, str]:
        return roles(make_plan(read_mesh(name), registry()))

    assert of("sequence-level") == {"teacher": "writer", "student": "student"}
    assert of("on-policy") == {"teacher": "teacher", "student": "student"}
    assert of("augment") == {"writer": "writer", "a": "alone", "b": "alone", "student": "student"}
    assert of("debate") == {**dict.fromkeys("abc", "writer"), "student": "student"} | {
        f"{one}.told": "alone" for one in "abc"
    }
    assert of("star")["student.r1"] == "assistant"
    own = sequence()
    own["agents"], own["streams"]["rollouts"] = {"s": own["agents"]["s"]}, {
        **own["streams"]["rollouts"], "generated_by": "s", "refresh": "step"}  # fmt: skip
    own["flows"] = [{"from": "labels", "to": "s", "objective": "ce", "stream": "rollouts"}]
    assert roles(make_plan(parse(own), registry())) == {"s": "alone"}
    told = agents(make_plan(parse({**mesh(), "streams": {**mesh()["streams"], "more": mesh()["streams"]["rollouts"]}}),
                            registry()), {})  # fmt: skip
    assert told["s"]["stream"] == "writes rollouts, more"
