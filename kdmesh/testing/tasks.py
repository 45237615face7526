"""The contract of a task."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

from kdmesh.contracts.task import Task
from kdmesh.offers import TaskOffer
from kdmesh.plugins import registry
from kdmesh.streams.table import Table
from kdmesh.testing import small
from kdmesh.testing.alike import Alike, At, here
from kdmesh.testing.run_mesh import MeshRun, RunMesh

ROWS = 120
SPACES = ("probs", "marginals", "logits", "loss", "gradient")
PROBABLE = {
    "probs": ("classes", "relevance"),
    "marginals": ("indicators",),
}  # of which labels there are probabilities, by their space
COMPARED = {"probs": "kl", "marginals": "binary_kl"}  # by which objective


class TaskContract(Alike):
    """Checks a task: that what its offer states holds together, and that models learn it.

    - ``metrics``: offers of metrics that the task names and that are not installed, by name.
    - ``trains``: whether models of the small mesh are to be better than chance; of numbers alone.
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
        """Samples ``[N, 6]`` with labels of the offer's kind: see :func:`kdmesh.testing.small.table`."""
        return small.table(offer.labels, rows=ROWS)

    def made(self, offer: TaskOffer, settings: dict[str, Any]) -> Task:
        """The task itself."""
        found: Task = offer.make(settings)
        return found

    def asked(self, offer: TaskOffer, thing: Task, number: int, at: At = here) -> Any:
        """What it decides of scores; how many outputs there are, and what chance is, of the small table."""
        scores = at(torch.randn(7, 3, generator=torch.Generator().manual_seed(number)))
        texts = "numbers" not in offer.data
        table = small.texts(classes=False, spans=offer.source == "spans") if texts else self.table(offer)
        chance = None if table.y is None else thing.chance(at(table.y[number:].clone()))
        thing.refuse(table)
        return thing.decide(scores), None if chance is None else (chance.metric, chance.value), thing.outputs(table)

    def small_mesh(self, offer: TaskOffer, settings: dict[str, Any]) -> tuple[dict[str, Any], Table]:
        """Two teachers and a student of numbers, which are to learn it; of a task of texts one agent, for an epoch."""
        if "numbers" not in offer.data:
            fields = small.mesh(("a",), small.model(head=offer.head), {offer.name: settings}, flows=[])
            fields["flows"] = [{"from": "labels", "to": "a", "objective": offer.objective}]
            return fields, small.texts(classes=False, spans=offer.source == "spans")
        objective = next((objective for space, objective in COMPARED.items() if space in offer.spaces), "mse")
        connect = [{"ensemble": {"teachers": ["a", "b"], "student": "s", "objective": objective}}]
        model = {"bi_encoder": {"hidden": [16]}} if offer.labels == "relevance" else {"mlp": {"hidden": [16]}}
        fields = small.mesh(("a", "b", "s"), model, {offer.name: settings}, connect=connect)
        fields["train"] = {"epochs": 12, "batch_size": 16, "optimizer": {"adam": {"lr": 0.02}}, "early_stopping": {}}
        return fields, self.table(offer)

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

    def test_a_small_mesh_learns_it(self, offer: TaskOffer, settings: dict[str, Any], run_mesh: RunMesh) -> None:
        """Every metric is reported, and, of numbers, models are better than chance."""
        found: MeshRun = self.run(offer, settings, run_mesh)
        texts = "numbers" not in offer.data
        for node in (*found.summary["agents"].values(), *found.summary["consensus"].values()):
            for split in ("validation", "test"):
                there = [name for name in offer.metrics if texts or "characters" not in self.metric(name).needs]
                assert list(node["metrics"][split]) == there, f"{split}: {list(node['metrics'][split])}"
        if self.trains and not texts:
            assert not [note for note in found.summary["notes"] if note.startswith("at chance")], found.summary["notes"]
