"""A whole off-policy training step of language models: kdmesh beside hand-written PyTorch loops over transformers.

LLaMA configurations: a frozen teacher of 4 layers and width 256 that is forwarded at every step, and a student of 2
layers and width 128; the loss is half the labels' and half the divergence named. Mutual learning is of two students,
each with the labels' cross-entropy and the KL of the other. AdamW, fused. Samples have 64 tokens, or from 16 to 64 in
batches as they come (*mixed*), or batched by length (*alike*, `text.bucket`). The loop by hand pads on the right and
gives no mask, as a causal model needs none, drops padding before the losses, and runs a frozen teacher without
gradient. Both sides start from the same weights, and see the same tokens, batches and padding; both keep freed memory,
as kdmesh has it in its processes. They take turns in one process, in blocks of a few steps, changing who is first.
Milliseconds are CPU time of one thread for a step, medians over blocks; the ratio is the median of the paired ratios of
kdmesh to the loop, at most 1.05. *Apart*: how far the losses of the last block are, relatively.

kdmesh forwards a frozen teacher for a window of up to 16 steps at once, each sample in a shape that depends on its own
length alone, so that live answers are equal to stored ones bit for bit. A block holds whole windows. Lengths are
rounded up to one of a few (48, 64 ...), which is what batches alike in length pay for.
Run: ``python benchmarks/text_step.py [--quick]``.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("KDMESH_STORE", "off")  # every teacher is computed

import copy
import random
import statistics
import string
import sys
import time
from dataclasses import dataclass
from math import log

import torch
from driven import Driven
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from kdmesh.hosts.memory import keep_memory
from kdmesh.streams.table import Table
from kdmesh.streams.texts import Sample, Texts

SAMPLES, LENGTH, SHORTEST, LR, CEILING = 512, 64, 16, 1e-3, 1.05


@dataclass(frozen=True)
class Case:
    """``objective`` None: two students teach each other. ``steps`` of a block, ``blocks`` of each side."""

    name: str
    objective: str | None = "jsd"
    words: int = 512
    batch: int = 8
    lengths: str = "equal"
    steps: int = 16  # a whole number of the windows in which a frozen teacher answers
    blocks: int = 12


CASES = (
    Case("jsd, 512 words"),
    Case("kl, 512 words", "kl"),
    Case("jsd, 512 words, mixed", lengths="mixed"),
    Case("jsd, 512 words, alike", lengths="alike"),
    Case("mutual, 512 words", None),
    Case("mutual, 512 words, mixed", None, lengths="mixed"),
    Case("jsd, 32,000 words", words=32_000, batch=16, steps=8, blocks=6),
)


def jsd(own: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Jensen-Shannon divergence of logits, mean over rows."""
    log_q, log_p = own.log_softmax(-1), target.log_softmax(-1)
    log_m = torch.logaddexp(log_q, log_p) - log(2)
    of_p = F.kl_div(log_m, log_p, reduction="batchmean", log_target=True)
    return 0.5 * (of_p + F.kl_div(log_m, log_q, reduction="batchmean", log_target=True))


