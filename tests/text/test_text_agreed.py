"""Streams that a rule makes of several: who is chosen, what is counted and kept, and what is refused."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_text_rollouts import agreed, elected
from text_meshes import llama
from text_runs import lines, run

from kdmesh.builtin.datasets.written import written
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError, RunFailed
from kdmesh.filters import BestOf, Candidate, Choice, Joined, TextRule, Vote, WrittenText
from kdmesh.graph.draw import draw
from kdmesh.graph.planner import make_plan
from kdmesh.graph.unrun import refuse_unrun
from kdmesh.hosts.keeping import Keeping
from kdmesh.plugins import registry
from kdmesh.spec.read import parse
from kdmesh.text.answers import extracted, finds, found, pattern


def texts(*said: str, scores: tuple[float | None, ...] = ()) -> list[Candidate]:
    """One text of each of some streams."""
    return [
        Candidate(WrittenText(0, 0, "1+2=", text, len(text), True), f"s{at}", f"a{at}", scores[at] if scores else None)
        for at, text in enumerate(said)
    ]


def voted(*said: str, **settings: Any) -> Choice:
    return Vote(**{"pattern": None, "numeric": False, "share": 0.0, "ties": "abstain", **settings}).choose(
        texts(*said), {}
    )


def test_a_vote_takes_the_first_with_the_most_frequent_answer() -> None:
    found = voted("so 4", "is 3", "", "it is 3.0", numeric=True)
    assert found.chosen == 1 and found.told["votes"] == {"4": 1, "3": 2} and found.told["silent"] == 1
    assert [one["stream"] for one in found.told["dissent"]] == ["s0", "s2"] and found.told["answer"] == "3"
    assert voted("#A b", "c #A", "#B", pattern="#(.)").chosen == 0
    assert voted("1e3", "1,000.0", "999", numeric=True).told["votes"] == {"1000": 2, "999": 1}
    assert voted("1e999999", "7", "7", numeric=True).told["votes"] == {"1E+999999": 1, "7": 2}


def test_a_vote_abstains_and_says_why() -> None:
    assert [voted("", " ").why, voted("a", "b").why, voted("a", "b", "c", "a", share=0.6).why] == [
        "no answer",
        "a tie",
        "too few agree",
    ]
    broken = voted("b", "a", "a", "b", ties="first")
    assert broken.chosen == 0 and broken.counted == ["ties broken"] and broken.told["tied"] == ["b", "a"]
    assert voted("a", "b", "c", "a", share=0.5).chosen == 0


def best(said: list[Candidate], read: dict[str, list[str]] | None = None, **settings: Any) -> Choice:
    fields = {"metric": None if read else object(), "least": None, "verdict": None, "names": None, "ties": "first"}
    told = {key: [texts(one)[0].text for one in some] for key, some in (read or {}).items()}
    return BestOf(**{**fields, **settings}).choose(said, told)


def test_the_best_is_that_of_the_highest_score_or_of_the_most_verdicts() -> None:
    scored = texts("a", "b", "c", scores=(None, 0.5, 0.5))
    assert best(scored).chosen == 1 and best(scored).counted == ["no score in s0", "ties broken"]
    assert best(scored, ties="abstain").why == "a tie" and best(scored, least=0.6).why == "too low"
    assert best(texts("a", "b", scores=(None, None))).why == "not scored"
    form = {"verdict": r"Verdict: (\w+)", "names": ["A", "B", "C"]}
    judged = best(texts("a", "b", "c"), {"one": ["Verdict: B"], "two": ["hm", "Verdict: D", "Verdict: B"]}, **form)
    assert judged.chosen == 1 and judged.counted == ["verdicts outside the form in two"] * 2
    assert judged.told["verdicts"][1] == {"judge": "two", "verdict": None, "text": None}
    assert judged.told["verdicts"][3] == {"judge": "two", "verdict": "B", "text": 1}
    nothing = best(texts("a", "b", "c"), {"one": ["I cannot say"]}, **form)
    assert (nothing.chosen, nothing.why, nothing.counted) == (None, "no verdict", ["verdicts outside the form in one"])


@pytest.mark.parametrize(
    ("shown", "turned", "chosen", "why"),
    [
        ("A", "B", 0, ""),
        ("B", "A", 1, ""),
        ("A", "A", None, "verdicts differ"),  # whatever stands first
        ("B", "B", None, "verdicts differ"),
        ("A", "hm", None, "too few verdicts"),
        ("C", "hm", None, "no verdict"),
    ],
)
def test_a_judge_that_is_asked_in_both_orders_must_agree(shown: str, turned: str, chosen: int | None, why: str) -> None:
    """Whether `least` says so or not."""
    for least in (None, 2):
        found = best(texts("a", "b"), {"shown": [shown], "turned": [turned]}, least=least, **ORDERS)
        assert (found.chosen, found.why) == (chosen, why)
        assert found.rejected == (None if chosen is None else 1 - chosen)
        said = {"shown": shown, "turned": turned}
        assert found.counted == [f"verdicts outside the form in {name}" for name, one in said.items() if one in "Chm"]


ORDERS = {"names": {"shown": ["A", "B"], "turned": ["B", "A"]}, "verdict": "[A-Z]"}


@pytest.mark.parametrize(
    ("shown", "turned", "chosen", "why", "counted"),
    [
        ("AA", "A?", None, "verdicts differ", ["verdicts outside the form in turned"]),  # two of three say the first
        ("AA", "??", None, "too few verdicts", ["verdicts outside the form in turned"] * 2),
        ("AA", "BA", None, "too few verdicts", ["verdicts split in turned"]),
        ("AAB", "BBA", 0, "", []),
        ("BB", "A?", 1, "", ["verdicts outside the form in turned"]),
    ],
)
def test_each_order_has_one_verdict_however_often_a_judge_is_asked(
    shown: str, turned: str, chosen: int | None, why: str, counted: list[str]
) -> None:
    found = best(texts("a", "b"), {"shown": [*shown], "turned": [*turned]}, **ORDERS)
    assert (found.chosen, found.why, found.counted) == (chosen, why, counted)
    assert found.rejected == (None if chosen is None else 1 - chosen)


def test_of_three_texts_a_judge_that_names_what_stands_first_chooses_none() -> None:
    names = {"shown": ["A", "B", "C"], "turned": ["C", "B", "A"]}
    said: dict[str, Any] = {"names": names, "verdict": "[A-Z]"}
    assert best(texts("a", "b", "c"), {"shown": ["A"], "turned": ["A"]}, **said).why == "verdicts differ"
    both = best(texts("a", "b", "c"), {"shown": ["C"], "turned": ["A"]}, **said)
    assert (both.chosen, both.rejected) == (2, 0)
    assert best(texts("a", "b", "c"), {"shown": ["A"], "turned": ["A"]}, least=1, **said).chosen == 0


@pytest.mark.parametrize(
    ("said", "shown", "turned", "chosen", "rejected", "why"),
    [
        ("xy", "A", "A", None, None, "verdicts differ"),
        ("xx", "A", "A", 0, None, "equal answers"),
        ("xx", "B", "hm", None, None, "too few verdicts"),
        ("xxy", "A", "B", 0, 2, ""),  # what stands first in either order, which is x
        ("xxy", "A", "C", 0, 2, ""),
        ("xyx", "B", "B", 1, 0, ""),
        ("xxy", "AB", "B", 0, 2, ""),  # an order names x twice, and is not split
        ("xxy", "A", "A", None, None, "verdicts differ"),
    ],
)
def test_equal_texts_are_one_to_a_judge(
    said: str, shown: str, turned: str, chosen: int | None, rejected: int | None, why: str
) -> None:
    """Which of them it names is where they stood; and nothing is rejected in favour of what says the same."""
    names = ["A", "B", "C"][: len(said)]
    orders = {"shown": names, "turned": names[::-1]}
    verdicts = {"shown": [*shown], "turned": [turned] if turned == "hm" else [*turned]}
    found = best(texts(*said), verdicts, names=orders, verdict="[A-Z]")
    assert (found.chosen, found.rejected, found.why) == (chosen, rejected, why)
    assert found.counted == ["verdicts outside the form in turned"] * (turned == "hm")
    assert [one["text"] for one in found.told["verdicts"]][: len(shown)] == [names.index(one) for one in shown]


def test_texts_keep_their_names_where_one_is_missing() -> None:
    """The second of three: its own rule abstained."""
    three = texts("a", "b", "c")
    left = [replace(three[at], place=at, of=3) for at in (0, 2)]
    found = best(left, {"one": ["3"], "other": ["2"]}, verdict="[0-9]")
    assert (found.chosen, found.rejected) == (1, 0)
    assert found.counted == ["verdicts for a text that is missing in other"]
    found = Vote(None, False, 0.6, "abstain").choose([left[0]], {})
    assert (found.why, found.told["texts"]) == ("too few agree", 3)
    joined = Joined("\n")
    joined.setup([], ["s0", "s1", "s2"], [])
    assert joined.choose(left, {}).text == "a\nc" and joined.choose(left[:1], {}).why == "no last text"


AB = {"one": ["A", "B"], "other": ["B", "A"]}


@pytest.mark.parametrize(
    ("settings", "read", "where", "what", "instead"),
    [
        ({"least": 3.0}, ["one", "other"], "least", "no text has 3 verdicts: there are 2 to a prompt", "2 at most"),
        ({}, [], "verdict", "the stream reads none", "reads: {judge: STREAM}"),
        ({"names": AB, "least": 3.0}, ["one", "one", "other"], "least", "there is one of each order (one, other)", "2"),
        ({"names": AB}, ["one"], "names", "names for one, other, and the stream reads one", "{one: [A, B]}"),
        ({"names": {"one": ["A", "B"]}}, ["one", "other"], "names", "for one, and", "[A, B], other: [B, A]}"),
        ({"names": {**AB, "other": ["A", "B", "C"]}}, ["one", "other"], "names.other", "3 names for 2 texts", "[A, B]"),
        ({"names": ["A"]}, ["one"], "names", "1 names for 2 texts", "[A, B]"),
        ({"metric": object(), "verdict": None}, ["one"], "metric", "under one are not looked at", "`verdict`"),
    ],
)
def test_what_no_judge_can_say_is_refused(
    settings: dict[str, Any], read: list[str], where: str, what: str, instead: str
) -> None:
    rule = BestOf(**{"metric": None, "least": None, "verdict": "[A-Z]", "names": None, "ties": "first", **settings})
    with pytest.raises(MeshError) as caught:
        rule.setup([], ["s0", "s1"], read)
    assert caught.value.where == where and what in caught.value.what and instead in caught.value.instead


@pytest.mark.parametrize(("names", "least"), [(["A", "B"], 4.0), (AB, 2.0)])
def test_as_many_verdicts_as_there_are_may_be_asked_for(names: Any, least: float) -> None:
    rule = BestOf(metric=None, least=least, verdict="[A-Z]", names=names, ties="first")
    rule.setup([], ["s0", "s1"], ["one", "one", "one", "other"])


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"verdict": "[0-9]*"}, "also finds the nothing at the end of a text"),
        ({"verdict": "x", "names": {"one": ["A", "B"], "other": ["A", "B"]}}, "the same in every order"),
        ({"verdict": "x", "names": ["A", " "]}, "without space around it"),
    ],
)
def test_settings_by_which_no_text_is_ever_chosen_are_refused(config: dict[str, Any], what: str) -> None:
    with pytest.raises(MeshError) as caught:
        registry().check("text_rules", "best_of", config, "here")
    assert what in str(caught.value) and caught.value.where.startswith("here.best_of")


@pytest.mark.parametrize("text", [".*", "()", "[0-9]*", "(a|b)?", "$", ""])
def test_a_pattern_that_finds_nothing_last_is_none_of_answers(text: str) -> None:
    assert extracted(pattern(text), "a 12 b") is None
    with pytest.raises(ValueError, match="needs a character"):
        finds(text)


@pytest.mark.parametrize("text", ["^.*$", "#### (.*)", "[0-9]+", r"(?<=is )\w+", "(0)|(1)"])
def test_a_pattern_of_answers_stands_as_it_is(text: str) -> None:
    assert finds(text) == text and finds(None) is None


def test_of_groups_the_first_that_took_part_is_the_answer() -> None:
    assert [extracted(pattern("(0)|(1)"), said) for said in ("so 1", "so 0", "2")] == ["1", "0", None]
    assert extracted(pattern("(a)(b)?"), "ab") == "a"


def test_what_is_found_in_every_text_is_refused() -> None:
    with pytest.raises(ValueError, match="found in every text"):
        found("x*")
    assert found("^$") == "^$" and found(r"\w") == r"\w"


def test_who_is_chosen_from_does_not_judge_and_nobody_judges_twice() -> None:
    verdict = {"best_of": {"verdict": "[0-9]"}}
    for reads, what in (({"a": "second"}, "one of the streams that are chosen"), ({"a": "v", "b": "v"}, "count twice")):
        fields = agreed()
        judge = {**fields["streams"]["verdicts"], "reads": {"x": "first"}, "template": "{{ x.text }}={{ prompt }}"}
        fields["streams"] |= {
            "v": judge,
            "rollouts": {**fields["streams"]["rollouts"], "rule": verdict, "reads": reads},
        }
        with pytest.raises(MeshError, match=what) as caught:
            refuse_unrun(make_plan(parse(fields), registry()), registry(), None)
        assert caught.value.where == f"streams.rollouts.reads.{list(reads)[-1]}" and caught.value.instead


def test_what_is_rejected_is_the_first_of_the_worst() -> None:
    scored = best(texts("a", "b", "c", "d", scores=(0.5, None, 0.1, 0.1)))
    assert (scored.chosen, scored.rejected) == (0, 2)
    alike = best(texts("a", "b", scores=(0.5, 0.5)))
    assert (alike.chosen, alike.rejected, alike.why) == (0, None, "equally good")
    for alone in (best(texts("a", "b", scores=(None, 0.5))), best(texts("a"), {"one": ["1"]}, verdict="[0-9]")):
        assert (alone.rejected, alone.why) == (None, "nothing to reject")
    judged = best(texts("a", "b", "c"), {"one": ["2", "2", "1"]}, verdict="[0-9]")
    assert (judged.chosen, judged.rejected) == (1, 2)
    found = voted("so 4", "is 3", "", "it is 3.0", numeric=True)
    assert (found.chosen, found.rejected) == (1, 0)
    for ties, chosen in (("abstain", None), ("first", 0)):  # nobody has won, so that nobody is over another
        tied = voted("4", "3", numeric=True, ties=ties)
        assert (tied.chosen, tied.rejected, tied.why) == (chosen, None, "a tie")
    whole = voted("3", "is 3", "hm", numeric=True)
    assert (whole.chosen, whole.rejected, whole.why) == (0, None, "no dissent")


def test_the_long_form_says_where_it_is_made_and_is_valid_itself() -> None:
    long = draw(parse(agreed("2 steps")), registry())
    one = long.streams["rollouts"]
    assert (one.generated_by, one.prompts, one.refresh) == ("u", "train", "2 steps")
    assert draw(parse(long.model_dump(mode="json", by_alias=True, exclude_unset=True)), registry()) == long


def test_what_is_chosen_is_what_a_count_of_the_files_says(tmp_path: Path) -> None:
    summary = run(elected(), out=tmp_path)
    said: dict[int, list[tuple[str, dict[str, Any]]]] = {}
    for stream in ("drafts", "others"):
        for line in lines(tmp_path, stream):
            said.setdefault(line["sample"], []).append((stream, line))
    broken, lost, why, silent = 0, 0, Counter[str](), Counter[str]()
    for line in lines(tmp_path, "rollouts"):
        answers = ["".join(re.findall(r"\d+", text["text"])[-1:]) for _, text in said[line["sample"]]]
        answers = [answer and (answer.lstrip("0") or "0") for answer in answers]
        votes = Counter(answer for answer in answers if answer)
        texts = zip(said[line["sample"]], answers, strict=True)
        silent.update(f"no answer in {stream}" for (stream, _), answer in texts if not answer)
        assert line["consensus"]["votes"] == votes and line["rule"] == elected()["streams"]["rollouts"]["rule"]
        first = [answer for answer, count in votes.items() if count == max(votes.values())]
        if not first:
            why["no answer"] += 1
            assert line["dropped"] == "no answer" and line["producer"] is None and line["text"] == ""
            continue
        broken += len(first) > 1
        stream, text = said[line["sample"]][answers.index(first[0])]
        assert line["consensus"]["from"] == {"stream": stream, "agent": text["producer"], "draw": text["draw"]}
        assert (line["text"], line["producer"]) == (text["text"], text["producer"])
        lost += stream == "others" and not {*"".join(text["text"].split())} <= {*"0123456789+="}
    (file,) = tmp_path.glob("*/*/streams/rollouts.jsonl")
    table = written(str(file))
    assert {*table.columns["rule"]} == {"vote"} and "" not in table.columns["answer"]
    assert {*table.columns["share"]} <= {f"{count / 4:.3f}" for count in range(1, 5)}
    later = {
        "task": "language_modelling",
        "data": {"dataset": {"written": {"path": str(file)}}, "validation": 0, "test": 3},
        "agents": {"s": {"model": llama(8, vocabulary=None)}},
        "train": {"steps": 2, "batch_size": 4},
    }
    run(later)
    assert len(written(str(file), dropped=True).x) >= len(table.x)
    tally = summary["streams"]["rollouts"]
    assert tally["counted"] == {**silent, "ties broken": broken, "not whole in these tokens": lost}
    assert broken and lost and tally["rule"] == "vote"
    assert tally["written"] == 24 and tally["dropped"].get("no answer", 0) == why["no answer"]


STREAMS = agreed()["streams"]


def with_streams(**parts: Any) -> dict[str, Any]:
    return {**agreed(), "streams": {**STREAMS, **parts}}


ROLLOUTS, JUDGED = STREAMS["rollouts"], STREAMS["judged"]
REFUSED = [
    (with_streams(rollouts={**ROLLOUTS, "rule": None}), "streams.rollouts", "nothing says how"),
    (with_streams(rollouts={**ROLLOUTS, "rule": "vot"}), "streams.rollouts.rule", "vot"),
    (with_streams(rollouts={**ROLLOUTS, "rule": {"vote": {"share": 2}}}), "streams.rollouts.rule.vote.share",
     "found 2"),
    (with_streams(rollouts={**ROLLOUTS, "rule": {"vote": {"pattern": "("}}}), "streams.rollouts.rule.vote.pattern",
     "no regular expression"),
    (with_streams(rollouts={**ROLLOUTS, "consensus_of": ["first", "frist"]}), "streams.rollouts.consensus_of.1",
     "unknown stream 'frist'"),
    (with_streams(rollouts={**ROLLOUTS, "consensus_of": ["train"]}), "streams.rollouts.consensus_of.0",
     "no agent writes texts on 'train'"),
    (with_streams(part={"size": 8}, rollouts={**ROLLOUTS, "consensus_of": ["part", "first"]}),
     "streams.rollouts.consensus_of.0", "no agent writes texts on 'part'"),
    (with_streams(rollouts={**ROLLOUTS, "consensus_of": ["first", "rollouts"]}), "streams.rollouts.consensus_of",
     "in a cycle: rollouts -> rollouts"),
    (with_streams(rollouts={**ROLLOUTS, "consensus_of": ["first"]}), "streams.rollouts.consensus_of",
     "nothing to choose from"),
    (with_streams(rollouts={**ROLLOUTS, "consensus_of": ["first", "first"]}), "streams.rollouts.consensus_of", "twice"),
    (with_streams(rollouts={**ROLLOUTS, "sampling": {"samples": 2}}), "streams.rollouts.sampling", "has no effect"),
    (with_streams(rollouts={**ROLLOUTS, "template": "{{ prompt }}"}), "streams.rollouts.template", "has no effect"),
    (with_streams(rollouts={**ROLLOUTS, "generated_by": "t"}), "streams.rollouts.generated_by",
     "its `generated_by` is u"),
    (with_streams(rollouts={**ROLLOUTS, "reads": {"j": "verdicts"}}), "streams.rollouts.rule", "`reads` has no effect"),
    (with_streams(first={**STREAMS["first"], "rule": "vote"}), "streams.first.rule", "is made of none"),
    (with_streams(first={**STREAMS["first"], "sampling": {"samples": 2}}), "streams.verdicts.reads.a",
     "has 2 texts of a prompt"),
    (with_streams(second={**STREAMS["second"], "refresh": "epoch"}), "streams.verdicts.reads.b", "of other lengths"),
    (with_streams(judged={**JUDGED, "reads": None}), "streams.judged.rule.best_of.verdict", "stream reads none"),
    (with_streams(judged={**JUDGED, "rule": {"best_of": {}}}), "streams.judged.rule.best_of", "`metric`, or `verdict`"),
    (with_streams(judged={**JUDGED, "rule": {"best_of": {"metric": "rouge_l", "least": 1, "verdict": "a"}}}),
     "streams.judged.rule.best_of", "it needs `metric`, or"),
    (with_streams(judged={**JUDGED, "rule": {"best_of": {"verdict": "a", "names": ["x", "y", "z"]}}}),
     "streams.judged.rule.best_of.names", "3 names for 2 texts"),
    (with_streams(judged={**JUDGED, "reads": None, "rule": {"best_of": {"metric": "loss"}}}),
     "streams.judged.rule.best_of.metric", "not of written texts"),
    (with_streams(judged={**JUDGED, "reads": None, "rule": {"best_of": {"metric": "distinct_n"}}}),
     "streams.judged.rule.best_of.metric", "is no mean over texts"),
    (with_streams(judged={**JUDGED, "rule": {"best_of": {"metric": "rouge_l"}}}),
     "streams.judged.rule.best_of.metric", "are not looked at"),
    (with_streams(judged={**JUDGED, "rule": {"best_of": {"verdict": "a", "names": {"judeg": ["x", "y"]}}}}),
     "streams.judged.rule.best_of.names", "names for judeg, and the stream reads judge"),
    (with_streams(judged={**JUDGED, "rule": {"best_of": {"verdict": "a", "names": {"judge": ["x", "y", "z"]}}}}),
     "streams.judged.rule.best_of.names.judge", "3 names for 2 texts (first, second)"),
    (with_streams(judged={**JUDGED, "rule": {"best_of": {"verdict": "a", "names": {"judge": ["x", "x"]}}}}),
     "streams.judged.rule.best_of", "two texts of one name"),
    (with_streams(judged={**JUDGED, "rule": {"best_of": {"verdict": "a", "least": 0.5}}}),
     "streams.judged.rule.best_of", "how many a text needs"),
]  # fmt: skip


def test_every_text_of_a_stream_has_a_name() -> None:
    """Also in the trial of `check`, in which each stream has one."""
    names = {"verdict": "[0-9]", "names": ["1", "2", "3", "4"]}
    streams = {name: {**one, "refresh": "once"} if "generated_by" in one else one for name, one in STREAMS.items()}
    for name in ("first", "second"):
        streams[name] = {**streams[name], "generated_by": "t", "sampling": {"max_new_tokens": 3, "samples": 2}}
    streams["verdicts"] = {
        **streams["verdicts"], "generated_by": "t", "template": "{{ a.texts[0] }}{{ b.texts[1] }}{{ prompt }}"
    }  # fmt: skip
    streams["judged"] = {**streams["judged"], "rule": {"best_of": names}}
    fields = {**agreed(), "streams": streams}
    examine(make_plan(parse(fields), registry()))
    streams["judged"] = {**streams["judged"], "rule": {"best_of": {**names, "names": ["1", "2"]}}}
    with pytest.raises(MeshError, match="2 names for 4 texts"):
        examine(make_plan(parse(fields), registry()))


@pytest.mark.parametrize(("fields", "where", "what"), REFUSED, ids=[what for *_, what in REFUSED])
def test_what_cannot_be_made_is_refused(fields: dict[str, Any], where: str, what: str) -> None:
    with pytest.raises(MeshError) as caught:
        examine(make_plan(parse(fields), registry()))
    assert caught.value.where == where and what in caught.value.what


def test_where_all_abstain_the_stage_ends() -> None:
    fields = with_streams(rollouts={**ROLLOUTS, "rule": {"vote": {"pattern": "@@@"}}})
    with pytest.raises(RunFailed, match="rule 'vote' chose") as caught:
        run(fields)
    assert caught.value.where == "streams.rollouts" and "no answer 48" in caught.value.what
    one = elected()
    one["streams"]["rollouts"] = {**one["streams"]["rollouts"], "rule": {"vote": {"pattern": "@@@"}}}
    with pytest.raises(RunFailed, match="none of 24 prompts has a text"):
        run(one)


class Odd(TextRule):
    """Gives what the test says."""

    def __init__(self, given: Any) -> None:
        self.given = given

    def choose(self, texts: Any, read: Any) -> Any:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (3, "it gave int, not a Choice"),
        (Choice(9), "it chose 9 among 4 texts"),
        (Choice(True), "it chose True"),
        (Choice(None), "abstains without saying why"),
        (Choice(0, told={"x": {1, 2}}), "not plain data"),
        (Choice(0, counted=[""]), "not named in words"),
        (Choice(0, rejected=4), "it rejected 4 among 4 texts"),
        (Choice(0, rejected=0), "it rejected text 0, which it chose"),
        (KeyError("x"), "KeyError"),
    ],
    ids=str,
)
def test_a_rule_that_fails_is_named_with_its_prompt(given: Any, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdmesh.builtin.text_rules.vote.Vote.choose", lambda *parts: Odd(given).choose(*parts[1:]))
    with pytest.raises(Exception, match="what answers") as caught:
        examine(make_plan(parse(elected()), registry()))
    assert what in str(caught.value) and "vote" in str(caught.value)


def test_what_says_what_is_held_out_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Keeping, "_held_out", lambda self, one: "near test" if one.sample % 2 else "")
    run(elected(), out=tmp_path)
    odd = [line for line in lines(tmp_path, "rollouts") if line["sample"] % 2]
    assert any(line["consensus"]["from"] for line in odd)
    for line in odd:
        assert line["dropped"] == ("near test" if line["consensus"]["from"] else "no answer")
