"""A teacher asked about the student's top-k: runs and plain loops end with weights whose largest difference is 0.0."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plain
import pytest
import test_zero_difference_rollouts as rollouts
import torch
from both import LARGE, MLP, Both
from plain_rollouts import Learned, Plain
from torch import Tensor
from transformers import LlamaForCausalLM

from kdmesh.engine.check import examine

TAILS = ["spread", "bucket", "renormalise"]


def likeliest(student: Tensor, k: int) -> Tensor:
    """What the student would ask about: of each row its k likeliest outputs."""
    return student.detach().argsort(1, descending=True)[:, :k]


def reverse_kl(student: Tensor, teacher: Tensor, asked: Tensor, tail: str) -> Tensor:
    """The mean over rows of ``KL(student || teacher)``, of a teacher of whom these columns are known, and the rest."""
    mass = teacher.logsumexp(1, keepdim=True)
    known = teacher.gather(1, asked) - mass
    rest = teacher.scatter(1, asked, -torch.inf).logsumexp(1, keepdim=True) - mass
    if tail == "spread":
        others = torch.tensor(float(teacher.shape[1] - asked.shape[1])).log()
        own, said = student, (rest - others).expand_as(teacher).scatter(1, asked, known)
    elif tail == "bucket":
        named = student.log_softmax(1).gather(1, asked)
        away = torch.zeros_like(student, dtype=torch.bool).scatter(1, asked, True)
        left = student.masked_fill(away, -torch.inf).logsumexp(1) - student.logsumexp(1)
        own = torch.cat([named, left[:, None]], 1)
        said = torch.cat([known, rest], 1)
    else:
        own, said = student.gather(1, asked), known
    log_q = own.log_softmax(1)
    return (log_q.exp() * (log_q - said.log_softmax(1))).sum() / len(own)


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_student_of_classes(optimizer: str, tail: str) -> None:
    both = Both(optimizer, {"t": LARGE, "s": MLP}, "")
    both.mesh.flow("labels", ["t", "s"], objective="ce")
    signal = {"reader_top_k": {"k": 3, "tail": tail}}
    both.mesh.flow("t", "s", objective="reverse_kl", signal=signal, weight=0.5)
    teacher, student = both.modules["t"], both.modules["s"]
    optimizers = [both.make(net.parameters()) for net in (teacher, student)]
    unlike = 0
    for at in both.data.batches():
        x, y = both.data.x[at], both.data.y[at]
        said, own = teacher(x), student(x)
        asked = likeliest(own, 3)
        unlike += int((asked.sort(1).values != likeliest(said, 3).sort(1).values).sum())
        loss = torch.nn.functional.cross_entropy(own, y) + 0.5 * reverse_kl(own, said.detach(), asked, tail)
        plain.descend(optimizers[0], torch.nn.functional.cross_entropy(said, y))
        plain.descend(optimizers[1], loss)
    assert unlike, "what the student finds likeliest is to be something else than what the teacher does"
    assert both.difference() == 0.0


class Asking(rollouts.Both):
    """A mesh of language models whose student asks, on what it writes itself or on given texts."""

    tail = "spread"

    def flows(self, *given: Any) -> list[dict[str, Any]]:
        signal = {"reader_top_k": {"k": 4, "tail": self.tail}}
        return [{**flow, "signal": signal} for flow in super().flows(*given)]


@dataclass
class Asked(Plain):
    """Its loop."""

    tail: str = "spread"

    def learn(
        self, optimizer: torch.optim.Optimizer, texts: list[Learned], rows: list[int], said: list[Tensor]
    ) -> None:
        optimizer.zero_grad()
        answers, total = self.answers(self.student, texts), torch.zeros(())
        for other in said:
            total = total + reverse_kl(answers, other, likeliest(answers, 4), self.tail)
        total.backward()
        optimizer.step()


CASES: dict[str, tuple[str, dict[str, Any] | None, dict[str, Any]]] = {
    "two teachers": ("tu", {}, {}),
    "half of the batches given": ("t", {"mix": {"of": "train", "share": 0.5}}, {"share": 0.5}),
    "given texts, itself told the answer": ("", None, {"hinted": True, "share": 1.0}),
}


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("case", CASES)
def test_a_small_language_model(case: str, tail: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teachers, stream, more = CASES[case]
    monkeypatch.setattr(rollouts, "Plain", functools.partial(Asked, tail=tail))
    both = Asking(tmp_path, teachers, rollouts.BOTH, **more)
    both.tail = tail
    mesh = both.mesh(None if stream is None else {**stream, "sampling": {"max_new_tokens": rollouts.NEW}})
    loop = both.loop(examine(mesh.plan()).streams["train"].rows.tolist())
    result = mesh.run(backend="inline")
    start = LlamaForCausalLM.from_pretrained(tmp_path / "s").state_dict()
    for name, value in result["s"].module.net.state_dict().items():
        assert torch.equal(value, loop.student.state_dict()[name]), name
        assert not torch.equal(value, start[name]), name
