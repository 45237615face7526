"""Modules that compute other things have other identities, however the difference came about."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable, Iterator
from importlib import import_module, invalidate_caches, reload
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kdmesh.hosts.identity import Unknown, identity, made_of

SOURCE = """
import os
from collections import defaultdict, deque, namedtuple
import torch
from torch import nn
import told_apart_help

SCALE = float(os.environ.get("TOLD_APART", "1"))
ACTS = [lambda x: x * 2, lambda x: x * 3]
Pair = namedtuple("Pair", "a b")

def helped(x): return told_apart_help.OFFSET + x

class Net(nn.Module):
    by = 1.0
    def __init__(self, held=None):
        super().__init__()
        self.layer, self.held = nn.Linear(4, 3), held
    def forward(self, x):
        return helped(self.layer(x)) * SCALE * self.by

def inner(number):
    if number:
        def of(x): return x * 2
    else:
        def of(x): return x * 3
    return of

def local(number):
    class Local(Net):
        by = float(number)
    return Local()

def by_default(number):
    class Local(Net):
        def forward(self, x, by=float(number)): return self.layer(x) * by
    return Local()

def forwards(number):
    if number:
        def forward(self, x): return self.layer(x) * 2
    else:
        def forward(self, x): return self.layer(x) * 3
    return forward

class Dict(dict): pass
class List(list): pass
class Float(float): pass
class Slot: __slots__ = ("a",)
class Slotted(Slot): pass
class Deque(deque): pass

class Unstated(Net):
    def state_dict(self, *args, **more): return {}

class Cleared(Net):
    def __init__(self):
        super().__init__()
        self._register_state_dict_hook(lambda module, state, *more: state.clear())

class Extra(Net):
    def get_extra_state(self): return {"a": 1}

def having(made, value):
    made.a = value
    return made
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "told_apart.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "told_apart_help.py").write_text("OFFSET = 0.0\n", encoding="utf-8")
    invalidate_caches()
    yield import_module("told_apart")
    for name in ("told_apart", "told_apart_help"):
        sys.modules.pop(name, None)


def bound(code: Any, number: int) -> nn.Module:
    net: nn.Module = code.Net()
    net.forward = types.MethodType(code.forwards(number), net)
    return net


UNLIKE: dict[str, Callable[[Any, int], nn.Module]] = {
    "lambdas of one line": lambda code, n: code.Net(code.ACTS[n]),
    "functions of one name": lambda code, n: code.Net(code.inner(n)),
    "attributes of a local class": lambda code, n: code.local(n),
    "defaults of a local class": lambda code, n: code.by_default(n),
    "two local classes": lambda code, n: nn.Sequential(code.local(1), code.local(n)),
    "a method put on one module": bound,
    "what a dict holds beside its pairs": lambda code, n: code.Net(code.having(code.Dict(), n)),
    "what a list holds beside its parts": lambda code, n: code.Net(code.having(code.List(), n)),
    "a number of a derived type": lambda code, n: code.Net(code.Float(n)),
    "slots": lambda code, n: code.Net(code.having(code.Slotted(), n)),
    "what a dict gives for missing keys": lambda code, n: code.Net(code.defaultdict(code.ACTS[n])),
    "long patterns": lambda code, n: code.Net(__import__("re").compile("a" * 300 + str(n))),
    "named tuples": lambda code, n: code.Net(code.Pair(1, n)),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_what_is_unlike_is_told_apart(code: Any, name: str) -> None:
    def made(number: int) -> str:
        torch.manual_seed(0)
        return identity(UNLIKE[name](code, number))

    first, second = made(0), made(1)
    assert first != second
    assert (made(0), made(1)) == (first, second)


def test_what_is_set_from_outside_counts(code: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    net = code.Net()
    found = [identity(net)]
    for place, name, value in (
        (code.Net, "by", 2.0),
        (code.Net, "forward", code.forwards(0)),
        (code, "SCALE", 5.0),
        (code.told_apart_help, "OFFSET", 1.0),
        (nn.Linear, "forward", code.forwards(1)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, value)
            found.append(identity(net))
    hook = torch.nn.modules.module.register_module_forward_hook(code.ACTS[0])
    found.append(identity(net))
    hook.remove()
    assert len({*found}) == len(found)
    assert identity(net) == found[0]


def test_what_a_function_reads_counts_as_what_a_module_reads(code: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [made_of(code.helped), made_of(code.Net), made_of(code.inner)]
    monkeypatch.setattr(code.told_apart_help, "OFFSET", 1.0)
    again = [made_of(code.helped), made_of(code.Net), made_of(code.inner)]
    assert len({*found, *again}) == 5 and found[2] == again[2]


def test_the_environment_that_code_was_loaded_in_counts(code: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity(code.Net())
    monkeypatch.setitem(os.environ, "TOLD_APART", "3")
    assert identity(reload(code).Net()) != before


def test_a_source_that_was_edited_is_read_anew(code: Any, tmp_path: Path) -> None:
    net, path = code.Net(), tmp_path / "told_apart.py"
    before = identity(net)
    path.write_text(SOURCE.replace("* self.by", "* self.by * 7"), encoding="utf-8")
    with pytest.raises(Unknown, match=r"Net\.forward is code that told_apart\.py no longer has"):
        identity(net)
    assert identity(reload(code).Net()) != before


def test_what_only_c_sees_has_no_identity(code: Any) -> None:
    with pytest.raises(Unknown, match="held is a Deque, of which nothing tells"):
        identity(code.Net(code.Deque([1])))


def test_weights_that_a_state_leaves_out_count(code: Any) -> None:
    for made in (code.Unstated, code.Cleared):
        one, other = made(), made()
        assert identity(one) != identity(other)
        other.layer.load_state_dict(one.layer.state_dict())
        assert identity(one) == identity(other)
    with pytest.raises(Unknown, match="_extra_state of its state is a dict, and not a tensor"):
        identity(code.Extra())


def test_what_a_library_adds_for_itself_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As transformers adds `smart_apply` to `nn.Module`: else no other process would find the answers."""
    import yaml

    before = identity(nn.Linear(4, 3))
    monkeypatch.setattr(nn.Module, "added_by_a_library", yaml.safe_load, raising=False)
    assert identity(nn.Linear(4, 3)) == before
    for kind, name in ((nn.Linear, "forward"), (nn.Linear, "train")):  # its own, and one that it has of another
        with monkeypatch.context() as patch:
            patch.setattr(kind, name, yaml.safe_load)
            assert identity(nn.Linear(4, 3)) != before
    assert identity(nn.Linear(4, 3)) == before
