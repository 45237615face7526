"""The contracts of tasks and metrics find what is wrong, and say it in words."""

from __future__ import annotations

from inspect import signature

import pytest
import torch

from kdmesh.metrics import Answers, Metric
from kdmesh.offers import MetricOffer, TaskOffer
from kdmesh.tasks import Chance, Task
from kdmesh.testing import MetricContract, RunMesh, TaskContract


def of_task(check, broken=None, **traits):
    """Run one check of the tasks' contract on an offer, of a class of this module or plain classification."""
    factory = f"{__name__}:{broken.__name__}" if broken else "kdmesh.tasks:Task"
    offer = TaskOffer("broken", factory, summary="for a test", **traits)
    known = {"offer": offer, "task": offer.make({}), "settings": {}, "run_mesh": RunMesh()}
    call = getattr(TaskContract(), check)
    call(**{name: known[name] for name in signature(call).parameters})


TASK_CHECKS = sorted(name for name in vars(TaskContract) if name.startswith("test_"))


@pytest.mark.parametrize("check", TASK_CHECKS)
def test_a_right_task_passes(check):
    of_task(check)


@pytest.mark.parametrize(
    ("check", "traits", "said"),
    [
        ("test_offer_holds_together", {"labels": "ranks"}, "labels 'ranks' is none of classes, values"),
        ("test_offer_holds_together", {"rows": "words"}, "rows 'words' is none of samples, units"),
        ("test_offer_holds_together", {"source": "column"}, "source 'column' is none of table"),
        ("test_offer_holds_together", {"outputs": "two"}, "outputs 'two' is none of labels, vocabulary"),
        ("test_offer_holds_together", {"data": ("images",)}, "data .*images"),
        ("test_offer_holds_together", {"data": ("texts",)}, "a `head` is for texts"),
        ("test_offer_holds_together", {"head": "sequence"}, "a `head` is for texts"),
        ("test_offer_holds_together", {"spaces": ()}, "spaces"),
        ("test_offer_holds_together", {"spaces": ("votes",)}, "spaces .*votes"),
        ("test_offer_holds_together", {"labels": "values"}, "labels that are values have no probs"),
        ("test_offer_holds_together", {"labels": "indicators"}, "labels that are indicators have no probs"),
        ("test_offer_holds_together", {"spaces": ("marginals",)}, "labels that are classes have no marginals"),
        ("test_metrics_fit", {"metrics": ("accuracy", "r2")}, "r2 is not defined for classes"),
        ("test_metrics_fit", {"labels": "values"}, "accuracy is not defined for values"),
        ("test_metrics_fit", {"primary": "macro_f1"}, "the primary metric macro_f1 is not among"),
        ("test_metrics_fit", {"watched": ()}, "early stopping has nothing to watch"),
        ("test_metrics_fit", {"watched": ("macro_f1",)}, "is not among"),
        ("test_metrics_fit", {"metrics": ("confusion_matrix",), "primary": "confusion_matrix",
                              "watched": ("confusion_matrix",)}, "it is not one number"),
        ("test_loss_reads_labels", {"objective": "kl"}, "kl reads no classes"),
        ("test_loss_reads_labels", {"objective": "mse"}, "mse reads no classes"),
        ("test_loss_reads_labels", {"labels": "indicators"}, "ce reads no indicators"),
        ("test_answers_are_decided", {"decides": False}, "decides is False"),
    ],
)  # fmt: skip
def test_a_broken_offer_of_a_task_is_named(check, traits, said):
    with pytest.raises(AssertionError, match=said):
        of_task(check, **traits)


class Undecided(Task):
    def decide(self, scores):
        return None


class Scoring(Task):
    def decide(self, scores):
        return scores.amax(1)


class Pooled(Task):
    def decide(self, scores):
        return scores.argmax(1)[:1]


class Confident(Task):
    def chance(self, labels):
        return Chance("accuracy", 1.5, "always right")


class Elsewhere(Task):
    def chance(self, labels):
        return Chance("macro_f1", 0.1, "the most frequent class")


class Rooted(Task):
    def __init__(self):
        self.file = open(__file__)  # noqa: SIM115  what it holds cannot travel


@pytest.mark.parametrize(
    ("broken", "check", "said"),
    [
        (Undecided, "test_answers_are_decided", "decides is True"),
        (Scoring, "test_answers_are_decided", "not an answer for each row"),
        (Pooled, "test_answers_are_decided", "not an answer for each row"),
        (Confident, "test_chance_is_a_figure_of_its_metrics", "chance is 1.5, and accuracy goes from 0.0 to 1.0"),
        (Elsewhere, "test_chance_is_a_figure_of_its_metrics", "macro_f1 is not reported"),
    ],
)
def test_a_broken_task_is_named(broken, check, said):
    with pytest.raises(AssertionError, match=said):
        of_task(check, broken)


