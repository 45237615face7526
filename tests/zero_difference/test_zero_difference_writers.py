"""Sequence-level distillation from several writers: a run and a plain loop end with the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from plain_rollouts import Learned, Plain
from test_zero_difference_rollouts import BOTH, EPOCHS, NEW, Both
from transformers import LlamaForCausalLM

import kdmesh
from kdmesh.engine.check import examine

DRAWS = 2
SAMPLING = {"max_new_tokens": NEW, "samples": DRAWS}


def test_a_student_of_two_writers_learns_all_their_texts(tmp_path: Path) -> None:
    both = Both(tmp_path, "tu", BOTH)
    once = {"prompts": "train", "refresh": "once", "sampling": SAMPLING}
    flow = {"from": "labels", "to": "s", "objective": "ce", "weight": 0.5}
    model = {name: {"model": {"hf": {"path": str(tmp_path / name), "max_length": 40}}} for name in "tus"}
    mesh = kdmesh.Mesh(
        task="language_modelling",
        data=both.data,
        text={"bucket": False},
        placement="together",
        seed=7,
        agents={**model, **{name: {**model[name], "update": "frozen"} for name in "tu"}},
        streams={f"of_{name}": {"generated_by": name, **once} for name in "tu"},
        flows=[{**flow, "stream": f"of_{name}"} for name in "tu"],
        train={"epochs": EPOCHS, "batch_size": 6, "optimizer": {"sgd": {"lr": 0.2, "momentum": 0.9}}},
    )
    rows = examine(mesh.plan()).streams["train"].rows.tolist()
    nets = {name: LlamaForCausalLM.from_pretrained(tmp_path / name) for name in "stu"}
    plain = Plain(
        nets["s"].train(), [], {row: both.prompts[row] for row in rows}, {}, both.eos, both.pad, 7, 6, NEW,
        lambda parameters: torch.optim.SGD(parameters, lr=0.2, momentum=0.9, fused=True), draws=DRAWS,
    )  # fmt: skip
    texts: dict[str, dict[tuple[int, int], Learned]] = {}
    for name in "tu":
        said = plain.once(nets[name].eval(), name, f"of_{name}", plain.prompts, DRAWS)
        texts[name] = {at: (plain.prompts[at[0]] + text, len(plain.prompts[at[0]])) for at, text in said.items()}
    optimizer = plain.make(plain.student.parameters())
    for batch in plain.batches(EPOCHS):
        optimizer.zero_grad()
        total = torch.zeros(())
        for name in "tu":
            own = [texts[name][one] for one in batch]
            targets = torch.tensor([token for ids, asked in own for token in ids[asked:]])
            total = total + 0.5 * torch.nn.functional.cross_entropy(plain.answers(plain.student, own), targets)
        total.backward()
        optimizer.step()
    result = mesh.run(backend="inline", out=tmp_path / "runs")
    for name, value in result["s"].module.net.state_dict().items():
        assert torch.equal(value, plain.student.state_dict()[name]), name
    for name in "tu":  # whose each text is stands in the run's folder
        path = result.folder / "streams" / f"of_{name}.jsonl"
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert {line["producer"] for line in lines} == {name}
        told = {(line["sample"], line["draw"]): line["text"] for line in lines}
        decode = both.words.decode
        assert told == {one: decode(ids[asked:], skip_special_tokens=True) for one, (ids, asked) in texts[name].items()}
        assert result.summary["streams"][f"of_{name}"]["written"] == DRAWS * len(rows) == len(told)
