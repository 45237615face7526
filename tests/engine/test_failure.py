"""A loss that breaks stops the run at once, says where, and leaves a whole checkpoint behind."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdmesh.engine.checkpoint import Checkpoints
from kdmesh.errors import RunFailed


def broken(mesh: Any) -> Any:
    made = mesh(["a", "b"], train={"optimizer": {"sgd": {"lr": 1e30}}})
    made.connect("mutual", peers=["a", "b"])
    return made


def test_a_broken_loss_names_agent_step_flow_and_ranges(mesh: Any, tmp_path: Path) -> None:
    with pytest.raises(RunFailed) as error:
        broken(mesh).run(backend="inline", out=tmp_path)
    assert error.value.exit_code == 1
    assert error.value.where in ("agents.a", "agents.b")
    assert re.search(r"the loss became (nan|inf) at step \d+ on the flow (labels|a|b) -> (a|b)", error.value.what)
    assert re.search(r"its own signal is .+, the target (in|nowhere finite)", error.value.what)
    events = [json.loads(line) for line in next(tmp_path.rglob("events.jsonl")).read_text().splitlines()]
    assert events[-1]["event"] == "run_failed" and "the loss became" in events[-1]["error"]


class NeverTwo(nn.Linear):
    """Rules out class 2."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).index_fill(1, torch.tensor([2], device=x.device), -torch.inf)


@pytest.mark.parametrize("objective", ["kl", "ce", "ce of labels", "jsd"])
def test_mass_where_a_student_rules_a_class_out_is_an_infinite_loss_that_is_named(
    mesh: Any, tmp_path: Path, objective: str
) -> None:
    torch.manual_seed(0)
    made = mesh([], train={"epochs": 1})
    made.agent("t", nn.Linear(8, 3), update="frozen")
    made.agent("s", NeverTwo(8, 3))
    of_labels = objective == "ce of labels"
    made.flow("labels" if of_labels else "t", "s", objective=objective.split()[0])
    if of_labels:
        made.flow("t", "s", objective="jsd")
    if objective == "jsd":
        made.run(backend="inline", out=tmp_path)  # finite whatever a side rules out
        return
    with pytest.raises(RunFailed) as error:
        made.run(backend="inline", out=tmp_path)
    assert error.value.where == "agents.s"
    source = "labels" if of_labels else "t"
    assert f"the loss became inf at step 0 on the flow {source} -> s" in error.value.what
    places = r"\d+" if of_labels else "32"
    assert re.search(f"the student's logits are -inf in {places} places where its target has mass", error.value.what)
    assert "no mask, or an objective that is finite there, such as jsd" in str(error.value.instead)


def test_the_last_checkpoint_is_whole(mesh: Any, tmp_path: Path) -> None:
    with pytest.raises(RunFailed):
        broken(mesh).run(backend="inline", out=tmp_path)
    assert not list(tmp_path.rglob("*.part"))
    (manifest,) = tmp_path.rglob("checkpoints/*/*/manifest.json")
    facts = json.loads(manifest.read_text())
    assert facts["stage"] == "a" and facts["number"] == 1
    assert set(facts["sha256"]) == {"hosts/host0.safetensors", "hosts/host0.json", "stage.json"}
    for name, digest in facts["sha256"].items():
        assert hashlib.sha256((manifest.parent / name).read_bytes()).hexdigest() == digest


def test_checkpoints_count_once_complete_and_old_ones_go(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.last("s") is None
    for number in range(1, 5):
        folder = checkpoints.next("s")
        folder.mkdir(parents=True)
        (folder / "w").write_text(str(number))
        assert checkpoints.last("s") == (tmp_path / "s" / f"{number - 1:04d}" if number > 1 else None)
        checkpoints.complete("s", folder, ["w"], {"at": [number]})
        assert checkpoints.last("s") == folder
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["0003", "0004"]
