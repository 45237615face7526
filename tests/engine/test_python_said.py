"""What a run from Python says without being asked: its notes, and itself."""

from __future__ import annotations

import pytest
import torch

import kdmesh


@pytest.fixture
def mesh():
    """A classifier that cannot learn."""
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    y = (torch.arange(60) % 3 == 0).long()
    given = kdmesh.Mesh(
        data=kdmesh.data((x, y), test=(x + 1, y)), train={"steps": 1, "optimizer": {"sgd": {"lr": 1e-9}}}
    )
    given.agent("s", torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Softmax(-1)))
    given.flow("labels", "s", objective="ce")
    return given


def test_notes_are_printed_and_a_result_shows_its_figures(mesh, capsys):
    result = mesh.run(backend="inline")
    said = capsys.readouterr().err.splitlines()
    assert result.summary["notes"] and [f"kdmesh: note: {note}" for note in result.summary["notes"]] == said
    assert any("softened twice" in line for line in said)
    accuracy = result["s"].metrics["test"]["accuracy"]
    assert repr(result) == f"Result(accuracy on test: s {accuracy:.4f}; folder: none)"


def test_samples_and_labels_apart_are_told_to_be_a_pair(mesh):
    with pytest.raises(kdmesh.MeshError, match="data without labels") as refused:
        kdmesh.data(torch.randn(6, 2), torch.zeros(6))
    assert "train=(x, y)" in refused.value.instead
