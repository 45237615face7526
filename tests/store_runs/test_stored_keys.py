"""Whatever is changed of a mesh, its data or code: the store answers only where computing gives the same bits."""

from __future__ import annotations

import sys
from importlib import import_module, invalidate_caches
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_runs import host, mesh, published, table
from torch import nn

from kdmesh.hosts.identity import Unknown, identity
from kdmesh.hosts.shelf import Hits
from kdmesh.signals.lazy import dense

VIEWS = [
    {},
    {"augment": ["noise"], "draws": 1},
    {"augment": [{"noise": {"std": 0.2}}], "draws": 1},
    {"augment": ["drop"], "draws": 1},
    {"augment": ["noise", "drop"], "draws": 1},
]
FLOWS = [
    {"objective": "kl"},
    {"objective": "hint", "tap": {"of": "layers.0", "to": "layers.0"}},
    {"objective": "kl", "signal": {"top_k": {"k": 2}}},
]
ASPECTS = {
    "batch_size": st.sampled_from([16, 32, 50]),
    "forward_size": st.sampled_from([None, 16, 32]),
    "view": st.sampled_from(VIEWS),
    "hidden": st.sampled_from([[16], [16, 16], [24]]),
    "seed": st.sampled_from([1, 2]),
    "run_seed": st.sampled_from([0, 1]),
    "data": st.sampled_from([0, 3]),
    "flow": st.sampled_from(FLOWS),
    "labels": st.sampled_from([None, [0, 1, 2], [0, 2, 1]]),
    "precision": st.sampled_from(["fp32", "bf16"]),
    "taps": st.sampled_from([{}, {"first": "layers.0"}]),
}


def made(aspects: dict[str, Any]) -> Any:
    teacher = {"model": {"mlp": {"hidden": aspects["hidden"]}}, "view": aspects["view"], "seed": aspects["seed"]}
    teacher |= {"train": {"precision": aspects["precision"]}, "taps": aspects["taps"]}
    if aspects["labels"] is not None and aspects["flow"] == FLOWS[0]:
        teacher["labels"] = aspects["labels"]
    train = {name: aspects[name] for name in ("batch_size", "forward_size")}
    return mesh(table(aspects["data"]), teacher, aspects["flow"], train, seed=aspects["run_seed"])


def same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(torch.equal(dense(one[name][0]), dense(other[name][0])) for name in one)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.fixed_dictionaries(ASPECTS), min_size=2, max_size=4))
def test_meshes_that_share_a_store_say_what_they_say_alone(tmp_path_factory: Any, meshes: list[dict[str, Any]]) -> None:
    store = tmp_path_factory.mktemp("store")
    for aspects in [*meshes, meshes[0]]:
        opened = host(made(aspects), store)
        assert same(published(opened), published(host(made(aspects), "")))
        assert opened.shelf is not None and opened.shelf.left == {}
    assert opened.shelf.hits["t"].forwarded == 0  # it had asked before


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.fixed_dictionaries(ASPECTS), st.data())
def test_one_change_is_a_miss_or_the_same_bits(tmp_path_factory: Any, aspects: dict[str, Any], data: Any) -> None:
    """And rows that are found are all of them: a change of one aspect changes every answer, or none."""
    store, name = tmp_path_factory.mktemp("store"), data.draw(st.sampled_from(sorted(ASPECTS)))
    changed = {**aspects, name: data.draw(ASPECTS[name])}
    published(host(made(aspects), store))
    opened = host(made(changed), store)
    found = published(opened)
    assert same(found, published(host(made(changed), "")))
    assert opened.shelf is not None
    hits = opened.shelf.hits["t"]
    assert hits.found in (0, 90) and hits.found + hits.forwarded == 90
    if hits.found and aspects["flow"] == changed["flow"]:
        assert same(found, published(host(made(aspects), "")))


def test_batch_sizes_share_answers_where_a_forward_size_is_given(tmp_path: Path) -> None:
    for number, size in enumerate((16, 32, 50)):
        opened = host(mesh(train={"batch_size": size, "forward_size": 32}), tmp_path)
        published(opened)
        assert opened.shelf is not None and opened.shelf.hits["t"].found == (90 if number else 0)


