"""Who says nothing where several agents agree, and what is chosen then: writers and judges that are lost."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from test_text_rollouts import agreed, mesh
from text_meshes import llama
from text_runs import lines, run

from kdmesh.engine.check import examine
from kdmesh.errors import MeshError, RunFailed
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.generating import Writing
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

WRITES = {"prompts": "train", "refresh": "once", "sampling": {"max_new_tokens": 3}}


def council(**vote: Any) -> dict[str, Any]:
    """Three frozen agents answer once, and a student learns what a vote chooses."""
    streams: dict[str, Any] = {f"of_{name}": {**WRITES, "generated_by": name} for name in "tuv"}
    rule = {"vote": {"pattern": "[0-9]", "ties": "first", **vote}}
    agents = {name: {"model": llama(8, number, vocabulary=None), "update": "frozen"} for number, name in
              enumerate("tuv", 1)}  # fmt: skip
    return {
        **mesh(),
        "agents": {**agents, "s": {"model": llama(8, vocabulary=None)}},
        "streams": {**streams, "agreed": {"consensus_of": [*streams], "rule": rule}},
        "flows": [{"from": "labels", "to": "s", "stream": "agreed", "objective": "ce"}],
        "train": {"steps": 2, "batch_size": 6, "optimizer": {"adamw": {"lr": 3e-3}}},
    }


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Agents that write nothing to any prompt."""
    who, inner = set[str](), Writing.write

    def write(self: Writing, agent: Any, asked: Any, rows: int) -> list[tuple[list[int], int]]:
        found = inner(self, agent, asked, rows)
        return [(ids[:before], before) for ids, before in found] if agent.name in who else found

    monkeypatch.setattr(Writing, "write", write)
    return who


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_a_writer_that_says_nothing_has_no_vote_and_counts(share: float, silent: set[str], tmp_path: Path) -> None:
    silent.add("u")
    summary = run(council(share=share), out=tmp_path)
    said = {name: {line["sample"]: line["text"] for line in lines(tmp_path, f"of_{name}")} for name in "tuv"}
    assert {*said["u"].values()} == {""}
    lost, broken = Counter[str](), 0
    for line in lines(tmp_path, "agreed"):
        answers = {name: "".join(re.findall("[0-9]", said[name][line["sample"]])[-1:]) for name in "tuv"}
        lost.update(f"no answer in of_{name}" for name, answer in answers.items() if not answer)
        votes = Counter(answer for answer in answers.values() if answer)
        most = max(votes.values(), default=0)
        enough = most >= share * 3 and most > 0
        assert bool(line["consensus"]["from"]) == enough and line["consensus"]["votes"] == votes
        assert line["dropped"] == (None if enough else "too few agree" if votes else "no answer")
        assert not enough or line["producer"] != "u"
        broken += enough and list(votes.values()).count(most) > 1
    assert lost["no answer in of_u"] == 24
    assert Counter(summary["streams"]["agreed"]["counted"]) == lost + Counter({"ties broken": broken})
    (note,) = [note for note in summary["notes"] if "rule 'vote' counted" in note]
    assert "no answer in of_u 24" in note


def test_where_all_writers_say_nothing_the_run_ends_by_name(silent: set[str]) -> None:
    silent |= {*"tuv"}
    with pytest.raises(RunFailed, match="none of 24 prompts has a text that rule 'vote' chose") as caught:
        run(council())
    assert caught.value.where == "streams.agreed" and "no answer 24" in caught.value.what


def test_filters_of_a_writer_say_what_is_learned_of_it_and_not_what_is_chosen(tmp_path: Path) -> None:
    """All of one's texts are dropped but for one, which is learned: they are chosen from as if none were."""
    fields = council()
    without = run(fields, out=tmp_path / "without")
    stream, flows = fields["streams"]["of_t"], fields["flows"]
    (first, *_) = [line for line in lines(tmp_path / "without", "of_t") if line["text"]]
    none = {"pattern": {"match": f"^{re.escape(first['text'])}$"}}
    fields["streams"] = {**fields["streams"], "of_t": {**stream, "keep": [none]}}
    with pytest.raises(MeshError, match="filters say what is learned") as refused:
        examine(make_plan(parse(fields), registry()))
    assert refused.value.where == "streams.of_t.keep"

    fields["flows"] = [*flows, {"from": "labels", "to": "s", "stream": "of_t", "objective": "ce"}]
    summary = run(fields, out=tmp_path / "kept")
    tally = summary["streams"]["of_t"]
    assert 0 < tally["kept"] < tally["written"] and tally["dropped"] == {"pattern": tally["written"] - tally["kept"]}
    assert summary["streams"]["agreed"] == without["streams"]["agreed"]
    chosen = [[one["text"] for one in lines(tmp_path / name, "agreed")] for name in ("without", "kept")]
    assert chosen[0] == chosen[1]

    fields["streams"]["of_t"] = {**stream, "keep": [{"pattern": {"match": "@@@"}}]}
    with pytest.raises(RunFailed, match="none of the 24 texts that t wrote is kept") as caught:
        run(fields)
    assert caught.value.where == "streams.of_t.keep"


