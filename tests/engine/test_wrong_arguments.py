"""Arguments of the Python interface that nobody can mean: each is one MeshError in plain words, from no inner place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import kdmesh
from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Callable

X, Y = torch.rand(20, 3), torch.randint(0, 2, (20,))
WRONG: list[Any] = [
    None, 3, 1.5, True, float("nan"), b"x", "", "\0", "nosuch\x1b[31m\n", (1, 2), [1], [[["x"]]], {1: 2}, {"a": {1: 2}},
    object(), lambda: 0, nn.Linear, nn.Linear(1, 1), torch.zeros(2),
]  # fmt: skip


def small() -> kdmesh.Mesh:
    made = kdmesh.Mesh(data={"dataset": "digits", "train": 64}, train={"steps": 1})
    made.agent("t", {"mlp": {"hidden": [4]}})
    made.agent("s", {"mlp": {"hidden": [4]}})
    made.flow("labels", ["t", "s"], objective="ce")
    return made


def grown(add: Callable[[kdmesh.Mesh, Any], Any]) -> Callable[[Any], Any]:
    """Add something to a small mesh, and plan it."""

    def call(value: Any) -> Any:
        made = small()
        add(made, value)
        return made.plan()

    return call


def begun(name: str) -> Callable[[Any], Any]:
    def call(value: Any) -> Any:
        return small().run(**{"backend": "inline", name: value})

    return call


CALLS: dict[str, Callable[[Any], Any]] = {
    "Mesh.read": lambda value: kdmesh.Mesh.read(value),
    "Mesh.read, an override": lambda value: kdmesh.Mesh.read("council", value),
    "Mesh.read, data": lambda value: kdmesh.Mesh.read("council", data=value).plan(),
    "Mesh, data": lambda value: kdmesh.Mesh(data=value, agents={"a": "mlp"}).plan(),
    "Mesh, splits": lambda value: kdmesh.Mesh(data=(X, Y), splits=value).plan(),
    "Mesh, agents": lambda value: kdmesh.Mesh(data="digits", agents=value).agent("x", "mlp"),
    "Mesh, connect": lambda value: kdmesh.Mesh(data="digits", connect=value).plan(),
    "Mesh, flows": lambda value: kdmesh.Mesh(data="digits", flows=value).plan(),
    "Mesh, consensus": lambda value: kdmesh.Mesh(data="digits", consensus=value).consensus("x", "mean"),
    "Mesh, train": lambda value: kdmesh.Mesh(data="digits", train=value).plan(),
    "agent": grown(lambda made, value: made.agent(value, "mlp")),
    "agent, model": grown(lambda made, value: made.agent("x", value)),
    "agent, weights": grown(lambda made, value: made.agent("x", "mlp", weights=value)),
    "connect": grown(lambda made, value: made.connect(value)),
    "connect, a setting": grown(lambda made, value: made.connect("ensemble", teachers=value, student="s")),
    "consensus": grown(lambda made, value: made.consensus(value, "mean")),
    "consensus, rule": grown(lambda made, value: (made.consensus("c", value), made.flow("t", "c"))),
    "flow, source": grown(lambda made, value: made.flow(value, "s")),
    "flow, target": grown(lambda made, value: made.flow("t", value)),
    "flow, objective": grown(lambda made, value: made.flow("t", "s", objective=value)),
    "data": lambda value: kdmesh.data(value),
    "data, validation": lambda value: kdmesh.data((X, Y), value),
    "data, classes": lambda value: kdmesh.data((X, Y), classes=value),
    "load": lambda value: kdmesh.load(value),
    **{f"run, {name}": begun(name) for name in (
        "backend", "ray_address", "out", "seeds", "controls", "strict_signals", "resume", "from_start",
        "checkpoint_seconds", "progress_timeout",
    )},
}  # fmt: skip
FINE: dict[str, tuple[Any, ...]] = {
    "Mesh.read, data": (None,),
    "Mesh, data": (None,),
    "Mesh, agents": ({1: 2}, {"a": {1: 2}}),
    "Mesh, connect": ((1, 2),),
    "Mesh, consensus": ({1: 2}, {"a": {1: 2}}),
    "agent, model": (None, WRONG[17]),
    "agent, weights": (None,),
    "data, validation": (None,),
    "data, classes": (None, 3),
    "run, backend": (None,),
    "run, ray_address": (None, "", "\0", "nosuch\x1b[31m\n"),  # of a cluster that is not asked for
    "run, out": (None, "nosuch\x1b[31m\n"),
    "run, seeds": (None, 3),
    "run, controls": (None,),
    "run, strict_signals": (True,),
    "run, resume": (None,),
    "run, from_start": (True,),
    "run, checkpoint_seconds": (3, 1.5),
    "run, progress_timeout": (3, 1.5),
}
"""What is right there, or is judged later."""


@pytest.mark.parametrize("name", CALLS)
def test_wrong_arguments_are_told_in_plain_words(name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for value in WRONG:
        if any(value is fine or (type(value) is type(fine) and value == fine) for fine in FINE.get(name, ())):
            continue
        with pytest.raises(MeshError) as error:
            CALLS[name](value)
        assert str(error.value).isprintable() or not set(str(error.value)) & set("\x1b\0"), repr(value)
        assert "object has no attribute" not in str(error.value), repr(value)
    assert not any(tmp_path.iterdir())


def test_what_a_mesh_is_given_stays_as_it_was() -> None:
    agents: dict[str, Any] = {"a": {"model": "mlp"}}
    kdmesh.Mesh(data="digits", agents=agents).agent("b", "mlp")
    assert list(agents) == ["a"]


def test_a_data_set_that_breaks_is_named_with_its_own_error() -> None:
    class Broken(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            raise KeyError("no such sample")

    with pytest.raises(MeshError, match="Broken gives no item 0: KeyError: 'no such sample'") as error:
        kdmesh.data(Broken())
    assert isinstance(error.value.__cause__, KeyError)
