"""What others' data sets give is checked where it comes in, and named with whose it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import kdmesh
from kdmesh.engine.check import check
from kdmesh.errors import MeshError, RunFailed
from kdmesh.offers import Config, DatasetOffer
from kdmesh.plugins import PluginRecord, registry
from kdmesh.spec import DataSpec
from kdmesh.streams.stream import resolve
from kdmesh.streams.table import Table


class Choice(Config):
    """What it gives."""

    what: str = ""


SOUND = Table(torch.arange(120.0).view(60, 2) / 120, torch.arange(60) % 3, 3)
GIVEN: dict[str, tuple[Any, str]] = {
    "none": (None, "it gave nothing, not a"),
    "pair": ((SOUND.x, SOUND.y), "it gave a tuple"),
    "float64": (replace(SOUND, x=SOUND.tensor.double()), "x is a tensor .* torch.float64"),
    "flat": (replace(SOUND, x=torch.zeros(60)), r"x is a tensor of shape \(60,\)"),
    "nan": (replace(SOUND, x=torch.full((60, 2), torch.nan)), "not finite in row 0"),
    "int32": (replace(SOUND, y=(torch.arange(60) % 3).int()), "y is a tensor .* torch.int32"),
    "short": (replace(SOUND, y=torch.arange(5) % 3), "label of torch.int64 for each of 60"),
    "beyond": (replace(SOUND, y=torch.arange(60) % 4), "labels are 0 to 3, not 0 to 2"),
    "classes": (replace(SOUND, classes=3.0), "classes is 3.0"),
    "names": (replace(SOUND, labels=["a"]), "names 1 labels for 3 classes"),
    "split": (replace(SOUND, official={"tset": torch.arange(5)}), "'tset'; there are train, validation, test"),
    "rows": (replace(SOUND, official={"test": [1, 2]}), "'test' is a list"),
    "columns": (replace(SOUND, columns={"who": ["a"]}), "'who' has 1 values for 60"),
}


def load(what: str) -> Any:
    """What the factory gives."""
    if what == "raises":
        raise OSError("no such disk")
    return GIVEN[what][0] if what else SOUND


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a plugin of version 2 would offer."""
    offer, record = DatasetOffer("odd", f"{__name__}:load", config=Choice), PluginRecord("odd", "kdmesh-odd", "2")
    monkeypatch.setitem(registry()._offers["datasets"], "odd", offer)
    record.claims["datasets", "odd"] = offer
    monkeypatch.setattr(registry(), "records", [*registry().records, record])


def checked(what: str) -> list[str]:
    made = kdmesh.Mesh(data={"dataset": {"odd": {"what": what}}}, train={"epochs": 1})
    made.agent("a", {"mlp": {"hidden": [4]}})
    made.flow("labels", "a", objective="ce")
    return check(made.plan())


@pytest.mark.parametrize("what", GIVEN)
def test_what_is_no_table_is_named(what: str) -> None:
    with pytest.raises(RunFailed, match=rf"data set 'odd' of kdmesh-odd 2 .*{GIVEN[what][1]}"):
        checked(what)


def test_a_data_set_that_raises_is_named() -> None:
    with pytest.raises(MeshError, match="data set 'odd' of kdmesh-odd 2 failed to give a table: OSError: no such disk"):
        checked("raises")


def test_a_split_of_another_name_is_refused_in_a_table_from_python_too() -> None:
    with pytest.raises(MeshError, match="'tset'"):
        resolve(GIVEN["split"][0], DataSpec.model_validate("python:given"), {})


def test_a_sound_one_fits() -> None:
    assert "everything fits" in checked("")[-1]
