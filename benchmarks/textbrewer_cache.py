"""Students that never compute a teacher twice: kdmesh's store beside TextBrewer's cached distillers.

Random samples and frozen random teachers, as in ``store_runs.py``: 4,096 samples of 64 numbers, 10 classes, students of
12k and 302k parameters, one teacher and three, of two layers of 1,024; ten epochs in batches of 64, AdamW. The loss is
the labels' cross-entropy and the KL at temperature 4, of three teachers to the mean of their logits (TextBrewer's `ce`,
which has its gradient, weighted by the squared temperature). TextBrewer computes the teachers' logits once, in batches
that stay as they were drawn, holds batches and logits in memory, and shuffles the batches; they are gone at the end of
the process. kdmesh draws new batches in each epoch and keeps the answers on disk: *cold* is a run with an empty store,
*warm* one that finds all; *live* is without a store.

All take turns in one process, on one thread; CPU seconds of the training with what is computed of teachers in it,
medians; ratios are medians of the paired ratios of TextBrewer's seconds to kdmesh's: above 1, kdmesh is ahead.
Run: ``python benchmarks/textbrewer_cache.py [--quick]`` where TextBrewer is installed: ``make peers``.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import copy
import importlib.metadata
import logging
import random
import statistics
import tempfile
import time
from functools import partial
from typing import Any

import store_runs
import torch
from textbrewer import BasicDistiller, DistillationConfig, MultiTeacherDistiller, TrainingConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from kdmesh.hosts.memory import keep_memory
from kdmesh.streams.table import Table

EPOCHS, TEMPERATURE, WIDTH, LR = 10, 4.0, 1024, 1e-3


def mesh(teachers: int, student: Any) -> dict[str, Any]:
    """What kdmesh trains."""
    fields = store_runs.mesh(teachers, WIDTH, EPOCHS, "step", student)
    for flow in fields["flows"]:
        if flow.get("objective") == "kl":
            flow["objective"] = {"kl": {"temperature": TEMPERATURE}}
    if teachers > 1:
        fields["consensus"] = {"c": {"rule": "mean", "space": "logits"}}
    return fields


def mlp(*widths: int) -> nn.Sequential:
    """The same networks in plain PyTorch."""
    layers: list[nn.Module] = []
    for before, after in zip((64, *widths), (*widths, store_runs.CLASSES), strict=True):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Student(nn.Module):
    """Logits and the labels' loss, as TextBrewer asks for them."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Answer, and compare."""
        logits = self.net(x)
        return logits, nn.functional.cross_entropy(logits, y)


def cached(table: Table, teachers: list[Student], student: Student) -> float:
    """CPU seconds of a training by TextBrewer, from new weights of the student."""
    assert isinstance(table.x, Tensor) and isinstance(table.y, Tensor)
    own = copy.deepcopy(student).train()
    distil = DistillationConfig(
        temperature=TEMPERATURE,
        kd_loss_type="ce",
        kd_loss_weight=TEMPERATURE**2,
        hard_label_weight=1.0,
        is_caching_logits=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        train = TrainingConfig(device="cpu", output_dir=folder, ckpt_frequency=1, ckpt_epoch_frequency=2 * EPOCHS)
        kind, given = (MultiTeacherDistiller, teachers) if len(teachers) > 1 else (BasicDistiller, teachers[0])
        first, both = partial(adapted, True), partial(adapted, False)
        distiller = kind(train, distil, given, own, both, first)
        batches = DataLoader(TensorDataset(table.x, table.y), store_runs.BATCH, shuffle=True)
        optimizer = torch.optim.AdamW(own.parameters(), lr=LR, fused=True)
        start = time.process_time()
        with distiller:
            distiller.train(optimizer, batches, num_epochs=EPOCHS)
        return time.process_time() - start


def adapted(losses: bool, batch: Any, outputs: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """What TextBrewer reads of a model's outputs; ``losses``: the labels', too."""
    return {"logits": (outputs[0],), **({"losses": outputs[1]} if losses else {})}


def main() -> None:
    """Measure, and print."""
    options = argparse.ArgumentParser()
    options.add_argument("--quick", action="store_true", help="three turns instead of seven")
    turns = 3 if options.parse_args().quick else 7
    torch.set_num_threads(1)
    keep_memory()
    random.seed(0)
    logging.getLogger("textbrewer").setLevel(logging.ERROR)
    logging.disable(logging.INFO)
    table = store_runs.data()
    print(
        f"torch {torch.__version__}, textbrewer {importlib.metadata.version('textbrewer')}, one thread, {turns} turns"
    )
    print(f"\n{'CPU seconds':24}{'TextBrewer':>12}{'live':>8}{'cold':>8}{'warm':>8}{'/ cold':>9}{'/ warm':>9}")
    for name, model in store_runs.STUDENTS.items():
        student = Student(mlp(*model["mlp"]["hidden"]))
        for count in (1, 3):
            fields = mesh(count, model)
            teachers = [Student(mlp(WIDTH, WIDTH)).eval() for _ in range(count)]
            with tempfile.TemporaryDirectory() as folder:
                store_runs.seconds(fields, table, folder)
                ways = {
                    "TextBrewer": partial(cached, table, teachers, student),
                    "live": partial(store_runs.seconds, fields, table, "off"),
                    "cold": partial(store_runs.cold, fields, table),
                    "warm": partial(store_runs.seconds, fields, table, folder),
                }
                taken: dict[str, list[float]] = {one: [] for one in ways}
                for turn in range(turns):
                    for one in list(ways)[:: 1 if turn % 2 else -1]:
                        taken[one].append(ways[one]())
            ahead = [
                statistics.median(tb / own for tb, own in zip(taken["TextBrewer"], taken[one], strict=True))
                for one in ("cold", "warm")
            ]
            words = f"{name}, {count} {'teacher' if count == 1 else 'teachers'}"
            middles = [statistics.median(values) for values in taken.values()]
            print(
                f"{words:24}{middles[0]:>12.2f}" + "".join(f"{one:>8.2f}" for one in middles[1:])
                + "".join(f"{one:>9.2f}" for one in ahead), flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
