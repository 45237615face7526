"""Rewards of written texts: what objectives are told, wherever agents are and after breaks; verifiers; refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_text_rollouts import calls, changed, elsewhere, mesh, outcome, seldom  # noqa: F401  calls is a fixture
from text_runs import lines, run, told
from torch import Tensor
from torch.nn import functional as F

from kdmesh.backends import Session
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError, RunFailed
from kdmesh.filters import WrittenText
from kdmesh.graph.planner import make_plan
from kdmesh.hosts import rewarding
from kdmesh.hosts.rewarding import Apart, TooLong
from kdmesh.objectives import Objective
from kdmesh.offers import Config, ObjectiveOffer
from kdmesh.plugins import registry
from kdmesh.report.page.blocks import Lines, Table
from kdmesh.report.page.facts import page_of
from kdmesh.spec.read import parse
from kdmesh.testing.observers import Told, taken_in
from kdmesh.testing.run_mesh import lent

HERE, VERIFIERS = __name__, "verifiers"
SEEN: list[dict[str, Tensor]] = []


class AskConfig(Config):
    """Settings of `ask`."""

    old: float | None = None
    temperature: float = 1.0


class Ask(Objective):
    """Tokens by how right their text is beside others to the prompt; with ``old`` also by how likely they were."""

    def __init__(self, old: float | None, temperature: float) -> None:
        super().__init__()
        self.old, self.temperature, self.averages = old, temperature, "texts"

    def forward(self, student: Any, target: Tensor, *, form: str = "labels", weights: Tensor | None = None,
                text: Tensor, group: Tensor, reward: Tensor, written: Tensor | None = None) -> Tensor:  # fmt: skip
        logits = student if isinstance(student, Tensor) else student.rows(0, len(student))
        losses = F.cross_entropy(logits / self.temperature, target, reduction="none")
        same = (group[:, None] == group).float()
        sizes = text.bincount()[text]
        better = reward - (same @ (reward / sizes)) / (same @ (1 / sizes.float()))
        known = {"text": text, "group": group, "reward": reward, "own": -losses.detach()}
        SEEN.append(known if written is None else {**known, "written": written})
        if written is not None:
            better = better * (written.exp() + 1)
        return (better * losses / sizes).sum() / (int(text.max()) + 1)


OFFER = ObjectiveOffer(
    "ask", f"{HERE}:Ask", AskConfig, "asks of written texts", forms=("labels",), needs=("text", "group", "reward"),
    needs_of={"old": ("written",)},
)  # fmt: skip


@pytest.fixture(autouse=True)
def offered() -> Iterator[None]:
    SEEN.clear()
    with lent([OFFER]):
        yield


SAMPLING = {"max_new_tokens": 3, "samples": 3}
TRAIN = {"epochs": 2, "batch_size": 6, "optimizer": {"adamw": {"lr": 3e-3}}}
REWARD: list[Any] = [f"{VERIFIERS}:close", {"pattern": {"match": "[0-4]", "weight": 0.5}}]


def rewarded(objective: Any = "ask", train: dict[str, Any] | None = None, **stream: Any) -> dict[str, Any]:
    """A student by how right its own texts are, and another by those of the first; a teacher says something too."""
    fields = mesh(**{"sampling": SAMPLING, "reward": REWARD, **stream})
    flows = [
        {"from": "labels", "to": ["s", "u"], "stream": "rollouts", "objective": objective},
        {"from": "t", "to": "s", "stream": "rollouts", "objective": "reverse_kl", "weight": 0.5},
    ]
    return {**fields, "flows": flows, "train": {**TRAIN, **(train or {})}}


OLD = {"ask": {"old": 1.0}}
HOT = {"ask": {"old": 1.0, "temperature": 1.5}}
MESHES = {
    "each step": rewarded(),
    "several steps, how likely": rewarded(OLD, refresh="3 steps"),
    "an epoch, tempered": rewarded(HOT, refresh="epoch", sampling={**SAMPLING, "temperature": 1.5}),
    "accumulated, filtered": rewarded(train={"accumulate": 2}, keep=[{"pattern": {"match": "[02468]"}}]),
    "packed": {**rewarded(OLD, refresh="2 steps"), "text": {"pack": True}},
}


def worth(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]], dict[tuple[str, int], Any]]:
    """What was written and how right it is: in sum, text by text, and as the curve of a stage."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    points = [one for one in events if one["event"] == "trained" and one["rewards"]]
    return *told(folder), {(one["stage"], one["step"]): one["rewards"]["rollouts"] for one in points}


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
    known, made = worth(folder), calls["made"]
    calls.update(made=0, last=made * 4 // 5 + 1)
    with pytest.raises(KeyboardInterrupt):
        outcome(MESHES[name], broken, out=tmp_path / "broken")
    calls.update(made=0, last=0)
    (folder,) = (tmp_path / "broken").glob("*/*")
    assert outcome(MESHES[name], broken, resume=folder) == expected
    assert worth(folder) == known
    assert 0 < calls["made"] < made


@pytest.mark.ray
@pytest.mark.parametrize("name", seldom(["several steps, how likely"], "an epoch, tempered"))
def test_on_ray_they_are_the_same(name: str, ray_session: Session) -> None:
    expected = outcome(MESHES[name])
    assert outcome(MESHES[name], "spread", session=ray_session) == expected


def test_an_objective_is_told_of_each_token_what_its_text_is_worth(tmp_path: Path) -> None:
    heard = Told()
    with taken_in(heard):
        summary = run(rewarded(OLD, refresh="2 steps"), out=tmp_path)
    (folder,) = tmp_path.glob("*/*")
    tally, written, curve = worth(folder)
    points = [about for hook, about in heard.calls if hook == "kdmesh_trained"]
    assert {(one["stage"], one["step"]): one["rewards"] for one in points if one["rewards"]} == {
        at: {"rollouts": mean} for at, mean in curve.items()
    }
    for line in written:
        numbers = line["numbers"]
        known = numbers[f"{VERIFIERS}:close"]
        assert numbers["pattern"] == any(sign in "01234" for sign in line["text"])
        if "7" in line["prompt"]:
            assert known is None and line["reward"] is None and line["dropped"] == "no reward"
        else:
            assert line["kept"] and line["reward"] == pytest.approx(known + 0.5 * numbers["pattern"])
    steps = [one for one in SEEN if "written" in one][2 * 2 :][::2]  # of `s`, after the trial's two steps
    by_step: dict[int, list[dict[str, Any]]] = {}
    for line in written:
        by_step.setdefault(line["step"], []).append(line)
    kept = [line for step in sorted(by_step) for line in by_step[step] if line["kept"]]
    at = 0
    for one in steps:
        for text in range(int(one["text"].max()) + 1):
            rows = one["text"] == text
            line, at = kept[at], at + 1
            assert one["group"][rows].unique().tolist() == [line["sample"]]
            assert one["reward"][rows].unique().tolist() == [pytest.approx(line["reward"], abs=1e-6)]
            assert int(rows.sum()) == line["tokens"] + line["ended"]
        assert all(int((one["group"] == group).sum()) for group in one["group"])
    assert at == len(kept)
    gaps = [float((one["written"] - one["own"]).abs().max()) for one in steps]
    fresh = sum(gap < 1e-5 for gap in gaps)  # the first step of a window is by the weights that wrote, the other is not
    assert fresh + sum(gap > 1e-3 for gap in gaps) == len(gaps) and 0 < fresh < len(gaps)
    counted = [line["reward"] for line in written if line["reward"] is not None]
    assert tally["reward"]["texts"] == len(counted)
    assert tally["reward"]["average"] == pytest.approx(sum(counted) / len(counted))
    groups = [[line["reward"] for line in kept[start : start + 3]] for start in range(0, len(kept), 3)]
    assert tally["reward"]["groups"] == len(groups)
    assert tally["reward"]["equal"] == sum(len(set(one)) == 1 for one in groups)
    assert any("the mean reward of" in note for note in summary["notes"])
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert all(one["reward"] is not None for one in events if one["event"] == "texts_written")
    begin, (first, *_) = 0, curve
    for (stage, step), mean in curve.items():
        own = [line["reward"] for line in written if begin <= line["step"] < step and line["reward"] is not None]
        assert stage == first[0] and mean == pytest.approx(sum(own) / len(own))
        begin = step
    assert begin > max(line["step"] for line in written) and len(curve) > 1
    blocks = [block for section in page_of(folder).sections for block in section.blocks]
    (drawn,) = [block for block in blocks if isinstance(block, Lines) and block.title == "Mean reward of written texts"]
    (series,) = drawn.series
    assert series.name == "rollouts" and {x: y for x, y, *_ in series.points} == {x: y for (_, x), y in curve.items()}
    (table,) = [block for block in blocks if isinstance(block, Table) and block.title == "Written streams"]
    row = dict(zip(table.heads, table.rows[0], strict=True))
    assert row["mean reward"].value == pytest.approx(tally["reward"]["average"])
    assert row["groups of equal rewards"].value == tally["reward"]["equal"]


def test_a_group_of_equal_rewards_is_counted_and_said() -> None:
    summary = run(rewarded(reward={"pattern": {"match": "never written"}}))
    tally = summary["streams"]["rollouts"]["reward"]
    assert 0 < tally["groups"] == tally["equal"]
    assert any(f"in {tally['groups']} of {tally['groups']} groups" in note for note in summary["notes"])


@pytest.mark.parametrize(
    ("reward", "what"),
    [
        (
            {f"{VERIFIERS}:overdue": {"time_limit": 60}},
            r"overdue did not answer within 60 s, on what s wrote .* to 2\+",
        ),
        (f"{VERIFIERS}:dies", r"dies failed: .*ended with 3, on what s wrote .* to 2\+"),
        (f"{VERIFIERS}:breaks", r"breaks failed: .*no such answer.* to 2\+"),
        (
            f"{VERIFIERS}:words",
            r"words failed: ValueError: it gave 'much', which is no number, on what s wrote for 'rollouts'",
        ),
        (
            f"{VERIFIERS}:unsure",
            r"unsure failed: ValueError: it gave nan, which is no number, on what s wrote for 'rollouts'",
        ),
        ({f"{VERIFIERS}:unsure": {"says": "-inf"}}, "gave -inf, which is no number, on what s wrote for 'rollouts' to"),
        (
            {f"{VERIFIERS}:unsure": {"time_limit": 300}},
            "gave nan, which is no number, on what s wrote for 'rollouts' to",
        ),
        ({"verifier": {"path": f"{VERIFIERS}:breaks"}}, "no such answer"),
    ],
)
def test_a_verifier_that_fails_is_named_with_the_text(reward: Any, what: str) -> None:
    with pytest.raises((RunFailed, MeshError), match=what) as caught:
        run(rewarded(reward=reward))
    assert caught.value.where == "streams.rollouts.reward.0" or "metrics" in str(caught.value)


def test_what_a_late_verifier_would_have_said_can_be_given(tmp_path: Path) -> None:
    reward = {f"{VERIFIERS}:overdue": {"time_limit": 60, "late": -1}}
    summary = run(rewarded(reward=reward, train={"steps": 4}), out=tmp_path)
    tally, written = summary["streams"]["rollouts"]["reward"], lines(tmp_path, "rollouts")
    late = sum(one["prompt"].startswith("2+") for one in written)
    assert tally["late"] == {f"{VERIFIERS}:overdue": late} and 0 < late < len(written)
    assert all(one["reward"] == (-1 if one["prompt"].startswith("2+") else 1) for one in written)
    assert any("were late for" in note for note in summary["notes"])


def test_a_process_is_ended_in_time_and_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    text = WrittenText(0, 0, "2+2=", "4", 1, True, "4")
    verifier = Apart(f"{VERIFIERS}:hangs", {}, True, 0.2, "here")
    hung = verifier._process
    with pytest.raises(TooLong):
        verifier(text)
    assert hung is not None and hung.poll() is not None
    verifier._asked["limit"] = verifier._limit = 300.0  # what is quick is not to be late on any machine
    other = WrittenText(1, 0, "3+2=", "5", 1, True, "5")
    assert verifier(other) == 1.0
    process = verifier._process
    assert process is not None and process.poll() is None
    del verifier
    assert process.wait(300) is not None
    found = Apart("kdmesh.builtin.metrics.numeric_answer:NumericAnswer", {"pattern": None}, False, 300, "here")
    assert [found(one) for one in (text, WrittenText(1, 0, "3+2=", "6", 1, True, "5"))] == [1.0, 0.0]
    assert found(WrittenText(1, 0, "3+2=", "6", 1, True, "")) is None
    monkeypatch.setattr(rewarding, "GRACE", 0.1)
    gone = Apart(f"{VERIFIERS}:leaves", {}, True, 300, "here")
    with pytest.raises(ValueError, match="ended with 3"):
        gone(text)
    deaf = Apart(f"{VERIFIERS}:ignores", {}, True, 0.1, "here")
    with pytest.raises(TooLong):
        deaf(text)


REFUSED = [
    (rewarded(reward="acuracy"), "streams.rollouts.reward.0", "unknown metric 'acuracy'"),
    (rewarded(reward="accuracy"), "streams.rollouts.reward.0", "is not of written texts"),
    (rewarded(reward="distinct_n"), "streams.rollouts.reward.0", "of all texts together"),
    (rewarded(reward={"pattern": {"match": "("}}), "streams.rollouts.reward.0.pattern.match", "no regular expression"),
    (rewarded(reward="no_such_module:thing"), "streams.rollouts.reward.0", "cannot import"),
    (rewarded(reward=f"{HERE}:MESHES"), "streams.rollouts.reward.0", "no bool or float class"),
    (rewarded(reward=None), "flows.0.stream", "nothing says so on 'rollouts'"),
    (rewarded(mix={"of": "train", "share": 0.5}), "flows.0.stream", "some batches of 'rollouts' are of given texts"),
    (rewarded(sampling={"max_new_tokens": 3}), "flows.0.stream", "one is written to each"),
    (rewarded(train={"batch_size": 5}), "flows.0.stream", "batches of 5 divide the 3"),
    (rewarded(OLD), "flows.0.objective", "writes anew for each update"),
    (rewarded(HOT, refresh="2 steps"), "flows.0.objective.ask.temperature", "are drawn at 1"),
    (
        changed(rewarded(), flows=[{"from": "labels", "to": ["s", "u"], "objective": "ask"}]),
        "flows.0.stream",
        "is not written by an agent",
    ),
    (
        changed(rewarded(), streams={"rollouts": {"reward": "numeric_answer"}}),
        "streams.rollouts.reward",
        "has no prompts to answer",
    ),
    (
        changed(rewarded(), flows=[{"from": "labels", "to": ["s", "u"], "stream": "rollouts", "objective": "ask",
                                    "denominator": {"group": "kind"}}]),
        "flows.0.denominator",
        "are not those of single samples",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "where", "what"), REFUSED, ids=[what for *_, what in REFUSED])
def test_what_cannot_be_asked_is_refused(fields: dict[str, Any], where: str, what: str) -> None:
    with pytest.raises(MeshError) as caught:
        examine(make_plan(parse(fields), registry()))
    assert caught.value.where == where and what in caught.value.what


@pytest.mark.parametrize(
    ("field", "value"), [("weight", 0), ("weight", "much"), ("time_limit", 0), ("late", True), ("late", 1.0)]
)
def test_numbers_of_a_verifier_are_numbers(field: str, value: Any) -> None:
    with pytest.raises(MeshError, match=f"`{field}` of 'numeric_answer'"):
        parse(rewarded(reward={"numeric_answer": {field: value}}))
