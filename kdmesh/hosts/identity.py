"""What a module computes beside its weights, as one hash: its parts, what they hold, and the code that they run.

Two modules of equal identity and equal weights give equal answers. What cannot be told apart for sure has no identity:
code that comes from no file, or a value whose content Python does not show.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import sys
import types
from enum import Enum
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from kdmesh.imports import own_source, sources

if TYPE_CHECKING:
    from collections.abc import Iterable

_OF_NN = frozenset(vars(nn.Module()))  # what every module has: weights, buffers and parts are looked at by themselves
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
# Of configurations of transformers: where they are from, and a hash that is another one in each process.
_TOLD = ("_name_or_path", "_commit_hash", "_original_object_hash")
_PLAIN = (torch.dtype, torch.device, torch.Size, torch.memory_format, torch.layout, PurePath, re.Pattern, Enum, complex)
_ALIKE = ("torch", "numpy", "builtins")  # of these a fingerprint has the version, or none is needed


class Unknown(ValueError):
    """What has no identity; the message says what is in the way."""


def identity(module: nn.Module) -> str:
    """The sha256 of all that a module's answers in eval mode depend on, but for its state. :class:`Unknown` if none.

    That are the classes of its parts and how these are nested, attributes, hooks, buffers that are not in its state,
    and the sources of the code, or the version of the distribution that it comes with.
    """
    walk = _Walk()
    parts = [(path, walk.part(part)) for path, part in module.named_modules()]
    return digest({"parts": parts, "classes": walk.made, "code": walk.code()})


def code(names: Iterable[str]) -> dict[str, str]:
    """Of modules by name, and of what they import: the sha256 of each source, or the version of what is installed."""
    found: dict[str, str] = {}
    for name in sorted(set(names)):
        if name.partition(".")[0] not in _ALIKE:
            found |= _sources(name)
    return found


def digest(told: Any) -> str:
    """The sha256 of what JSON can say."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@functools.cache
def _sources(name: str) -> dict[str, str]:
    """Of one module that is imported. What is installed counts as a whole; what kdmesh brings, by its file, too."""
    if name == "__main__":
        raise Unknown("its code is the program's own: put it into a file that the program imports")
    top = name.partition(".")[0]
    if own_source(name) is not None:
        found = sources(name)
    else:
        found = sources(name) if name == top else dict(_sources(top))
    if nameless := [module for module, told in found.items() if told == "?"]:
        raise Unknown(f"no file has the code of {nameless[0]}")
    if top == "kdmesh" and (file := getattr(sys.modules.get(name), "__file__", None)):
        found[name] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return found


