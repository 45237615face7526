"""Meshes with the offers: equal to a plain loop in every bit, on Ray, broken off and resumed; the topology."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import kdmesh
import pytest
import torch
import yaml
from kdmesh import MeshError
from kdmesh.engine.check import examine
from plain_reward import Rewarded
from test_zero_difference_rollouts import BOTH, END, EPOCHS, NEW, SEED, SIZE, Both
from transformers import LlamaForCausalLM

from kdmesh_rl.offers import OBJECTIVES

FOLDER = Path(__file__).parents[1]
REWARD = ["numeric_answer", {"pattern": {"match": "[0-4]", "weight": 0.5}}]
CASES = {
    "by itself": ("", END, {"sampling": {"samples": 3}}, {}, {"draws": 3}),
    "with two teachers": ("tu", BOTH, {"sampling": {"samples": 2}}, {"std": "none"}, {"draws": 2, "std": "none"}),
    "over all tokens, tempered": (
        "t",
        END,
        {"sampling": {"samples": 3, "temperature": 1.3}},
        {"average": "token", "temperature": 1.3, "std": "population"},
        {"draws": 3, "temperature": 1.3, "average": "token", "std": "population"},
    ),
    "clipped, three steps at once": (
        "t",
        BOTH,
        {"sampling": {"samples": 3}, "refresh": "3 steps"},
        {"clip": 0.2},
        {"draws": 3, "steps": 3, "clip": 0.2},
    ),
    "clipped, by a constant": (
        "",
        END,
        {"sampling": {"samples": 2, "temperature": 0.8}, "refresh": "2 steps"},
        {"clip": 0.1, "average": "constant", "length": NEW, "temperature": 0.8},
        {"draws": 2, "steps": 2, "clip": 0.1, "average": "constant", "length": NEW, "temperature": 0.8},
    ),
}  # fmt: skip


class Judged(Both):
    """The same mesh with a flow of rewards before those of teachers, and the plain loop of it."""

    def __init__(self, folder, teachers, special, objective, plain):
        super().__init__(folder, teachers, special, **plain)
        self.objective = objective

    def flows(self, teachers, stream):
        own = {"from": "labels", "to": "s", "stream": stream, "objective": {"policy_gradient": self.objective}}
        return [own, *super().flows(teachers, stream)]

    def loop(self, rows):
        nets = {name: LlamaForCausalLM.from_pretrained(self.folder / name) for name in "s" + self.teachers}
        answers = [json.loads(line)["a"] for line in (self.folder / "sums.jsonl").read_text().splitlines()]
        plain = Rewarded(
            nets["s"].train(), [nets[name].eval() for name in self.teachers],
            {row: self.prompts[row] for row in rows}, {}, self.eos, self.pad, SEED, SIZE, NEW,
            lambda parameters: torch.optim.SGD(parameters, lr=0.2, momentum=0.9, fused=True),
            truth=dict(enumerate(answers)), words=self.words, **self.plain,
        )  # fmt: skip
        plain.train(EPOCHS)
        return plain


def both_sides(name, folder):
    teachers, special, stream, objective, plain = CASES[name]
    both = Judged(folder, teachers, special, objective, plain)
    return both, {**stream, "sampling": {"max_new_tokens": NEW, **stream["sampling"]}, "reward": REWARD}


@pytest.mark.parametrize("name", CASES)
def test_a_run_ends_with_the_weights_of_a_plain_loop(name, tmp_path):
    both, stream = both_sides(name, tmp_path)
    mesh = both.mesh(stream)
    loop = both.loop(examine(mesh.plan()).streams["train"].rows.tolist())
    result = mesh.run(backend="inline", out=tmp_path / "runs")
    lines = [json.loads(line) for line in (result.folder / "streams" / "rollouts.jsonl").read_text().splitlines()]
    assert [line["reward"] for line in lines] == loop.rewards and len(set(loop.rewards)) > 2
    start = LlamaForCausalLM.from_pretrained(tmp_path / "s").state_dict()
    for key, value in result["s"].module.net.state_dict().items():
        assert torch.equal(value, loop.student.state_dict()[key]), key
        assert not torch.equal(value, start[key]), key


@pytest.mark.parametrize("name", ["with two teachers", "clipped, three steps at once"])
def test_broken_off_and_resumed_it_is_the_same(name, tmp_path, monkeypatch):
    from kdmesh.backends.inline import InlineBackend
    from kdmesh.engine import teach

    class Killed(BaseException):
        """The process is gone."""

    monkeypatch.setattr(teach, "SECONDS", 0.0)
    monkeypatch.setattr(teach, "WINDOW", 2)
    made, last, inner = [0], [0], InlineBackend.call

    def call(self, host, method, *args, **options):
        made[0] += method == "run"
        if last[0] and made[0] == last[0]:
            raise Killed
        return inner(self, host, method, *args, **options)

    monkeypatch.setattr(InlineBackend, "call", call)
    both, stream = both_sides(name, tmp_path)
    bits = both.mesh(stream).run(backend="inline")["s"].weights_sha256
    whole = made[0]
    assert both.mesh(stream, "spread").run(backend="inline")["s"].weights_sha256 == bits
    last[0], made[0] = whole * 3 // 4, 0
    with pytest.raises(KeyboardInterrupt):
        both.mesh(stream).run(backend="inline", out=tmp_path / "runs", checkpoint_seconds=0)
    last[0] = 0
    (folder,) = (tmp_path / "runs").glob("*/*")
    found = both.mesh(stream).run(backend="inline", resume=folder)
    assert found["s"].weights_sha256 == bits


@pytest.mark.ray
def test_inline_and_ray_give_the_same_bits(tmp_path):
    both, stream = both_sides("clipped, three steps at once", tmp_path)
    found = [both.mesh(stream, "spread").run(backend=backend)["s"].weights_sha256 for backend in ("inline", "ray")]
    assert found[0] == found[1]


def test_the_mesh_learns_from_rewards_and_a_teacher(tmp_path):
    mesh = kdmesh.Mesh.read(FOLDER / "meshes" / "reward.yaml")
    result = mesh.run(backend="inline", out=tmp_path)
    lines = [json.loads(line) for line in (result.folder / "streams" / "rollouts.jsonl").read_text().splitlines()]
    early, late = lines[: len(lines) // 4], lines[-len(lines) // 4 :]
    assert sum(line["reward"] for line in late) > sum(line["reward"] for line in early)
    tally = result.summary["streams"]["rollouts"]["reward"]
    assert 0 < tally["equal"] < tally["groups"] and tally["texts"] == len(lines)
    assert any("all rewards are equal" in note for note in result.summary["notes"])
    (told,) = (one for one in result.summary["agents"]["student"]["objectives"].values() if "equal_groups" in one)
    assert 0 < told["equal_groups"] < 1


@pytest.mark.parametrize("std", ["sample", "none"])
def test_of_equal_rewards_nothing_is_learned(std, tmp_path):
    """No weight moves, and none is lost to a division by 0."""
    both = Judged(tmp_path, "", END, {"std": std}, {})
    reward = {"pattern": {"match": "never written"}}
    sampling = {"max_new_tokens": NEW, "samples": 3}
    result = both.mesh({"sampling": sampling, "reward": reward}, epochs=1).run(backend="inline")
    start = LlamaForCausalLM.from_pretrained(tmp_path / "s").state_dict()
    for key, value in result["s"].module.net.state_dict().items():
        assert torch.equal(value, start[key]), key
    tally = result.summary["streams"]["rollouts"]["reward"]
    assert tally["equal"] == tally["groups"] > 0
    assert any(f"in {tally['groups']} of {tally['groups']} groups" in note for note in result.summary["notes"])


def test_what_the_readme_shows_can_be_planned():
    blocks = re.findall(r"```yaml\n(.*?)```", (FOLDER / "README.md").read_text(encoding="utf-8"), re.S)
    for block in blocks:
        names = [flow.objective.name for flow in kdmesh.Mesh(**yaml.safe_load(block)).plan().spec.flows]
        assert "policy_gradient" in names
    assert blocks


@pytest.mark.parametrize(
    ("stream", "objective", "where", "what"),
    [
        ({"reward": None}, {}, "flows.0.stream", "nothing says so"),
        ({}, {"clip": 0.2}, "flows.0.objective", "writes anew for each update"),
        ({"sampling": {"samples": 4}}, {}, "flows.0.stream", "batches of 6 divide the 4"),
        ({}, {"nonsense": 1}, "flows.0.objective.policy_gradient.nonsense", "nonsense"),
        ({}, {"clip_high": 0.2}, "flows.0.objective.policy_gradient", "clip_high"),
    ],
)
def test_what_makes_no_sense_is_refused(stream, objective, where, what, tmp_path):
    both = Judged(tmp_path, "", END, objective, {})
    fields = {"sampling": {"samples": 3}, "reward": REWARD, **stream}
    fields["sampling"] = {"max_new_tokens": NEW, **fields["sampling"]}
    with pytest.raises(MeshError, match=what) as error:
        both.mesh({key: value for key, value in fields.items() if value is not None}).run(backend="inline")
    assert error.value.where == where


def test_the_command_line_lists_the_offers_under_this_package():
    done = subprocess.run([sys.executable, "-m", "kdmesh", "plugins", "--json"], capture_output=True, check=True)
    found = {row["name"] for row in json.loads(done.stdout) if row.get("dist", "").startswith("kdmesh-rl")}
    assert found == {offer.name for offer in OBJECTIVES}
