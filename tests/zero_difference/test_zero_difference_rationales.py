"""Rationales of several teachers for one question: all learned, one chosen, summed up, or routed, as plain loops do."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from plain_parts import Lesson, Parted
from test_zero_difference_parts import PARTS, loop, mesh, same
from test_zero_difference_rollouts import BOTH, EPOCHS, KINDS, NEW, Both
from transformers import LlamaForCausalLM

from kdmesh.engine.check import examine

MARKS = ("", "=")
ONCE = {"prompts": "train", "refresh": "once", "sampling": {"max_new_tokens": NEW}}
Texts = dict[int, list[int]]


def on(stream: str, weight: float = 1.0) -> list[dict[str, Any]]:
    """Both parts of a stream's texts, as two lessons."""
    return [{**flow, "stream": stream, "weight": weight * flow.get("weight", 1.0)} for flow in PARTS]


class Sides:
    """A mesh of two frozen teachers and a student, and its plain side."""

    def __init__(self, folder: Path, streams: dict[str, Any], flows: list[dict[str, Any]]) -> None:
        self.both = Both(folder, "tu", BOTH)
        self.made = mesh(self.both, MARKS, flows, streams=streams)
        self.plain: Parted = loop(self.both, self.made, MARKS, flows)
        self.nets = {name: LlamaForCausalLM.from_pretrained(folder / name).eval() for name in "tu"}
        self.rows = {name: one.rows.tolist() for name, one in examine(self.made.plan()).streams.items()}
        self.lessons: dict[str, list[Lesson]] = {}
        for flow in flows:
            self.lessons.setdefault(flow["stream"], []).append(Lesson(flow["part"], flow["weight"]))

    def said(self, who: str, stream: str, prompts: Texts, draws: int = 1) -> dict[tuple[int, int], list[int]]:
        """What a teacher writes."""
        return self.plain.once(self.nets[who], who, stream, prompts, draws)

    def prompts(self, stream: str) -> Texts:
        return {row: self.both.prompts[row] for row in self.rows[stream]}

    def words(self, text: list[int]) -> str:
        return str(self.both.words.decode(text, skip_special_tokens=True))

    def parts(self, text: list[int]) -> tuple[str, str]:
        """Reasoning and answer."""
        before, mark, after = self.words(text).rpartition(MARKS[1])
        return before + mark, after

    def learn(self, texts: dict[str, Texts], orders: dict[str, str]) -> int:
        """Train on streams, whose prompts are those of ``orders``. How many updates there were."""
        optimizer = self.plain.make(self.plain.student.parameters())
        every = {stream: self.plain.order(prompts, self.rows[prompts]) for stream, prompts in orders.items()}
        longest = self.rows[next(iter(orders.values()))]  # the first stream says how long an epoch is
        steps = EPOCHS * -(-len(longest) // self.plain.size)
        done = 0
        for _ in range(steps):
            taught = [
                ([(self.both.prompts[row] + texts[stream][row], len(self.both.prompts[row]))
                  for row in next(every[stream]) if row in texts[stream]], self.lessons[stream])
                for stream in orders
            ]  # fmt: skip
            self.plain.step(optimizer, taught)
            done += any(batch for batch, _ in taught)
        return done

    def compare(self, folder: Path, updates: int) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
        """Run the mesh: equal weights, as many updates. The tallies, and the lines, of its streams."""
        result = self.made.run(backend="inline", out=folder / "runs")
        same(self.both, result, self.plain)
        assert result.summary["agents"]["s"]["updates"] == updates
        files = (result.folder / "streams").glob("*.jsonl")
        lines = {
            file.stem: [json.loads(one) for one in file.read_text(encoding="utf-8").splitlines()] for file in files
        }
        return result.summary["streams"], lines

    def told(self, lines: list[dict[str, Any]], who: str, texts: dict[tuple[int, int], list[int]]) -> None:
        """A stream has these texts, and says whose they are."""
        assert {line["producer"] for line in lines} == {who}
        assert {(line["sample"], line["draw"]): line["text"] for line in lines} == {
            at: self.words(text) for at, text in texts.items()
        }


def firsts(texts: dict[tuple[int, int], list[int]]) -> Texts:
    return {row: text for (row, draw), text in texts.items() if not draw}


def test_all_rationales_are_learned_each_with_its_weight(tmp_path: Path) -> None:
    streams = {f"of_{name}": {**ONCE, "generated_by": name} for name in "tu"}
    sides = Sides(tmp_path, streams, [*on("of_t"), *on("of_u", 0.25)])
    texts = {f"of_{who}": sides.said(who, f"of_{who}", sides.prompts("train")) for who in "tu"}
    updates = sides.learn({name: firsts(one) for name, one in texts.items()}, dict.fromkeys(texts, "train"))
    tallies, lines = sides.compare(tmp_path, updates)
    for who in "tu":
        sides.told(lines[f"of_{who}"], who, texts[f"of_{who}"])
        assert tallies[f"of_{who}"]["written"] == tallies[f"of_{who}"]["kept"] == len(sides.rows["train"])


def test_the_rationale_of_the_answer_that_most_give_is_learned(tmp_path: Path) -> None:
    """Of two teachers, each asked twice; where none of the four answers, and on a tie, nothing is learned."""
    twice = {**ONCE, "sampling": {"max_new_tokens": NEW, "samples": 2}}
    streams: dict[str, Any] = {f"of_{name}": {**twice, "generated_by": name} for name in "tu"}
    streams["agreed"] = {"consensus_of": ["of_t", "of_u"], "rule": {"vote": {"pattern": "^."}}}
    sides = Sides(tmp_path, streams, on("agreed"))
    texts = {who: sides.said(who, f"of_{who}", sides.prompts("train"), draws=2) for who in "tu"}
    chosen, whose = Texts(), dict[int, tuple[str, int]]()
    for row in sides.rows["train"]:
        four = [(who, draw, texts[who][row, draw]) for who in "tu" for draw in range(2)]
        begins = [sides.parts(text)[1].strip()[:1] for *_, text in four]
        votes = Counter(one for one in begins if one).most_common(2)
        if votes and (len(votes) == 1 or votes[0][1] > votes[1][1]):
            who, draw, chosen[row] = four[begins.index(votes[0][0])]
            whose[row] = who, draw
    assert 0 < len(chosen) < len(sides.rows["train"]) and {who for who, _ in whose.values()} == {*"tu"}
    assert any(sides.parts(text)[0] for text in chosen.values())
    tallies, lines = sides.compare(tmp_path, sides.learn({"agreed": chosen}, {"agreed": "train"}))
    found = [line for line in lines["agreed"] if line["kept"]]
    assert {line["sample"]: line["text"] for line in found} == {row: sides.words(one) for row, one in chosen.items()}
    assert {line["sample"]: (line["producer"], line["consensus"]["from"]["draw"]) for line in found} == whose
    assert tallies["agreed"]["kept"] == len(chosen) and tallies["agreed"]["written"] == len(sides.rows["train"])
    for who in "tu":
        sides.told(lines[f"of_{who}"], who, texts[who])


def test_rationales_are_summed_up_by_a_teacher_that_reads_them(tmp_path: Path) -> None:
    streams: dict[str, Any] = {f"of_{name}": {**ONCE, "generated_by": name} for name in "tu"}
    template = "{{ a.reasoning }}{{ b.reasoning }}{{ prompt }}"
    streams["whole"] = {**ONCE, "generated_by": "u", "reads": {"a": "of_t", "b": "of_u"}, "template": template}
    sides = Sides(tmp_path, streams, on("whole"))
    texts = {who: firsts(sides.said(who, f"of_{who}", sides.prompts("train"))) for who in "tu"}
    read = {row: "".join(sides.parts(texts[who][row])[0] for who in "tu") for row in sides.rows["train"]}
    assert len({*read.values()}) > 2
    asked = {
        row: sides.both.first + sides.both.words(words + sides.both.questions[row])["input_ids"]
        for row, words in read.items()
    }
    whole = sides.said("u", "whole", asked)
    tallies, lines = sides.compare(tmp_path, sides.learn({"whole": firsts(whole)}, {"whole": "train"}))
    sides.told(lines["whole"], "u", whole)
    assert [line["prompt"] for line in lines["whole"]] == [sides.both.questions[row] for row, _ in whole]
    assert tallies["whole"]["written"] == len(sides.rows["train"])


def test_rationales_are_routed_by_a_column(tmp_path: Path) -> None:
    """Each teacher explains the questions of its kind, and nothing else."""
    streams: dict[str, Any] = {kind: {"where": {"kind": [kind]}} for kind in KINDS}
    teachers = dict(zip(KINDS, "tu", strict=True))
    streams |= {f"of_{who}": {**ONCE, "prompts": kind, "generated_by": who} for kind, who in teachers.items()}
    sides = Sides(tmp_path, streams, [*on("of_t"), *on("of_u")])
    texts = {f"of_{who}": sides.said(who, f"of_{who}", sides.prompts(kind)) for kind, who in teachers.items()}
    updates = sides.learn(
        {name: firsts(one) for name, one in texts.items()}, {f"of_{who}": kind for kind, who in teachers.items()}
    )
    tallies, lines = sides.compare(tmp_path, updates)
    assert sorted(sides.rows["small"] + sides.rows["large"]) == sorted(sides.rows["train"])
    for kind, who in teachers.items():
        sides.told(lines[f"of_{who}"], who, texts[f"of_{who}"])
        assert {sides.both.kinds[line["sample"]] for line in lines[f"of_{who}"]} == {KINDS.index(kind)}
        assert tallies[f"of_{who}"]["written"] == tallies[f"of_{who}"]["kept"] == len(sides.rows[kind]) > 0
