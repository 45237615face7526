"""What is well formed and cannot run, or would silently do nothing, is refused before anything starts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kdmesh.errors import MeshError

NOISY = {"view": {"augment": [{"noise": {"std": 0.5}}]}}
FROZEN = {"update": "frozen", "model": {"mlp": {"hidden": [8]}}}


@pytest.mark.parametrize(
    ("teacher", "flow", "field", "message"),
    [
        ({**FROZEN, **NOISY}, {"refresh": "once"}, "agents.t.view.draws", "would hold only one"),
        (FROZEN, {"refresh": "epoch", "stale": "recorded"}, "flows.1.stale", "nothing of it is recorded"),
        ({}, {"refresh": "once", "mode": "train"}, "flows.1.mode", "made in eval mode"),
        ({}, {"objective": "hint"}, "flows.1.tap", "needs to know the layers"),
        ({}, {"refresh": "round"}, "flows.1.refresh", "needs a program with rounds"),
        ({"init_of": "s"}, {}, "agents.t.init_of", "t -> s -> t"),
        pytest.param(
            {"train": {"device": "cuda:7"}},
            {},
            "agents.t.train.device",
            "no cuda device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a cuda device"),
        ),
    ],
)
def test_before_anything_starts(
    mesh: Any, teacher: dict[str, Any], flow: dict[str, Any], field: str, message: str
) -> None:
    made = mesh({"t": teacher, "s": {"init_of": "t"} if "init_of" in teacher else {}})
    made.flow("labels", "s", objective="ce")
    made.flow("t", "s", **{"objective": "kl", **flow})
    with pytest.raises(MeshError, match=message) as error:
        made.run(backend="inline")
    assert error.value.where == field and error.value.instead


def test_a_single_draw_is_stored_as_it_is_live(mesh: Any, hashes: Any) -> None:
    found = []
    for refresh in ("once", "step"):
        made = mesh({"t": {**FROZEN, "view": {**NOISY["view"], "draws": 1}}, "s": {}})
        made.flow("t", "s", objective="kl", refresh=refresh)
        found.append(hashes(made))
    assert found[0] == found[1]
