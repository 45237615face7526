"""The contract of a task."""

from __future__ import annotations

import pickle
from typing import Any, ClassVar

import pytest
import torch

from kdmesh.contracts.task import Task
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.offers import TaskOffer
from kdmesh.plugins import registry
from kdmesh.spec.read import parse
from kdmesh.streams.table import Table
from kdmesh.testing.base import Contract

ROWS = 120
SPACES = ("probs", "marginals", "logits", "loss", "gradient")
PROBABLE = {
    "probs": ("classes", "relevance"),
    "marginals": ("indicators",),
}  # of which labels there are probabilities, by their space
COMPARED = {"probs": "kl", "marginals": "binary_kl"}  # by which objective


class TaskContract(Contract):
    """Checks a task: that what its offer states holds together, and that models learn it.

    - ``metrics``: offers of metrics that the task names and that are not installed, by name.
    - ``trains``: run a small mesh of numbers; needs the offer to be installed, and numbers among its ``data``.
    """

    __test__ = False
    kind = "tasks"
    metrics: ClassVar[dict[str, Any]] = {}
    trains: ClassVar[bool] = True

    @pytest.fixture
    def task(self, offer: TaskOffer, settings: dict[str, Any]) -> Task:
        """The task itself."""
        made: Task = offer.make(settings)
        return made

    def table(self, offer: TaskOffer) -> Table:
        """Samples ``[N, 6]`` with labels of the offer's kind: one of three classes, two values or three indicators.

        Of `relevance`, lists ``[N, 1 + 3, 6]``: the candidate whose first number is the largest is relevant.
        """
        drawn = torch.Generator().manual_seed(5)
        x, directions = torch.randn(ROWS, 6, generator=drawn), torch.randn(6, 3, generator=drawn)
        if offer.labels == "relevance":
            x = torch.randn(ROWS, 1 + 3, 6, generator=drawn)
            return Table(x, (x[:, 1:, 0] == x[:, 1:, 0].amax(1, keepdim=True)).float(), classes=0)
        if offer.labels == "values":
            return Table(x, (x @ directions)[:, :2].contiguous(), classes=0)
        if offer.labels == "indicators":
            return Table(x, (x @ directions > 0).long(), classes=0)
        return Table(x, (x @ directions).argmax(1), classes=3)

    def metric(self, name: str) -> Any:
        """The offer of a metric that the task names."""
        return self.metrics.get(name) or registry().find("metrics", name)

    def test_offer_holds_together(self, offer: TaskOffer) -> None:
        """Each trait has a value that there is."""
        for trait, known in (
            ("rows", ("samples", "units")),
            ("labels", ("classes", "values", "relevance", "indicators")),
            ("source", ("table", "spans", "tokens")),
            ("outputs", ("labels", "vocabulary")),
            ("head", ("", "sequence", "token", "causal", "candidates")),
        ):
            assert getattr(offer, trait) in known, f"{trait} {getattr(offer, trait)!r} is none of {', '.join(known)}"
        assert offer.data and set(offer.data) <= {"numbers", "texts"}, f"data {offer.data}"
        assert bool(offer.head) == ("texts" in offer.data), "a `head` is for texts, and texts need one"
        assert offer.spaces and set(offer.spaces) <= {*SPACES}, f"spaces {offer.spaces}"
        odd = [space for space, labels in PROBABLE.items() if space in offer.spaces and offer.labels not in labels]
        assert not odd, f"labels that are {offer.labels} have no {', '.join(odd)}"

    def test_metrics_fit(self, offer: TaskOffer) -> None:
        """Every metric is defined for the labels; the primary and the watched ones are reported."""
        for name in offer.metrics:
            assert offer.labels in self.metric(name).labels, f"{name} is not defined for {offer.labels}"
        assert offer.primary in offer.metrics, f"the primary metric {offer.primary} is not among {offer.metrics}"
        assert offer.watched, "early stopping has nothing to watch"
        assert set(offer.watched) <= set(offer.metrics), f"{offer.watched} is not among {offer.metrics}"
        assert all(self.metric(name).scalar for name in (offer.primary, *offer.watched)), "it is not one number"

    def test_loss_reads_labels(self, offer: TaskOffer) -> None:
        """The loss of labels is an objective that reads labels of this kind."""
        found = registry().find("objectives", offer.objective)
        assert "labels" in found.forms and offer.labels in found.labels, f"{offer.objective} reads no {offer.labels}"

    def test_answers_are_decided(self, offer: TaskOffer, task: Task) -> None:
        """``decide`` gives one or several int64 a row, or None where the offer says that answers are not discrete."""
        found = task.decide(torch.randn(7, 3, generator=torch.Generator().manual_seed(1)))
        assert (found is not None) == offer.decides, f"decides is {offer.decides}"
        whole = found is None or (len(found) == 7 and found.dim() <= 2 and found.dtype == torch.int64)
        assert whole, "not an answer for each row"

    def test_travels_to_other_processes(self, task: Task) -> None:
        """A plan with its task is sent to hosts."""
        assert type(pickle.loads(pickle.dumps(task))) is type(task)

    def test_chance_is_a_figure_of_its_metrics(self, offer: TaskOffer, task: Task) -> None:
        """Of a metric that is reported, within its range."""
        labels = self.table(offer).y
        assert labels is not None
        chance = task.chance(labels)
        if chance is not None:
            assert chance.metric in offer.metrics, f"{chance.metric} is not reported"
            metric = self.metric(chance.metric)
            said = f"chance is {chance.value}, and {chance.metric} goes from {metric.lowest} to {metric.highest}"
            assert metric.lowest is None or chance.value >= metric.lowest, said
            assert metric.highest is None or chance.value <= metric.highest, said

    def test_a_small_mesh_learns_it(self, offer: TaskOffer, task: Task, settings: dict[str, Any]) -> None:
        """Two teachers and a student of numbers: every metric is reported, and the student has beaten chance."""
        if not self.trains or "numbers" not in offer.data or offer not in registry().offers("tasks"):
            return
        table = self.table(offer)
        task.refuse(table)
        assert task.outputs(table) > 0, "a model without an output"
        mlp = {"model": {"mlp": {"hidden": [16]}}}
        objective = next((objective for space, objective in COMPARED.items() if space in offer.spaces), "mse")
        fields = {
            "task": {offer.name: settings},
            "data": {"dataset": "python:given"},
            "train": {"epochs": 12, "batch_size": 16, "optimizer": {"adam": {"lr": 0.02}}, "early_stopping": {}},
            "agents": dict.fromkeys(("a", "b", "s"), mlp),
            "connect": [{"ensemble": {"teachers": ["a", "b"], "student": "s", "objective": objective}}],
        }
        summary, _, _ = run_once(Request(parse(fields), "inline", table=table))
        for node in (*summary["agents"].values(), *summary["consensus"].values()):
            for split in ("validation", "test"):
                there = [name for name in offer.metrics if "characters" not in self.metric(name).needs]
                assert list(node["metrics"][split]) == there, f"{split}: {list(node['metrics'][split])}"
        assert not [note for note in summary["notes"] if note.startswith("at chance")], summary["notes"]
