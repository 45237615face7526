"""STaR: a run and a loop of plain transformers keep the same texts and end with the same weights; broken off, too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_star import PlainStar
from test_zero_difference_rollouts import BOTH, NEW, SEED, SIZE, Both
from transformers import LlamaForCausalLM

import kdmesh
from kdmesh.backends import Session
from kdmesh.backends.inline import InlineBackend
from kdmesh.cli import main
from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request

ROUNDS, DRAWS, STEPS = 2, 4, 6


def mesh(both: Both, **more: Any) -> kdmesh.Mesh:
    """A model that learns ten answers, and two rounds in which it answers, and its base learns what is right."""
    star = {
        "student": "s", "rounds": ROUNDS, "hint": "{{ text }}={{ prompt }}", "labels_stream": "few",
        "sampling": {"max_new_tokens": NEW, "samples": DRAWS},
    }  # fmt: skip
    return kdmesh.Mesh(
        task="language_modelling",
        data=both.data,
        text={"bucket": False},
        seed=SEED,
        agents={"s": {"model": {"hf": {"path": str(both.folder / "s"), "max_length": 40}}}},
        streams={"few": {"size": 10}},
        connect=[{"star": star}],
        train={"steps": STEPS, "batch_size": SIZE, "optimizer": {"sgd": {"lr": 0.2, "momentum": 0.9}}},
        **more,
    )


def learned(folder: Path) -> list[dict[int, str]]:
    """By round, what was learned, by row, of a run's files."""
    found = []
    for turn in range(1, ROUNDS + 1):
        (file,) = folder.glob(f"*/*/streams/star.{turn}.jsonl")
        lines = map(json.loads, file.read_text(encoding="utf-8").splitlines())
        found.append({line["sample"]: line["text"] for line in lines if line["kept"]})
    return found


def test_a_run_and_a_plain_loop_keep_the_same_and_end_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = Both(tmp_path, "", BOTH)
    streams = examine(mesh(both).plan()).streams
    rows = streams["train"].rows.tolist()
    plain = PlainStar(
        LlamaForCausalLM.from_pretrained(tmp_path / "s"), [], {row: both.prompts[row] for row in rows},
        {row: both.given[row] for row in rows}, both.eos, both.pad, SEED, SIZE, NEW,
        lambda parameters: torch.optim.SGD(parameters, lr=0.2, momentum=0.9, fused=True),
        draws=DRAWS, told={row: both.told[row] for row in rows}, words=both.words, updates=STEPS,
        right={row: sum(divmod(row, 5)) for row in rows}, few=streams["few"].rows.tolist(),
    )  # fmt: skip
    nets = dict(zip(("s", "s.r1", "s.r2"), plain.rounds(ROUNDS), strict=True))
    kept = [{row: both.words.decode(text, skip_special_tokens=True) for row, text in one.items()} for one in plain.kept]
    assert all(0 < len(one) < len(rows) for one in kept)

    result = mesh(both).run(backend="inline", out=tmp_path / "whole")
    assert learned(tmp_path / "whole") == kept
    start = LlamaForCausalLM.from_pretrained(tmp_path / "s").state_dict()
    for name, net in nets.items():
        for part, value in result[name].module.net.state_dict().items():
            assert torch.equal(value, net.state_dict()[part]), (name, part)
            assert not torch.equal(value, start[part]), (name, part)

    inner, stages = InlineBackend.call, list[str]()

    def mortal(self: Any, host: str, method: str, *args: Any, **options: Any) -> Any:
        if method == "run" and args[0].stage not in stages:
            stages.append(args[0].stage)
            if len(stages) == 2:
                raise KeyboardInterrupt
        return inner(self, host, method, *args, **options)

    monkeypatch.setattr(InlineBackend, "call", mortal)
    with pytest.raises(KeyboardInterrupt):
        mesh(both, placement="spread").run(backend="inline", out=tmp_path / "broken")
    (folder,) = (tmp_path / "broken").glob("*/*")
    assert main(["resume", str(folder), "--quiet"]) == 0
    assert len(stages) == 3 and learned(tmp_path / "broken") == kept
    sums = {name: one["weights_sha256"] for name, one in result.summary["agents"].items()}
    again = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert {name: one["weights_sha256"] for name, one in again["agents"].items()} == sums


@pytest.mark.ray
def test_on_ray_it_keeps_the_same_and_ends_with_the_same_weights(tmp_path: Path, ray_session: Session) -> None:
    hosts = {"a": ["s", "s.hinted", "s.r2"], "b": ["s.r1", "s.r1.hinted"]}
    spec = mesh(Both(tmp_path, "", BOTH), placement=hosts).plan().spec
    sums = []
    for session in (Session("inline"), ray_session):
        request = Request(spec, session.name, out=tmp_path / session.name)
        agents = run_once(request, session=session)[0]["agents"]
        sums.append({name: one["weights_sha256"] for name, one in agents.items()})
    assert sums[0] == sums[1]
    assert learned(tmp_path / "inline") == learned(tmp_path / ray_session.name) and all(learned(tmp_path / "inline"))
