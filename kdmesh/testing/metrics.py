"""The contract of a metric."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from kdmesh.contracts.metric import Answers, Metric
from kdmesh.offers import MetricOffer
from kdmesh.streams.table import Table
from kdmesh.testing import small
from kdmesh.testing.alike import Alike, At, here
from kdmesh.testing.run_mesh import MeshRun, RunMesh

ROWS = 60


class MetricContract(Alike):
    """Checks a metric on seeded answers: of ``columns`` classes, or of so many values a row.

    - ``best``: its figure where every answer is right and certain; None: not checked.
    - ``tolerance``: by how much figures may differ that rounding makes.
    """

    __test__ = False
    kind = "metrics"
    answers_there = False  # what is kept of rows is on the CPU
    columns: ClassVar[int] = 4
    best: ClassVar[float | None] = None
    tolerance: ClassVar[float] = 1e-9

    def kinds(self, offer: MetricOffer) -> list[tuple[Tensor, Tensor, dict[str, Any]]]:
        """Scores, labels and how to read them, one for each kind of labels and form of answers."""
        drawn = torch.Generator().manual_seed(6)
        scores = torch.randn(ROWS, self.columns, generator=drawn, dtype=torch.float64)
        about: dict[str, Any] = {"characters": 1 + torch.arange(ROWS) % 5} if "characters" in offer.needs else {}
        if "pairs" in offer.needs:
            return [(scores[:, :2], torch.zeros(ROWS, dtype=torch.int64), {})]
        if "texts" in offer.needs:
            return [(scores, torch.arange(ROWS) % self.columns, {"texts": small.written(ROWS)})]
        found: list[tuple[Tensor, Tensor, dict[str, Any]]] = []
        if "classes" in offer.labels:
            labels = torch.arange(ROWS) % self.columns
            found += [(scores, labels, about), (scores.softmax(1), labels, {**about, "probs": True})]
        if "values" in offer.labels:
            found.append((scores, torch.randn(ROWS, self.columns, generator=drawn, dtype=torch.float64), about))
        if "relevance" in offer.labels:
            grades = torch.randint(-1, 3, (ROWS, self.columns), generator=drawn).double()  # below 0: no candidate
            grades[:, 0] = grades[:, 0].abs()
            found.append((scores.masked_fill(grades < 0, -torch.inf), grades, about))
        if "indicators" in offer.labels:
            labels = torch.randint(2, (ROWS, self.columns), generator=drawn)
            found += [(scores, labels, about), (scores.sigmoid(), labels, {**about, "probs": True})]
        return found

    def small_mesh(self, offer: MetricOffer, settings: dict[str, Any]) -> tuple[dict[str, Any], Table]:
        """Two agents, one of which learns from the other, that are measured by it."""
        kind = offer.labels[0]
        ensemble = {"teachers": "a", "student": "b", **small.compared(kind)}
        more = {"metrics": [{offer.name: settings}], "connect": [{"ensemble": ensemble}]}
        if "texts" in offer.needs:
            task, own = small.task(head="causal"), small.model(head="causal")
            fields = small.mesh(("a", "b"), own, task, **more, text={"decoding": {"max_new_tokens": 4}})
            return fields, small.prompts()
        if "pairs" in offer.needs:
            task, own = small.task(head="causal"), small.model(head="causal")
            return small.mesh(("a", "b"), own, task, **more), small.texts(classes=False, pairs=True)
        if "characters" in offer.needs:
            task = small.task(head="causal")
            return small.mesh(("a", "b"), small.model(head="causal"), task, **more), small.texts(classes=False)
        return small.mesh(("a", "b"), small.model(kind), small.task(kind), **more), small.table(kind)

    def run(self, offer: MetricOffer, settings: dict[str, Any], run_mesh: RunMesh, backend: str = "inline") -> MeshRun:
        """Run the small mesh; the figure of each agent is reported."""
        found = super().run(offer, settings, run_mesh, backend)
        for name, agent in found.summary["agents"].items():
            figures = agent["metrics"]["test"]
            said = [key for key in figures if key.partition("@")[0] == offer.name]
            undefined = offer.name in figures.get("undefined", {})  # for a reason: of what a random model writes, say
            assert said or undefined or not offer.scalar, f"{name} is not measured by it: {', '.join(figures)}"
        return found

    def reported(self, run: MeshRun) -> Any:
        """Every agent's figures, and the texts that were measured, if any were."""
        return {name: agent["metrics"] for name, agent in run.summary["agents"].items()}

    def made(self, offer: MetricOffer, settings: dict[str, Any]) -> Any:
        """One for each kind of answers."""
        return [offer.make(settings) for _ in self.kinds(offer)]

    def asked(self, offer: MetricOffer, thing: Any, number: int, at: At = here) -> Any:
        """What each row adds, and the figure, of some rows in two parts."""
        found = []
        with torch.no_grad():
            for metric, (scores, labels, about) in zip(thing, self.kinds(offer), strict=True):
                order = torch.arange(ROWS).roll(7 * number)
                kept = order[: ROWS - 9 * number]
                own = {**about, **({"characters": about["characters"][kept]} if "characters" in about else {})}
                own |= {"texts": [about["texts"][at] for at in kept.tolist()]} if "texts" in about else {}
                for part in self.parts(scores[kept], labels[kept], own, 11, at=at):
                    metric.update(part)
                each = metric.each(part)
                found.append((each, metric.compute()))
        return found

    def seen(self, offer: MetricOffer, settings: dict[str, Any], *parts: Answers) -> Metric:
        """A fresh metric that has seen these rows."""
        made: Metric = offer.make(settings)
        with torch.no_grad():
            for part in parts:
                made.update(part)
        return made

    def parts(self, scores: Tensor, labels: Tensor, about: dict[str, Any], *cuts: int, at: At = here) -> list[Answers]:
        """The rows in parts, cut before these. ``characters`` are those of each row."""
        ends = [0, *cuts, len(labels)]
        found = []
        for start, end in pairwise(ends):
            own = {**about}
            if "characters" in about:
                own["characters"] = int(about["characters"][start:end].sum())
            if "texts" in about:
                own["texts"] = about["texts"][start:end]
            found.append(Answers(at(scores[start:end].clone()), at(labels[start:end].clone()), **own))
        return found

    def test_direction_and_range_fit(self, offer: MetricOffer) -> None:
        """Labels of a kind that there is, and a range that is one."""
        kinds = {"classes", "values", "relevance", "indicators"}
        assert set(offer.labels) <= kinds and offer.labels, f"labels {offer.labels}"
        known = {"characters", "classes", "texts", "pairs", *(("given",) if "texts" in offer.needs else ())}
        assert set(offer.needs) <= known, f"needs {offer.needs}"
        if offer.lowest is not None and offer.highest is not None:
            assert offer.lowest < offer.highest, f"from {offer.lowest} to {offer.highest} is no range"

    def test_figure_is_in_its_range(self, offer: MetricOffer, settings: dict[str, Any]) -> None:
        """A float within the bounds, of an offer that is `scalar`; else lists of numbers, or of None."""
        for scores, labels, about in self.kinds(offer):
            value = self.seen(offer, settings, *self.parts(scores, labels, about)).compute()
            assert isinstance(value, float | list), f"it gives {type(value).__name__}"
            assert isinstance(value, float) == offer.scalar, f"it gives {type(value).__name__}, scalar {offer.scalar}"
            for number in flat(value):
                assert math.isfinite(number), "it is not finite"
                assert offer.lowest is None or number >= offer.lowest, f"{number} is below {offer.lowest}"
                assert offer.highest is None or number <= offer.highest, f"{number} is above {offer.highest}"

    def test_parts_and_their_order_do_not_matter(self, offer: MetricOffer, settings: dict[str, Any]) -> None:
        """Row by row, in parts, or in another order: the figure is the same but for rounding."""
        for scores, labels, about in self.kinds(offer):
            whole = flat(self.seen(offer, settings, *self.parts(scores, labels, about)).compute())
            mixed = torch.randperm(ROWS, generator=torch.Generator().manual_seed(7))
            for name, made in (
                ("in parts", self.seen(offer, settings, *self.parts(scores, labels, about, 1, 2, 30))),
                ("in another order", self.seen(offer, settings, *self.parts(scores[mixed], labels[mixed], about))),
            ):
                found = flat(made.compute())
                assert len(found) == len(whole), name
                for a, b in zip(found, whole, strict=True):
                    assert abs(a - b) <= self.tolerance, f"{name}: {a} in place of {b}"

    def test_other_metrics_read_the_same(self, offer: MetricOffer, settings: dict[str, Any]) -> None:
        """What answers compute once, such as probabilities, is not changed in place: other metrics read it."""
        for scores, labels, about in self.kinds(offer):
            (given,) = self.parts(scores, labels, about)
            names = [name for name in ("p", "log_p", "marginals", "confidence", "column", "guess", "hit")
                     if name == "p" or labels.dim() == 1 or name == "marginals"]  # fmt: skip
            before = {name: (getattr(given, name), getattr(given, name).clone()) for name in names}
            versions = {name: one._version for name, (one, _) in before.items()}
            made = self.seen(offer, settings, given)
            made.compute()
            made.each(given)
            for name, (now, was) in before.items():
                changed = now._version != versions[name] or not torch.equal(now, was)
                assert not changed, f"it changes {name} of the answers in place"

    def test_reading_moves_nothing(self, offer: MetricOffer, settings: dict[str, Any]) -> None:
        """``compute`` and ``each`` give the same when asked again, and leave the figure as it was."""
        for scores, labels, about in self.kinds(offer):
            one, two = self.parts(scores, labels, about, 20)
            made, other = self.seen(offer, settings, one), self.seen(offer, settings, one)
            with torch.no_grad():
                for _ in range(2):
                    made.compute()
                    made.each(two)
                    made.undefined()
                made.update(two)
                other.update(two)
            figures = [flat(metric.compute()) for metric in (made, other, made)]
            assert figures[0] == figures[1] == figures[2], f"asked in between, it gives {figures[0]}, not {figures[1]}"

    def test_uses_what_it_declares(self, offer: MetricOffer, settings: dict[str, Any]) -> None:
        """Characters change the figure where the offer needs them; without, neither they nor columns of the data do."""
        for scores, labels, about in self.kinds(offer):
            figures = []
            for characters in (5 * ROWS, 9 * ROWS):
                columns = {"city": torch.arange(ROWS) % 2} if characters > 5 * ROWS else None
                rest = {name: value for name, value in about.items() if name != "characters"}
                seen = Answers(scores, labels, characters=characters, columns=columns, **rest)
                figures.append(flat(self.seen(offer, settings, seen).compute()))
            if "characters" in offer.needs:
                assert figures[0] != figures[1], "its offer needs characters, and their number changes nothing"
            elif "columns" not in offer.config.model_fields:
                assert figures[0] == figures[1], "it uses characters or columns, and its offer does not need them"

    def test_each_row_adds_to_the_figure(self, offer: MetricOffer, settings: dict[str, Any]) -> None:
        """Where ``each`` says what rows add, one number a row, their mean is the figure; NaN is of a row left out."""
        for scores, labels, about in self.kinds(offer):
            (whole,) = self.parts(scores, labels, about)
            made = self.seen(offer, settings, whole)
            found = made.each(whole)
            if found is not None:
                assert found.shape == (ROWS,), f"{tuple(found.shape)} in place of one number for each of {ROWS} rows"
                mean, figure = found.double().nanmean().item(), made.compute()
                assert abs(mean - figure) <= max(self.tolerance, 1e-6), f"their mean is {mean}, the figure {figure}"

    def test_half_precision_is_measured(self, offer: MetricOffer, settings: dict[str, Any]) -> None:
        """Models compute in bfloat16 too."""
        for scores, labels, about in self.kinds(offer):
            value = self.seen(offer, settings, *self.parts(scores.bfloat16(), labels, about)).compute()
            assert all(map(math.isfinite, flat(value)))

    def test_right_answers_give_the_best_figure(self, offer: MetricOffer, settings: dict[str, Any]) -> None:
        """Where ``best`` says what that is; it lies at the better end of the range."""
        if self.best is None:
            return
        for _, labels, about in self.kinds(offer):
            right = torch.eye(self.columns, dtype=torch.float64)[labels] if labels.dim() == 1 else labels.double()
            certain = 1e3 * (right if labels.dim() == 1 else 2 * right - 1)
            right = right if about.get("probs") or labels.is_floating_point() else certain
            value = self.seen(offer, settings, *self.parts(right, labels, about)).compute()
            assert abs(value - self.best) <= self.tolerance, f"right answers give {value}, not {self.best}"
            end = offer.highest if offer.higher else offer.lowest
            assert end is None or self.best == end, f"the best is {self.best}, and the range ends at {end}"

    def test_what_is_not_defined_has_a_reason(self, offer: MetricOffer, settings: dict[str, Any]) -> None:
        """Of labels that are all the same there is a figure, or else words that say why not."""
        for scores, labels, about in self.kinds(offer):
            made = self.seen(offer, settings, *self.parts(scores, torch.zeros_like(labels), about))
            assert made.compute() is not None or made.undefined(), "no figure, and no reason"


def flat(value: Any) -> list[float]:
    """The numbers in a figure."""
    if isinstance(value, list):
        return [number for part in value for number in flat(part)]
    return [] if value is None else [float(value)]
