"""An on-policy step of language models: kdmesh beside a loop by hand and, where TRL is installed, beside its trainers.

A student answers a batch of 8 prompts of 16 tokens with 16 new ones, sampled at temperature 1; then a frozen teacher
says what it thinks of each token of the answers, and the student learns by the Jensen-Shannon divergence. LLaMA
configurations: a teacher of 4 layers and width 256, a student of 2 layers and width 128, 512 words; AdamW. The loop by
hand is `generate` of transformers, two forwards and the loss on the answers alone. kdmesh is driven as a run drives it,
once with texts written anew for each step (`refresh: step`), once with those of 4 steps written together. TRL's are
`GKDTrainer` (`lmbda=1`, `beta=0.5`) and `DistillationTrainer`, of the version that is printed, timed by their callbacks
from the beginning of a step to its end, so without their set-up and their data loader.

All take turns in one process on one thread, in blocks of a few steps, from the same weights and prompts. Milliseconds
are CPU time of a step, medians over blocks; the ratio is the median of the paired ratios to the loop by hand, of which
kdmesh may have at most 1.05. What is sampled differs, so the losses are no measure of sameness here: that kdmesh's
texts and updates are those of a plain loop is tested, bit by bit, in ``tests/text``.
Run: ``python benchmarks/on_policy.py [--quick]``; with TRL, in an environment of its own: ``make peers``.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("KDMESH_STORE", "off")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import copy
import importlib.metadata
import importlib.util
import io
import random
import statistics
import string
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import torch
from driven import Driven
from text_step import jsd

from kdmesh.hosts.memory import keep_memory
from kdmesh.streams.table import Table
from kdmesh.streams.texts import Sample, Texts

SAMPLES, PROMPT, NEW, BATCH, WORDS, LR, STEPS, CEILING = 512, 16, 16, 8, 512, 1e-3, 4, 1.05
TEMPLATE = "{% for one in messages %}{{ one['content'] }}{% endfor %}"  # a chat as its letters, for TRL
Step = Callable[[int, int], float]


def llama(width: int, layers: int) -> dict[str, Any]:
    """A model of a mesh."""
    config = {
        "model_type": "llama",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 32,
        "num_key_value_heads": width // 32,
        "intermediate_size": 4 * width,
        "max_position_embeddings": 2 * (PROMPT + NEW),
        "vocab_size": WORDS,
    }
    return {"model": {"hf": {"config": config, "tokenizer": {"characters": {}}}}}


def mesh(refresh: str, steps: int) -> dict[str, Any]:
    """What kdmesh trains."""
    sampling = {"max_new_tokens": NEW, "temperature": 1.0}
    return {
        "task": "language_modelling",
        "data": {"dataset": "python:given", "validation": 0, "test": 0},
        "text": {"max_length": 2 * (PROMPT + NEW)},
        "agents": {"t": {**llama(256, 4), "update": "frozen"}, "s": llama(128, 2)},
        "streams": {"answers": {"generated_by": "s", "prompts": "train", "refresh": refresh, "sampling": sampling}},
        "flows": [{"from": "t", "to": "s", "stream": "answers", "objective": "jsd"}],
        "train": {
            "steps": steps,
            "batch_size": BATCH,
            "optimizer": {"adamw": {"lr": LR}},
            "drop_last": True,
            "threads": 1,
        },
        "placement": "together",
    }


def letters() -> list[str]:
    """Prompts of random letters, a token each; with the token that begins a text they have 16."""
    draw = random.Random(0)
    return ["".join(draw.choices(string.ascii_lowercase, k=PROMPT - 1)) for _ in range(SAMPLES)]


class Mesh:
    """kdmesh, driven as a run drives it."""

    def __init__(self, refresh: str, steps: int) -> None:
        rows = [Sample("a", prompt=text) for text in letters()]
        table = Table(Texts(rows), None, 0, {"train": torch.arange(SAMPLES)})
        self.driven = Driven(mesh(refresh, steps), ["s"], steps, table)

    def __call__(self, first: int, last: int) -> float:
        """CPU seconds of some steps."""
        start = time.process_time()
        self.driven(first, last)
        return time.process_time() - start


class Hand:
    """The loop by hand, over plain transformers models."""

    def __init__(self, nets: dict[str, Any], prompts: torch.Tensor, pad: int) -> None:
        self.nets, self.prompts, self.pad = copy.deepcopy(nets), prompts, pad
        self.student = self.nets["s"].train().requires_grad_()
        self.nets["t"].eval()
        self.optimizer = torch.optim.AdamW(self.student.parameters(), lr=LR, fused=True)

    def __call__(self, first: int, last: int) -> float:
        """CPU seconds of some steps."""
        start = time.process_time()
        for number in range(first, last):
            at = torch.arange(number * BATCH, (number + 1) * BATCH) % len(self.prompts)
            self.step(self.prompts[at])
        return time.process_time() - start

    def step(self, prompts: torch.Tensor) -> None:
        """Answer, score, learn."""
        self.student.eval()
        ids = self.student.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=NEW,
            do_sample=True,
            top_k=0,
            pad_token_id=self.pad,
        )
        self.student.train()
        learned = slice(PROMPT - 1, -1)
        with torch.no_grad():
            target = self.nets["t"](input_ids=ids, use_cache=False).logits[:, learned].flatten(0, 1)
        own = self.student(input_ids=ids, use_cache=False).logits[:, learned].flatten(0, 1)
        self.optimizer.zero_grad(set_to_none=True)
        loss = jsd(own, target)
        loss.backward()
        self.optimizer.step()
        loss.item()


def trainers(nets: dict[str, Any], tokenizer: Any) -> dict[str, Step]:
    """TRL's, each a callable that trains for some steps and says how many CPU seconds these took."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import DistillationConfig, DistillationTrainer
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    class Clock(TrainerCallback):
        """Adds up the CPU time of steps."""

        def __init__(self) -> None:
            self.start, self.spent = 0.0, 0.0

        def on_step_begin(self, *args: Any, **more: Any) -> None:
            self.start = time.process_time()

        def on_step_end(self, *args: Any, **more: Any) -> None:
            self.spent += time.process_time() - self.start

    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template, tokenizer.padding_side = TEMPLATE, "left"
    folder = tempfile.mkdtemp()
    chats = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}]} for text in letters()
    ]
    shared = {
        "max_steps": STEPS,
        "per_device_train_batch_size": BATCH,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "temperature": 1.0,
    }
    gkd = GKDConfig(folder, lmbda=1.0, beta=0.5, max_length=PROMPT + NEW, max_new_tokens=NEW, **shared)
    distil = DistillationConfig(folder, beta=0.5, max_completion_length=NEW, **shared)
    made = {
        "TRL GKDTrainer": (GKDTrainer, gkd, Dataset.from_list(chats)),
        "TRL DistillationTrainer": (DistillationTrainer, distil, Dataset.from_list([{"prompt": t} for t in letters()])),
    }

    def step(kind: Any, args: Any, data: Any) -> Step:
        own = copy.deepcopy(nets)
        clock = Clock()
        trainer = kind(
            model=own["s"].train().requires_grad_(),
            teacher_model=own["t"].eval(),
            args=args,
            train_dataset=data,
            processing_class=copy.deepcopy(tokenizer),
            callbacks=[clock],
        )

        def call(_first: int, _last: int) -> float:
            clock.spent = 0.0
            with redirect_stdout(io.StringIO()):
                trainer.train()
            return clock.spent

        return call

    return {name: step(*given) for name, given in made.items()}


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser()
    options.add_argument("--quick", action="store_true", help="a third of the blocks")
    blocks = 5 if options.parse_args().quick else 15
    torch.set_num_threads(1)
    keep_memory()
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    count = (blocks + 1) * STEPS
    ways: dict[str, Step] = {"kdmesh, step": Mesh("step", count), "kdmesh, 4 steps": Mesh("4 steps", count)}
    first = ways["kdmesh, step"]
    assert isinstance(first, Mesh)
    nets = {name: agent.module.net for name, agent in first.driven.host.agents.items()}
    encoder = first.driven.host.reading.encoder("s")
    prompts = torch.tensor([encoder.tokenizer(text).input_ids for text in letters()])
    prompts = prompts if prompts.shape[1] == PROMPT else prompts[:, :PROMPT]
    assert prompts.shape == (SAMPLES, PROMPT), prompts.shape
    ways = {"by hand": Hand(nets, prompts, encoder.pad), **ways}
    said = "without TRL"
    if importlib.util.find_spec("trl"):
        ways |= trainers(nets, encoder.tokenizer)
        said = f"trl {importlib.metadata.version('trl')}"
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for block in range(blocks + 1):  # the first is not counted
        for name in list(ways)[:: 1 if block % 2 else -1]:
            taken[name].append(ways[name](block * STEPS, (block + 1) * STEPS) / STEPS)
    print(f"torch {torch.__version__}, transformers {importlib.metadata.version('transformers')}, {said}; one thread")
    print(f"{blocks} interleaved blocks of {STEPS} steps, medians; CPU ms of a step\n")
    print(f"{'':28}{'ms':>10}{'to by hand':>12}")
    base = taken["by hand"][1:]
    for name, values in taken.items():
        ratios = [one / hand for one, hand in zip(values[1:], base, strict=True)]
        ratio, late = statistics.median(ratios), name == "kdmesh, step"
        print(
            f"{name:28}{1000 * statistics.median(values[1:]):10.1f}{ratio:12.2f}"
            + ("  MISS" if late and ratio > CEILING else "")
        )


if __name__ == "__main__":
    main()
