"""The share of written batches against the rule written anew, and in a mesh."""

from __future__ import annotations

import pytest
import torch
from kdmesh import Mesh, MeshError
from test_lm_plugin import MODEL

from kdmesh_lm.adaptive_share import AdaptiveShare


def by_hand(losses, start, increase, tolerance):
    """The share after each figure, in plain numbers."""
    share, last, found = start, None, []
    for loss in losses:
        if last is None:
            last = loss
        elif loss >= last + tolerance:
            share, last = min(share + increase, 1.0), loss
        found.append(share)
    return found


LOSSES = [2.0, 1.5, 2.05, 2.11, 2.15, 1.0, 2.21, 2.5, 2.59, 9.0, 9.1, 9.3]


@pytest.mark.parametrize("settings", [(0.0, 0.1, 0.1), (0.25, 0.3, 0.0), (0.9, 0.5, 0.05)])
def test_the_share_is_that_of_the_formula(settings):
    gate = AdaptiveShare(*settings)
    found = []
    for number, loss in enumerate(LOSSES):
        for _ in range(3):  # it is asked in each step, and looks at a figure once
            gate(metrics={"loss": loss, "accuracy": 0.5}, measured_step=4 * number)
        found.append(float(gate.share))
    assert found == pytest.approx(by_hand(LOSSES, *settings), abs=1e-12)
    assert found[-1] > found[0]


def test_equal_figures_of_two_times_count_twice_and_before_the_first_nothing_changes():
    gate = AdaptiveShare(0.0, 0.1, 0.0)
    gate(metrics={}, measured_step=None)
    assert gate.last.isnan() and gate.share == 0
    for step in (3, 6, 6, 9):
        gate(metrics={"loss": 1.0}, measured_step=step)
    assert float(gate.share) == pytest.approx(0.2)


def test_batches_are_written_with_that_probability():
    torch.manual_seed(0)
    gate = AdaptiveShare(0.3, 0.1, 0.1)
    said = [gate(metrics={}, measured_step=None) for _ in range(4000)]
    assert sum(said) / 4000 == pytest.approx(0.3, abs=0.03)  # four standard deviations
    assert not any(AdaptiveShare(0.0, 0.1, 0.1)(metrics={}, measured_step=None) for _ in range(50))
    assert all(AdaptiveShare(1.0, 0.1, 0.1)(metrics={}, measured_step=None) for _ in range(50))


def test_what_it_knows_stands_in_its_state():
    gate, other = AdaptiveShare(0.2, 0.3, 0.0), AdaptiveShare(0.2, 0.3, 0.0)
    for number, loss in enumerate(LOSSES[:5]):
        gate(metrics={"loss": loss}, measured_step=number)
    other.load_state_dict(gate.state_dict())
    for number, loss in enumerate(LOSSES[5:], 5):
        torch.manual_seed(number)
        one = gate(metrics={"loss": loss}, measured_step=number)
        torch.manual_seed(number)
        assert other(metrics={"loss": loss}, measured_step=number) == one
    assert torch.equal(gate.share, other.share)


def mesh(rate=3e-3, **settings):
    return Mesh(
        task="language_modelling",
        data={"dataset": {"sums": {"below": 6}}, "validation": 6},
        text={"max_length": 16},
        agents={"t": {"model": MODEL, "update": "frozen"}, "s": {"model": MODEL}},
        streams={
            "rollouts": {
                "generated_by": "s",
                "prompts": "train",
                "sampling": {"max_new_tokens": 3},
                "mix": {"of": "train", "gate": {"adaptive_share": settings}},
            }
        },
        flows=[{"from": "t", "to": "s", "stream": "rollouts", "objective": "reverse_kl"}],
        train={"epochs": 6, "batch_size": 4, "evaluate_every": 1, "optimizer": {"adamw": {"lr": rate}}},
    )


def gates(**settings):
    return mesh(**settings).run(backend="inline").summary["agents"]["s"]["gates"]["batches of rollouts"]


def test_a_student_writes_once_its_loss_has_grown():
    never = gates(tolerance=1e9, start=0.0)
    assert never["asked"] == never["shut"] > 20
    once = gates(tolerance=0.0, start=0.0, increase=1.0, rate=0.05)
    assert 0 < once["shut"] < once["asked"] == never["asked"]
    assert once["shut"] % (once["asked"] // 6) == 0  # from an epoch's end on every batch is written


def test_settings_are_checked_where_they_stand():
    with pytest.raises(MeshError, match="increase") as caught:
        mesh(increase=0).plan()
    assert caught.value.where == "streams.rollouts.mix.gate.adaptive_share.increase"