def test_a_task_that_cannot_travel_is_found():
    with pytest.raises(AssertionError, match=r"cannot be copied and sent: .*pickle"):
        of_task("test_copies_go_on_alike", Rooted)


def of_metric(check, broken, best=None, **traits):
    """Run one check of the metrics' contract on a class of this module."""

    class Of(MetricContract):
        __test__ = False

    Of.best = best
    offer = MetricOffer("broken", f"{__name__}:{broken.__name__}", summary="for a test", **traits)
    known = {"offer": offer, "settings": {}}
    call = getattr(Of(), check)
    call(**{name: known[name] for name in signature(call).parameters})


class Share(Metric):
    """Right but for what a subclass breaks: the share of right answers."""

    def __init__(self):
        self.right, self.rows = 0, 0

    def update(self, answers: Answers):
        self.right += int(answers.hit.sum())
        self.rows += len(answers)

    def compute(self):
        return self.right / self.rows


METRIC_CHECKS = sorted(name for name in vars(MetricContract) if name.startswith("test_"))


@pytest.mark.parametrize("check", METRIC_CHECKS)
def test_a_right_metric_passes(check):
    of_metric(check, Share, best=1.0, lowest=0.0, highest=1.0)


class Counting(Share):
    def compute(self):
        return float(self.right)


class Unknowing(Share):
    def compute(self):
        return float("nan")


class Tensorial(Share):
    def compute(self):
        return torch.tensor(self.right / self.rows)


class Listing(Share):
    def compute(self):
        return [self.right / self.rows]


class Batchwise(Share):
    """A mean of means depends on how rows are cut."""

    def update(self, answers):
        self.right += float(answers.hit.double().mean())
        self.rows += 1


class Recent(Share):
    def update(self, answers):
        self.right, self.rows = int(answers.hit.sum()), len(answers)


class Erasing(Share):
    def update(self, answers):
        super().update(answers)
        answers.labels.zero_()


class Mute(Share):
    def update(self, answers):
        super().update(answers)
        self.kinds = len(answers.labels.unique())

    def compute(self):
        return self.right / self.rows if self.kinds > 1 else None


RANGE = {"lowest": 0.0, "highest": 1.0}


@pytest.mark.parametrize(
    ("broken", "check", "traits", "said"),
    [
        (Share, "test_direction_and_range_fit", {"labels": ("ranks",)}, "labels .*ranks"),
        (Share, "test_direction_and_range_fit", {"labels": ()}, "labels"),
        (Share, "test_direction_and_range_fit", {"needs": ("ids",)}, "needs .*ids"),
        (Share, "test_direction_and_range_fit", {"lowest": 1.0, "highest": 0.0}, "from 1.0 to 0.0 is no range"),
        (Counting, "test_figure_is_in_its_range", RANGE, "is above 1.0"),
        (Share, "test_figure_is_in_its_range", {"lowest": 0.9}, "is below 0.9"),
        (Unknowing, "test_figure_is_in_its_range", {}, "it is not finite"),
        (Tensorial, "test_figure_is_in_its_range", {}, "it gives Tensor"),
        (Listing, "test_figure_is_in_its_range", {}, "it gives list, scalar True"),
        (Share, "test_figure_is_in_its_range", {"scalar": False}, "it gives float, scalar False"),
        (Batchwise, "test_parts_and_their_order_do_not_matter", {}, "in parts"),
        (Recent, "test_parts_and_their_order_do_not_matter", {}, "in place of"),
        (Erasing, "test_it_leaves_alone_what_it_is_given", {}, "it changes in place what it is given"),
        (Counting, "test_right_answers_give_the_best_figure", {}, "right answers give 60"),
        (Share, "test_right_answers_give_the_best_figure", {**RANGE, "higher": False}, "the range ends at 0.0"),
        (Mute, "test_what_is_not_defined_has_a_reason", {}, "no figure, and no reason"),
    ],
)
def test_a_broken_metric_is_named(broken, check, traits, said):
    with pytest.raises(AssertionError, match=said):
        of_metric(check, broken, best=1.0, **traits)


class Remembering(Share):
    """What it says depends on what the process has measured before."""

    before = 0

    def compute(self):
        Remembering.before += 1
        return 1 / Remembering.before


@pytest.mark.parametrize("metric", [Share, Remembering])
def test_figures_are_those_of_another_run(metric):
    class Of(MetricContract):
        __test__ = False

    offer = MetricOffer("broken", f"{__name__}:{metric.__name__}", summary="for a test", lowest=0.0, highest=1.0)
    if metric is Share:
        Of().test_a_mesh_runs_with_it(offer, {}, RunMesh())
        return
    with pytest.raises(AssertionError, match=r"run again in this process, the mesh reports .*broken"):
        Of().test_a_mesh_runs_with_it(offer, {}, RunMesh())