def test_a_judge_that_answers_outside_its_form_chooses_none(tmp_path: Path) -> None:
    """What it judges is then silent in the vote that reads it, and the others decide."""
    fields = agreed()
    rule = {"best_of": {"verdict": "@(.)", "names": ["1", "2"]}}
    fields["streams"]["judged"] = {**fields["streams"]["judged"], "rule": rule}
    summary = run(fields, out=tmp_path)
    judged, agree = summary["streams"]["judged"], summary["streams"]["rollouts"]
    assert (judged["kept"], judged["dropped"]) == (0, {"no verdict": 48})
    assert judged["counted"] == {"verdicts outside the form in judge": 48}
    assert agree["counted"]["no text in judged"] == 48 and agree["kept"] > 0
    for line in lines(tmp_path, "judged"):
        assert (
            line["consensus"]["verdicts"] == [{"judge": "judge", "verdict": None, "text": None}] and line["text"] == ""
        )
    assert any("verdicts outside the form in judge 48" in note for note in summary["notes"])


@pytest.mark.parametrize("pairs", [False, True])
def test_where_a_rule_abstained_there_is_no_text_to_choose_or_reject(pairs: bool, tmp_path: Path) -> None:
    """Not even where it is the best, or the worst: it is no answer, and has no token to learn."""
    fields = council()
    streams = fields["streams"]
    best = {"best_of": {"metric": {"pattern": {"match": "[0-4]"}}}}
    streams["two"] = {"consensus_of": ["of_t", "of_u"], "rule": {"vote": {"pattern": "[0-9]"}}}
    streams["agreed"] = {"consensus_of": ["two", "of_v", "of_t"], "rule": best}
    if pairs:
        streams["agreed"]["pairs"] = True
        fields["flows"] = [{"from": "v", "to": "s", "stream": "agreed", "objective": "kl"}]
    summary = run(fields, out=tmp_path)
    two, tally = ({line["sample"]: line for line in lines(tmp_path, name)} for name in ("two", "agreed"))
    missing = {sample for sample, line in two.items() if line["dropped"]}
    assert 0 < len(missing) < 24
    for sample, line in tally.items():
        told = line["consensus"]
        if sample in missing:
            assert {told[name]["stream"] for name in ("from", "rejected") if name in told} <= {"of_t", "of_v"}
        assert line["text"] and ("rejected" in told or not pairs or line["dropped"] == "equally good")
    assert summary["streams"]["agreed"]["counted"]["no text in two"] == len(missing)


def test_a_panel_that_abstained_has_given_no_verdict(tmp_path: Path) -> None:
    """Two judges must agree on what they say, a vote says whether they do: where not, nothing is outside a form."""
    fields = council()
    judge = {**WRITES, "reads": {"a": "of_t", "b": "of_u"}, "template": "{{ a.text }}{{ b.text }}{{ prompt }}"}
    fields["streams"] |= {f"by_{name}": {**judge, "generated_by": name} for name in "tv"}
    fields["streams"]["panel"] = {"consensus_of": ["by_t", "by_v"], "rule": {"vote": {"pattern": "[+=]"}}}
    rule = {"best_of": {"verdict": "[+=0-9]", "names": ["+", "="]}}
    fields["streams"]["agreed"] = {"consensus_of": ["of_t", "of_u"], "reads": {"panel": "panel"}, "rule": rule}
    counted = run(fields, out=tmp_path)["streams"]["agreed"]["counted"]
    panel, agreed = ({line["sample"]: line for line in lines(tmp_path, name)} for name in ("panel", "agreed"))
    outside = 0
    for sample, line in agreed.items():
        verdicts = line["consensus"]["verdicts"]
        assert len(verdicts) == (not panel[sample]["dropped"])
        outside += any(one["text"] is None for one in verdicts)
        assert bool(line["dropped"]) == all(one["text"] is None for one in verdicts)
    silent = sum(bool(line["dropped"]) for line in panel.values())
    assert 0 < silent < 24 and outside
    assert counted == {"no text in panel": silent, "verdicts outside the form in panel": outside}


def test_where_all_rules_abstained_so_does_this_one() -> None:
    fields = council()
    never = {"vote": {"pattern": "@"}}
    fields["streams"] |= {name: {"consensus_of": ["of_t", "of_u"], "rule": never} for name in ("one", "other")}
    fields["streams"]["agreed"] = {"consensus_of": ["one", "other"], "rule": {"best_of": {"metric": "repetition"}}}
    with pytest.raises(RunFailed, match="no text 24; counted: no text in one 24, no text in other 24"):
        run(fields)