class _Walk:
    """What was met so far: objects, so that circles end, and the modules of the code."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no number of an object is given twice
        self._names: set[str] = set()
        self.made: dict[str, Any] = {}  # of classes that a function made: what it gave their methods

    def code(self) -> dict[str, str]:
        return code(self._names)

    def part(self, part: nn.Module) -> dict[str, Any]:
        """What one part is, without the parts below it."""
        told: dict[str, Any] = {"class": self.type(type(part))}
        names = sorted(name for name in vars(part) if name not in _OF_NN and not name.startswith("kdmesh_"))
        told["own"] = {name: self.value(vars(part)[name], name) for name in names}
        hooks = [hook for name in _HOOKS for hook in vars(part)[name].values()]
        told["hooks"] = [self.value(hook, "a hook") for hook in hooks]
        beside = {
            name: part._buffers[name] for name in sorted(part._non_persistent_buffers_set) if name in part._buffers
        }
        told["beside"] = {name: self.value(value, name) for name, value in beside.items()}
        return told

    def type(self, kind: type) -> str:
        """The name of a class, whose code is noted with that of what it is derived from."""
        for one in kind.__mro__:
            self._names.add(one.__module__)
            for method in vars(one).values():
                if isinstance(method, types.FunctionType) and method.__closure__ and "<locals>" in one.__qualname__:
                    name = f"{one.__module__}.{method.__qualname__}"
                    if name not in self.made:
                        self.made[name] = None  # it may hold its own class
                        self.made[name] = self._closure(method)
        return f"{kind.__module__}.{kind.__qualname__}"

    def value(self, value: Any, name: str) -> Any:
        """What a value is, as JSON holds it."""
        if value is None or isinstance(value, bool | str):
            return value if isinstance(value, str) or value is None else {"bool": value}
        if isinstance(value, int | float) and type(value) in (int, float):
            return {type(value).__name__: repr(value)}
        if isinstance(value, Tensor):
            return {"tensor": [str(value.dtype), list(value.shape), _hash(value)]}
        if isinstance(value, np.ndarray) and value.dtype != object:
            return {"array": [str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]}
        if isinstance(value, bytes):
            return {"bytes": hashlib.sha256(value).hexdigest()}
        if isinstance(value, _PLAIN):
            return {type(value).__name__: str(value)}
        if isinstance(value, type):
            return {"type": self.type(value)}
        if id(value) in self._seen:
            return {"again": self._seen[id(value)]}
        self._seen[id(value)] = len(self._seen)
        self._kept.append(value)
        return self._held(value, name)

    def _held(self, value: Any, name: str) -> Any:
        """What a value is that may hold others."""
        if isinstance(value, nn.Module):
            return {"module": [(path, self.part(part)) for path, part in value.named_modules()], "state": _state(value)}
        if isinstance(value, dict):
            pairs = [(self.value(key, name), self.value(one, name)) for key, one in value.items() if key not in _TOLD]
            return {self.type(type(value)): pairs}
        if isinstance(value, list | tuple):
            return {self.type(type(value)): [self.value(one, name) for one in value]}
        if isinstance(value, set | frozenset):
            return {"set": sorted(json.dumps(self.value(one, name), sort_keys=True) for one in value)}
        if isinstance(value, functools.partial):
            return {"partial": [self.value(one, name) for one in (value.func, value.args, value.keywords)]}
        if isinstance(value, types.MethodType):
            return {"method": [value.__name__, self.value(value.__self__, name)]}
        if isinstance(value, types.FunctionType):
            return self._function(value, name)
        if isinstance(value, types.BuiltinFunctionType | np.ufunc):
            return {"builtin": f"{getattr(value, '__module__', '')}.{value.__name__}"}
        if isinstance(value, torch.Generator):
            raise Unknown(f"{name} is a generator of random numbers")
        own = getattr(value, "__dict__", None)
        if own is None or type(value).__module__ == "builtins":
            raise Unknown(f"{name} is a {type(value).__qualname__}, of which nothing tells what it holds")
        kept = {key: self.value(one, f"{name}.{key}") for key, one in sorted(own.items()) if key not in _TOLD}
        return {self.type(type(value)): kept}

    def _function(self, value: types.FunctionType, name: str) -> Any:
        self._names.add(value.__module__)
        told: dict[str, Any] = {"function": f"{value.__module__}.{value.__qualname__}"}
        if value.__name__ == "<lambda>" or value.__closure__:
            told["line"] = value.__code__.co_firstlineno
            told["code"] = hashlib.sha256(value.__code__.co_code).hexdigest()
            told["holds"] = self._closure(value)
        told["by default"] = [self.value(one, name) for one in (value.__defaults__, value.__kwdefaults__)]
        return told

    def _closure(self, value: types.FunctionType) -> list[Any]:
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        return [self.value(cell.cell_contents, free) for free, cell in cells if free != "__class__"]


def _hash(value: Tensor) -> str:
    if value.is_meta:
        raise Unknown("a tensor of it has no memory")
    data = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.sha256(data.tobytes()).hexdigest()


def _state(module: nn.Module) -> list[tuple[str, str, str]]:
    return [(name, str(value.dtype), _hash(value)) for name, value in sorted(module.state_dict().items())]