def test_samples_of_other_streams_and_orders_are_found(tmp_path: Path) -> None:
    """Rows go by what a sample is: subsets, and other data with some of the same samples, hit."""
    published(host(mesh(), tmp_path))
    few = host(mesh(streams={"few": {"of": "train", "size": 30}}, flow={"stream": "few"}), tmp_path)
    published(few, "few")
    assert few.shelf is not None and few.shelf.hits["t"] == Hits(
        found=30, read=30 * 3 * 4, forwards=1, seconds=few.shelf.hits["t"].seconds
    )
    data = table()
    data.x[5] += 1.0
    changed = host(mesh(data), tmp_path)
    again = published(changed)
    assert changed.shelf is not None and (changed.shelf.hits["t"].found, changed.shelf.hits["t"].forwarded) == (89, 1)
    assert same(again, published(host(mesh(data), "")))


NET = """
from torch import nn
from scaled_help import FACTOR

class Scaled(nn.Module):
    def __init__(self, features: int = 8, by: float = 1.0) -> None:
        super().__init__()
        self.layer, self.by = nn.Linear(features, 16), by
        self.last = nn.Linear(16, 3)

    def forward(self, x):
        return self.last(self.layer(x).relu()) * self.by * FACTOR
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a model's file and one that it imports, as a folder that is imported from has them."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(net: str = NET, factor: float = 1.0) -> None:
        (tmp_path / "scaled_net.py").write_text(net, encoding="utf-8")
        (tmp_path / "scaled_help.py").write_text(f"FACTOR = {factor}\n", encoding="utf-8")
        for name in ("scaled_net", "scaled_help"):
            sys.modules.pop(name, None)
        invalidate_caches()

    yield write
    for name in ("scaled_net", "scaled_help"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, 90),
        ({"by": 2.0}, 0),
        ({"net": NET.replace(".relu()", ".tanh()")}, 0),
        ({"net": NET + "\n# another line\n"}, 0),
        ({"factor": 3.0}, 0),
    ],
)
def test_code_and_attributes_of_a_model(code: Any, tmp_path: Path, change: dict[str, Any], found: int) -> None:
    def opened(store: str | Path, by: float = 1.0, **files: Any) -> Any:
        code(**files)
        teacher = {"model": {"scaled_net:Scaled": {"by": by}}}
        return host(mesh(teacher=teacher), store)

    published(opened(tmp_path / "store"))
    one = opened(tmp_path / "store", **change)
    values = published(one)
    assert one.shelf.hits["t"].found == found and one.shelf.left == {}
    assert same(values, published(opened("", **change)))


def test_a_module_from_python_is_known_by_what_it_holds(code: Any, tmp_path: Path) -> None:
    code()
    made = import_module("scaled_net").Scaled
    torch.manual_seed(0)
    one, other = made(), made()
    other.load_state_dict(one.state_dict())
    found = []
    for by in (1.0, 1.0, 4.0):
        other.by = by
        opened = host(mesh(teacher={"model": other, "seed": None}), tmp_path / "store")
        published(opened)
        assert opened.shelf is not None
        found.append(opened.shelf.hits["t"].found)
    assert found == [0, 90, 0]


class Nowhere(nn.Module):
    """Of a test's file, which is rewritten as it is imported: no file has this code."""


def test_what_has_no_identity_says_why() -> None:
    with pytest.raises(Unknown, match="no file has the code of test_stored_keys"):
        identity(Nowhere())
    held = nn.Linear(2, 2)
    held.random = torch.Generator()  # type: ignore[assignment]
    with pytest.raises(Unknown, match="random is a generator"):
        identity(held)
    held.random = iter(())  # type: ignore[assignment]
    with pytest.raises(Unknown, match="random is a tuple_iterator, of which nothing tells"):
        identity(held)


def test_identities_tell_modules_apart() -> None:
    def hooked(module: nn.Module) -> nn.Module:
        module.register_forward_hook(torch.nn.modules.module.register_module_forward_hook)  # any function of a file
        return module

    def beside(value: float) -> nn.Module:
        module = nn.Linear(2, 2)
        module.register_buffer("mask", torch.full((2,), value), persistent=False)
        return module

    every = [
        nn.Linear(2, 2),
        nn.Sequential(nn.Linear(2, 2)),
        nn.Sequential(nn.Linear(2, 2), nn.ReLU()),
        nn.Sequential(nn.Linear(2, 2), nn.LeakyReLU(0.1)),
        nn.Sequential(nn.Linear(2, 2), nn.LeakyReLU(0.2)),
        hooked(nn.Linear(2, 2)),
        beside(0.0),
        beside(1.0),
    ]
    found = [identity(module) for module in every]
    assert len({*found}) == len(every)
    assert found == [identity(module) for module in every]
    assert identity(nn.Linear(2, 2)) == identity(nn.Linear(2, 2))  # whatever its weights