def kl(own: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Forward KL of logits, mean over rows."""
    return F.kl_div(own.log_softmax(-1), target.softmax(-1), reduction="batchmean")


class Hand:
    """The loop by hand, over plain transformers models."""

    def __init__(
        self, case: Case, nets: dict, samples: list[torch.Tensor], order: list[torch.Tensor], pad: int
    ) -> None:
        self.case, self.samples, self.order, self.pad = case, samples, order, pad
        self.nets = copy.deepcopy(nets)
        self.learners = [net.train().requires_grad_() for name, net in self.nets.items() if name != "t"]
        self.optimizers = [torch.optim.AdamW(net.parameters(), lr=LR, fused=True) for net in self.learners]

    def __call__(self, first: int, last: int) -> list[float]:
        """Some steps; returns each learner's mean loss."""
        step = self.mutual if self.case.objective is None else self.taught
        losses = [step(self.order[number]) for number in range(first, last)]
        return [sum(values) / len(values) for values in zip(*losses, strict=True)]

    def batch(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Tokens ``[B, L]``, which rows of the flat outputs count (None: all), and the token that follows each."""
        rows = [self.samples[number] for number in index.tolist()]
        ids = pad_sequence(rows, batch_first=True, padding_value=self.pad)
        after = ids[:, 1:].flatten()
        if self.case.lengths == "equal":
            return ids, None, after
        lengths = torch.tensor([len(row) for row in rows])
        kept = (torch.arange(1, ids.shape[1]) < lengths[:, None]).flatten().nonzero().squeeze(1)
        return ids, kept, after[kept]

    @staticmethod
    def rows(net: torch.nn.Module, ids: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
        """The logits that count."""
        logits = net(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1)
        return logits if kept is None else logits[kept]

    def taught(self, index: torch.Tensor) -> list[float]:
        """One step of a student of a frozen teacher."""
        ids, kept, after = self.batch(index)
        with torch.no_grad():
            target = self.rows(self.nets["t"], ids, kept)
        own = self.rows(self.nets["s"], ids, kept)
        divergence = jsd if self.case.objective == "jsd" else kl
        return [self.descend(0, 0.5 * F.cross_entropy(own, after) + 0.5 * divergence(own, target))]

    def mutual(self, index: torch.Tensor) -> list[float]:
        """One step of two models that teach each other at once."""
        ids, kept, after = self.batch(index)
        logits = [self.rows(net, ids, kept) for net in self.learners]
        told = [value.detach() for value in reversed(logits)]
        pairs = zip(logits, told, strict=True)
        return [self.descend(n, F.cross_entropy(own, after) + kl(own, target)) for n, (own, target) in enumerate(pairs)]

    def descend(self, number: int, loss: torch.Tensor) -> float:
        """An update."""
        self.optimizers[number].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[number].step()
        return loss.item()


def mesh_of(case: Case) -> dict:
    """What kdmesh trains."""

    def llama(width: int, layers: int) -> dict:
        config = {
            "model_type": "llama",
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 32,
            "num_key_value_heads": width // 32,
            "intermediate_size": 4 * width,
            "max_position_embeddings": LENGTH,
            "vocab_size": case.words,
        }
        return {"model": {"hf": {"config": config, "tokenizer": {"characters": {}}}}}

    if case.objective is None:
        agents = {name: llama(128, 2) for name in ("a", "b")}
        flows = [{"from": "labels", "to": name, "objective": "ce"} for name in agents]
        flows += [{"from": a, "to": b, "objective": "kl"} for a, b in ("ba", "ab")]
    else:
        agents = {"t": {**llama(256, 4), "update": "frozen"}, "s": llama(128, 2)}
        flows = [
            {"from": "labels", "to": "s", "objective": "ce", "weight": 0.5},
            {"from": "t", "to": "s", "objective": case.objective, "weight": 0.5, "refresh": "step"},
        ]
    return {
        "task": "language_modelling",
        "data": {"dataset": "python:given", "validation": 0, "test": 0},
        "text": {"max_length": LENGTH, "bucket": case.lengths == "alike"},
        "agents": agents,
        "flows": flows,
        "train": {
            "steps": (case.blocks + 1) * case.steps,
            "batch_size": case.batch,
            "optimizer": {"adamw": {"lr": LR}},
            "drop_last": True,
            "threads": 1,
        },
        "placement": "together",
    }


def texts(case: Case) -> Table:
    """Random letters, a token each, after the one that begins a sample."""
    draw = random.Random(0)
    shortest = LENGTH if case.lengths == "equal" else SHORTEST
    sizes = [draw.randint(shortest, LENGTH) - 1 for _ in range(SAMPLES)]
    rows = [Sample("".join(draw.choices(string.ascii_lowercase, k=size))) for size in sizes]
    return Table(Texts(rows), None, 0, {"train": torch.arange(SAMPLES)})


class Mesh:
    """The same by kdmesh: its host, driven as a run drives it."""

    def __init__(self, case: Case) -> None:
        mesh = mesh_of(case)
        self.learners = [name for name in mesh["agents"] if name != "t"]
        self.driven = Driven(mesh, self.learners, (case.blocks + 1) * case.steps, texts(case))
        self.host = self.driven.host

    def __call__(self, first: int, last: int) -> list[float]:
        """Some steps; returns each learner's mean loss."""
        losses = self.driven(first, last)
        return [losses[name] for name in self.learners]

    def hand(self, case: Case) -> Hand:
        """The loop by hand from the same start, over the same batches."""
        shard = self.host.loader.shard("train", self.learners[0], torch.device("cpu"))
        numbers = range((case.blocks + 1) * case.steps)
        order = [shard.batch(number, case.batch, True).at for number in numbers]
        whole = shard.x.whole()
        samples = [row[:length].clone() for row, length in zip(whole.ids, whole.lengths.tolist(), strict=True)]
        nets = {name: agent.module.net for name, agent in self.host.agents.items()}
        return Hand(case, nets, samples, order, shard.x.pad)


def row(case: Case) -> tuple[str, bool]:
    """Measure one case; returns its line, and whether it keeps the bound."""
    mesh = Mesh(case)
    ways = {"by hand": mesh.hand(case), "kdmesh": mesh}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    losses: dict[str, list[float]] = {}
    for block in range(case.blocks + 1):  # the first is not counted
        first = block * case.steps
        for name in list(ways)[:: 1 if block % 2 else -1]:
            start = time.process_time()
            losses[name] = ways[name](first, first + case.steps)
            taken[name].append((time.process_time() - start) / case.steps)
    ratio = statistics.median(k / h for h, k in list(zip(*taken.values(), strict=True))[1:])
    apart = max(abs(k / h - 1) for h, k in zip(*losses.values(), strict=True))
    times = "".join(f"{1000 * statistics.median(values[1:]):12.1f}" for values in taken.values())
    fine = ratio <= CEILING
    return f"{case.name:28}{times}{ratio:10.3f}{apart:10.0e}" + ("" if fine else "  MISS"), fine


def main() -> None:
    """Measure every case and print the table."""
    options = argparse.ArgumentParser()
    options.add_argument("--quick", action="store_true", help="a third of the blocks")
    options.add_argument("--only", default="", help="cases with this in their name")
    given = options.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    print(f"torch {torch.__version__}, one thread, interleaved blocks, medians; CPU ms of a step\n")
    print(f"{'case':28}{'by hand ms':>12}{'kdmesh ms':>12}{'ratio':>10}{'apart':>10}")
    kept = True
    for case in CASES:
        if given.only not in case.name:
            continue
        line, fine = row(Case(**{**vars(case), "blocks": case.blocks // 3 if given.quick else case.blocks}))
        print(line, flush=True)
        kept = kept and fine
    sys.exit(not kept)


if __name__ == "__main__":
    main()
