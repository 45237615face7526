"""Debate and STaR: what the strategies draw, what is measured beside them, and that their topologies run."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from test_text_rollouts import mesh
from text_meshes import llama

from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.measured_texts import cost
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.graph.draw import draw
from kdmesh.graph.planner import make_plan
from kdmesh.graph.roles import roles
from kdmesh.plugins import registry
from kdmesh.report.measured_texts import best_agent, texts_table
from kdmesh.spec.read import parse, read_mesh
from kdmesh.tasks import metric

HINT = "{{ text }}={{ prompt }}"


def debate(**settings: Any) -> dict[str, Any]:
    """Two frozen agents and a student that debates with them and learns the vote."""
    given = {
        "debaters": ["t", "u", "s"], "student": "s", "template": "{{ others }}={{ prompt }}", "between": ";",
        "rule": {"vote": {"pattern": "[0-9]", "ties": "first"}}, "sampling": {"max_new_tokens": 3}, "refresh": "epoch",
    }  # fmt: skip
    fields = {**mesh(), "connect": [{"debate": {**given, **settings}}], "metrics": ["exact_match"]}
    agents = {**fields["agents"], "u": {"model": llama(8, 2, vocabulary=None), "update": "frozen"}}
    return {
        **{key: value for key, value in fields.items() if key not in ("streams", "flows")},
        "agents": agents,
        "data": {"dataset": {"sums": {"below": 5}}, "train": 12, "validation": 4},
        "text": {"decoding": {"max_new_tokens": 3}},
    }


def test_it_draws_rounds_in_which_each_reads_the_others() -> None:
    long = draw(parse(debate(rounds=2, roles={"u": "Be brief. "}, template="{{ own.text }}{{ others }}={{ prompt }}")),
                registry())  # fmt: skip
    streams = long.streams
    assert [name for name in streams if name.count(".") == 2 and "draws" not in name and "self" not in name] == [
        f"debate.{turn}.{name}" for turn in range(3) for name in "tus"
    ]
    one = streams["debate.2.u"]
    assert one.reads == {"own": "debate.1.u", "other_1": "debate.1.t", "other_2": "debate.1.s"}
    assert one.template == "Be brief. {{ own.text }}{{ other_1.text }};{{ other_2.text }}={{ prompt }}"
    assert streams["debate.0.u"].template == "Be brief. {{ prompt }}" and streams["debate.0.t"].template is None
    assert streams["debate"].consensus_of == ["debate.2.t", "debate.2.u", "debate.2.s"]
    assert {flow.stream for flow in long.flows} == {"debate"}


PAIRS = {"teach": "pairs", "pairs": "vote", "reference": "t", "objective": "kl"}


def test_pairs_are_of_all_that_was_said_and_compared_with_a_reference() -> None:
    spec = draw(parse(debate(**PAIRS)), registry())
    last = spec.streams["debate"]
    assert last.consensus_of == [f"debate.{turn}.{name}" for turn in range(2) for name in "tus"]
    assert last.pairs is True and last.rule is not None and last.rule.name == "vote" and not last.measured
    (flow,) = spec.flows
    assert (flow.from_, flow.to, flow.stream) == (["t"], ["s"], "debate")
    measured = [name for name, one in spec.streams.items() if one.measured]
    assert measured == ["debate.answer", "debate.vote", *(f"debate.self.{name}" for name in "tus")]
    closing = spec.streams["debate.answer"].rule
    assert closing is not None and closing.config == {"pattern": "[0-9]", "ties": "first"}
    plan = make_plan(parse(debate(**PAIRS)), registry())
    assert roles(plan) == {"t": "teacher", "u": "writer", "s": "student"}
    alone = draw(parse({**debate(**PAIRS, rule=None), "metrics": [], "text": {}}), registry())
    assert not any("answer" in name or one.measured for name, one in alone.streams.items())


def test_the_winning_side_is_chosen_over_what_dissents(tmp_path: Path) -> None:
    fields = {**debate(**{**PAIRS, "pairs": {"vote": {"pattern": "[0-9]"}}}, rule=None), "metrics": [], "text": {}}
    summary, folder, _ = run_once(Request(parse(fields), "inline", out=tmp_path))
    tally = summary["streams"]["debate"]
    assert tally["kept"] and summary["agents"]["s"]["updates"] > 0
    every = [f"debate.{turn}.{name}" for turn in range(2) for name in "tus"]
    files = {name: (folder.root / "streams" / f"{name}.jsonl").read_text().splitlines() for name in (*every, "debate")}
    lines = {name: [json.loads(line) for line in file] for name, file in files.items()}
    said = {(one["step"], one["sample"], name): one["text"] for name in every for one in lines[name]}
    for line in (line for line in lines["debate"] if line["kept"]):
        texts = {name: said[line["step"], line["sample"], name] for name in every}
        answers = {name: one[-1] for name, text in texts.items() if (one := re.findall("[0-9]", text))}
        won, *others = Counter(answers.values()).most_common()
        assert others and won[1] > others[0][1] and line["consensus"]["answer"] == won[0]
        for side, first in (("from", True), ("rejected", False)):
            of = next(name for name, answer in answers.items() if (answer == won[0]) is first)
            assert line["consensus"][side]["stream"] == of
        assert (line["text"], line["consensus"]["rejected"]["text"]) == tuple(
            texts[line["consensus"][side]["stream"]] for side in ("from", "rejected")
        )


def test_a_transcript_is_all_that_was_said_and_what_the_vote_chose(tmp_path: Path) -> None:
    fields = {**debate(teach="transcript", between="="), "metrics": [], "text": {}}
    summary, folder, _ = run_once(Request(parse(fields), "inline", out=tmp_path))
    parts = [*(f"debate.{turn}.{name}" for turn in range(2) for name in "tus"), "debate.answer"]
    files = {name: folder.root / "streams" / f"{name}.jsonl" for name in (*parts, "debate")}
    lines = {name: [json.loads(line) for line in file.read_text().splitlines()] for name, file in files.items()}
    said = {name: {(one["step"], one["sample"]): one["text"] for one in lines[name]} for name in parts}
    for line in lines["debate"]:
        texts = [said[name][line["step"], line["sample"]] for name in parts]
        if texts[-1]:
            assert line["kept"] and line["text"] == "=".join(text for text in texts if text)
        else:
            assert line["dropped"] == "no last text"
    assert summary["streams"]["debate"]["kept"] > 0 and summary["agents"]["s"]["updates"] > 0


def test_it_is_compared_at_equal_cost() -> None:
    spec = draw(parse(debate(rounds=2)), registry())
    measured = [name for name, one in spec.streams.items() if one.measured]
    assert measured == ["debate", "debate.vote", *(f"debate.self.{name}" for name in "tus")]
    assert [cost(spec, name) for name in measured] == [9, 3, 9, 9, 9]
    greedy = draw(parse(debate(sampling={"greedy": True, "max_new_tokens": 3})), registry())
    drawn = greedy.streams["debate.draws.t"].sampling
    assert drawn is not None and not drawn.greedy and drawn.samples == 6
    without = draw(parse({**debate(), "metrics": [], "text": {}}), registry())
    assert not any(one.measured for one in without.streams.values()) and "debate.vote" not in without.streams


def alone(**streams: Any) -> dict[str, Any]:
    """Streams that are measured, and a student that learns the data."""
    how = {"prompts": "train", "sampling": {"max_new_tokens": 3, "greedy": True}, "refresh": "once"}
    fields = debate()
    del fields["connect"]
    made = {name: {**how, "generated_by": name, "measured": True} for name in "tu"}
    return {
        **fields,
        "streams": {
            **{f"{name}_says": one for name, one in made.items()},
            "drawn": {**how, "generated_by": "t", "sampling": {"max_new_tokens": 3, "samples": 3}, "measured": True},
            "again": {**how, "generated_by": "u", "reads": {"a": "t_says", "b": "drawn"}, "measured": True,
                      "template": "{{ a.text }}{% for one in b.texts %}{{ one }}{% endfor %}{{ prompt }}"},
            "agreed": {"consensus_of": ["t_says", "drawn", "again"], "rule": {"vote": {"pattern": "[0-9]"}},
                       "measured": True},
            "best": {"consensus_of": ["t_says", "u_says"], "rule": {"best_of": {"metric": "exact_match"}},
                     "measured": True},
            **streams,
        },
        "flows": [{"from": "labels", "to": "s", "objective": "ce"}],
        "data": {"dataset": {"sums": {"below": 4}}, "train": 6, "validation": 3},
    }  # fmt: skip


def test_what_is_measured_is_what_agents_say_and_what_a_count_says() -> None:
    found = {}
    for placement in ("together", "spread"):
        summary = run_once(Request(parse({**alone(), "placement": placement}), "inline"))[0]
        found[placement] = summary["texts"]
    assert found["together"] == found["spread"]
    texts, agents = found["together"], summary["agents"]
    assert texts["agreed"]["cost"] == 5 and texts["agreed"]["writers"] == ["t", "u"]
    assert texts["best"]["oracle"] and "oracle" not in texts["agreed"]
    for split in ("validation", "test"):
        for name in "tu":
            own, said = agents[name]["metrics"][split], texts[f"{name}_says"][split]
            assert (said["exact_match"], said["texts"]) == (own["exact_match"], own["texts"])
        parts = [texts[name][split]["texts"] for name in ("t_says", "again")]
        for number, agreed in enumerate(texts["agreed"][split]["texts"]):  # three prompts: all are shown
            answers = [[one for one in part[number]["text"] if one.isdigit()][-1:] for part in parts]
            if agreed["text"]:
                assert any(agreed["text"] for _ in answers)
            assert agreed["given"] == parts[0][number]["given"]
        assert (
            texts["agreed"][split]["answered"] == sum(bool(one["text"]) for one in texts["agreed"][split]["texts"]) / 3
        )
    lines = "\n".join(texts_table([summary]).lines(80))  # type: ignore[union-attr]
    assert "agreed" in lines and "oracle" in lines and "minus" in lines
    assert all(len(line) <= 80 for line in lines.splitlines())


def test_the_best_agent_is_so_by_validation() -> None:
    def agent(validation: float, test: float) -> dict[str, Any]:
        return {"metrics": {"validation": {"exact_match": validation}, "test": {"exact_match": test}}}

    summary = {"agents": {"a": agent(0.5, 0.1), "b": agent(0.4, 0.9), "c": agent(0.5, 0.3)}}
    assert best_agent(["b", "c", "a"], summary, metric("exact_match")) == "c"
    assert best_agent(["d"], summary, metric("exact_match")) is None


REFUSED = [
    (debate(debaters=["t"]), "connect.0.debate.debaters", "debates with nobody"),
    (debate(template="{{ prompt }}"), "connect.0.debate.template", "the others' answers stand"),
    (debate(roles={"x": "y"}), "connect.0.debate.roles", "'x' is no debater"),
    (debate(sampling={"samples": 2}), "connect.0.debate.sampling.samples", "one text a round"),
    (debate(practice="{{ prompt }}"), "connect.0.debate.practice", "no debater learns"),
    (debate(rule="median"), "connect.0.debate.rule", "median"),
    (debate(teach="pairs"), "connect.0.debate.pairs", "`teach: pairs` needs `pairs`"),
    (debate(reference="t"), "connect.0.debate.reference", "`reference` is for `teach: pairs`"),
    (debate(**{**PAIRS, "objective": None}), "connect.0.debate.objective", "`teach: pairs` needs `objective`"),
    (debate(**{**PAIRS, "reference": "x"}), "connect.0.debate.reference", "unknown agent 'x'"),
    (debate(**{**PAIRS, "pairs": "joined"}), "connect.0.debate.pairs", "rejects none of the texts"),
    ({**debate(**PAIRS), "metrics": [], "text": {}}, "connect.0.debate.rule", "nothing is measured"),
    (debate(**{**PAIRS, "reference": "s"}), "connect.0.debate.reference", "compared with itself"),
    (debate(**{**PAIRS, "pairs": {"best_of": {"verdict": "x"}}, "debaters": ["t", "u"]}),
     "connect.0.debate.pairs.best_of.verdict", "the stream reads none"),
    (debate(rule={"best_of": {"verdict": "x"}}), "connect.0.debate.rule.best_of.verdict", "the stream reads none"),
    (debate(keep=[{"answer": {"column": "nope"}}]), "connect.0.debate.keep.0.answer.column", "no column 'nope'"),
    (debate(sampling={"max_new_tokens": 40}), "connect.0.debate.sampling.max_new_tokens", "more than the 48"),
    ({**alone(), "metrics": [], "text": {}}, "streams.t_says.measured", "no metric of this mesh is of written texts"),
    (alone(few={"size": 3, "measured": True}), "streams.few.measured", "has no prompts to answer"),
    ({**alone(few={"of": "transfer", "private": True}), "data": {**alone()["data"], "transfer": 2}},
     "streams.t_says.measured", "'few' is private"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "where", "what"), REFUSED, ids=[what for *_, what in REFUSED])
def test_what_cannot_be_is_refused(fields: dict[str, Any], where: str, what: str) -> None:
    with pytest.raises(MeshError) as caught:
        examine(make_plan(parse(fields), registry()))
    assert caught.value.where == where and what in caught.value.what and caught.value.instead


def test_students_that_debate_anew_each_epoch_are_measured_beside_too() -> None:
    """What a debater votes with itself is written at the end alone: its many draws are no matter of epochs."""
    summary = run_once(Request(parse(debate()), "inline"))[0]
    assert summary["streams"]["debate"]["kept"] > 0
    measured = {"debate", "debate.vote", *(f"debate.self.{one}" for one in "tus")}
    assert {*summary["texts"]} == measured and all(one["validation"] for one in summary["texts"].values())


def test_star_starts_from_its_base_and_asks_with_a_hint() -> None:
    fields = read_mesh("star").dump()
    spec = draw(parse(fields), registry())
    assert list(spec.agents) == [
        "student", "student.hinted", "student.r1", "student.r1.hinted", "student.r2"
    ]  # fmt: skip
    assert spec.agents["student.r2"].init_of == "student"
    assert spec.streams["star.2"].consensus_of == ["star.2.own", "star.2.hinted"]
    assert spec.streams["star.2.hinted"].generated_by == "student.r1.hinted"
    with pytest.raises(MeshError, match="nothing to choose from"):
        make_plan(parse({**fields, "connect": [{"star": {"student": "student"}}]}), registry())


@pytest.mark.parametrize("name", ["debate", "star"])
def test_bundled_meshes_run(name: str) -> None:
    fields = read_mesh(name).dump()
    fields["data"] = {"dataset": {"sums": {"below": 8}}, "validation": 6}
    fields["train"]["epochs"] = 6
    fields["streams"] = {"few": {"size": 16}} if name == "star" else {}
    summary = run_once(Request(parse(fields), "inline"))[0]
    tallies = summary["streams"]
    if name == "debate":
        assert tallies["debate"]["kept"] > 0 and {*summary["texts"]} == {
            "debate", "debate.vote", *(f"debate.self.{one}" for one in "abc")
        }  # fmt: skip
        assert "debate.draws.a" not in tallies  # is written where it is measured, and nowhere else
        return
    why = Counter(tallies["star.1"]["dropped"])
    assert {*why} <= {"too low"} and tallies["star.1"]["written"] == 45 == tallies["star.1"]["kept"] + why.total()
