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
from collections import defaultdict
from enum import Enum
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from kdmesh.hosts import loaded_code
from kdmesh.imports import own_source, sources

if TYPE_CHECKING:
    from collections.abc import Iterable

_OF_NN = frozenset(vars(nn.Module()))  # what every module has: weights, buffers and parts are looked at by themselves
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_EVERYWHERE = ("_global_forward_hooks", "_global_forward_pre_hooks")  # of torch.nn.modules.module
# Of configurations of transformers: where they are from, and a hash that is another one in each process.
_TOLD = ("_name_or_path", "_commit_hash", "_original_object_hash")
_PLAIN = (torch.dtype, torch.device, torch.Size, torch.memory_format, torch.layout, PurePath, complex)
_NUMBERS = (int, float, str, bytes)
_LISTED = (dict, list, tuple)  # whose parts are looked at by themselves
_DATA = (bool, *_NUMBERS, complex, Tensor, np.ndarray, np.generic, *_LISTED, set, frozenset)  # that code may read
_SLOT = types.MemberDescriptorType
_OF_C = (types.WrapperDescriptorType, types.MethodDescriptorType)
_ALIKE = ("torch", "numpy", "builtins")  # of these a fingerprint has the version, or none is needed


class Unknown(ValueError):
    """What has no identity; the message says what is in the way."""


def identity(module: nn.Module) -> str:
    """The sha256 of all that a module's answers in eval mode depend on, but for its state. :class:`Unknown` if none.

    That are the classes of its parts and how these are nested, attributes, hooks, what is not in its state,
    and the sources of the code, or the version of the distribution that it comes with. Of one's own code what it reads
    counts, too, as it is now: attributes of classes, and globals, which an environment or a caller may have set. Code
    that was loaded from a source that says another thing by now has no identity.
    """
    walk = _Walk()
    parts = [(path, walk.part(part)) for path, part in module.named_modules()]
    everywhere = [walk.value(hook, "a hook of all modules") for name in _EVERYWHERE for hook in _global_hooks(name)]
    told = {"parts": parts, "classes": walk.classes(), "reads": walk.reads, "code": walk.code()}
    more = {"hooks": everywhere, "unstated": _unstated(module)}
    return digest(told | {name: one for name, one in more.items() if one})


def _unstated(module: nn.Module) -> list[tuple[str, str, str]]:
    """Weights and buffers that the state leaves out. :class:`Unknown` for a state that has more than tensors."""
    state = module.state_dict(keep_vars=True)
    if odd := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise Unknown(f"{odd[0]} of its state is a {type(state[odd[0]]).__qualname__}, and not a tensor")
    shown = {id(value) for value in state.values()}
    own = [*module.named_parameters(), *module.named_buffers()]
    return [(name, str(value.dtype), _hash(value)) for name, value in own if id(value) not in shown]


def made_of(found: Any) -> str:
    """The sha256 of a class or a function: of its code, and of what that reads. :class:`Unknown` if it has none."""
    walk = _Walk()
    told = walk.value(found, getattr(found, "__name__", "it"))
    return digest({"is": told, "classes": walk.classes(), "reads": walk.reads, "code": walk.code()})


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


def _global_hooks(name: str) -> list[Any]:
    return list(getattr(torch.nn.modules.module, name, {}).values())


Class = type  # which a method below is called
_Stamps = dict[str, tuple[Path | None, tuple[int, int]]]
_known: dict[str, tuple[_Stamps, dict[str, str]]] = {}  # by module: its files as they were, and what they were


def _sources(name: str) -> dict[str, str]:
    """Of one module that is imported, read anew where one of its files is another: a notebook reloads code."""
    stamps, found = _known.get(name, ({}, {}))
    if not stamps or any(_stamped(module) != stamp for module, stamp in stamps.items()):
        found = _read_sources(name)
        _known[name] = {module: _stamped(module) for module in {name, *found}}, found
    return found


def _stamped(module: str) -> tuple[Path | None, tuple[int, int]]:
    file = own_source(module)
    return file, (0, 0) if file is None else loaded_code.stamp(file)


def _read_sources(name: str) -> dict[str, str]:
    """What is installed counts as a whole; what kdmesh brings, by its file, too."""
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
        self.made: dict[str, dict[Class, Any]] = {}  # of classes by name: what stands in them beside their source
        self.reads: dict[str, Any] = {}  # what functions of one's own read, by module and name
        self._looked: set[types.CodeType] = set()

    def code(self) -> dict[str, str]:
        return code(self._names)

    def classes(self) -> dict[str, Any]:
        """What stands in classes beside their source, where there is something; of one name in order."""
        every = {name: list(alike.values()) for name, alike in self.made.items()}
        return {name: told for name, told in every.items() if any(told)}

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
            alike = self.made.setdefault(f"{one.__module__}.{one.__qualname__}", {})
            if one not in alike:
                alike[one] = None  # it may hold itself
                alike[one] = self._class(one)
        name = f"{kind.__module__}.{kind.__qualname__}"
        number = list(self.made[name]).index(kind)  # a function may make several of one name
        return f"{name} {number}" if number else name

    def _class(self, one: Class) -> dict[str, Any]:
        """What stands in a class beside its source: what was put there by others, and, of one's own, its data."""
        local = "<locals>" in one.__qualname__
        own = local or own_source(one.__module__) is not None
        told: dict[str, Any] = {}
        for name, value in sorted(vars(one).items()):
            methods = _methods(value)
            for method in methods:
                if own or (_foreign(method, one) and _counts(method, name, one)):
                    told[name] = self._function(method, f"{one.__qualname__}.{name}", whole=local)
            if own and not methods and isinstance(value, _DATA) and not name.startswith("__"):
                told[name] = self._data(value, name)
        return told

    def _data(self, value: Any, name: str) -> Any:
        """What data is that code reads; of what has no identity its source alone says it."""
        try:
            return self.value(value, name)
        except Unknown:
            return None

    def value(self, value: Any, name: str) -> Any:
        """What a value is, as JSON holds it."""
        if value is None or type(value) in (bool, str):
            return value if not isinstance(value, bool) else {"bool": value}
        if type(value) in (int, float):
            return {type(value).__name__: repr(value)}
        if isinstance(value, Tensor):
            return {"tensor": [str(value.dtype), list(value.shape), _hash(value)]}
        if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
            return {"array": [str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]}
        if type(value) is bytes:
            return {"bytes": hashlib.sha256(value).hexdigest()}
        if isinstance(value, re.Pattern):
            return {"pattern": [self.value(value.pattern, name), value.flags]}
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
        if isinstance(value, Enum):
            return {self.type(type(value)): [value.name, self._data(value.value, name)]}
        if isinstance(value, _LISTED):
            return {self.type(type(value)): [self._parts(value, name), *self._beside(value, name)]}
        if isinstance(value, set | frozenset):
            return {"set": sorted(json.dumps(self.value(one, name), sort_keys=True) for one in value)}
        if isinstance(value, functools.partial):
            return {"partial": [self.value(one, name) for one in (value.func, value.args, value.keywords)]}
        if isinstance(value, types.MethodType):
            return {"method": [self.value(value.__func__, name), self.value(value.__self__, name)]}
        if isinstance(value, types.FunctionType):
            return self._function(value, name)
        if isinstance(value, types.BuiltinFunctionType | np.ufunc):
            return {"builtin": f"{getattr(value, '__module__', '')}.{value.__name__}"}
        if isinstance(value, torch.Generator):
            raise Unknown(f"{name} is a generator of random numbers")
        base = next((one for one in _NUMBERS if isinstance(value, one)), None)
        if base is not None:
            plain = base.__str__(value) if base is str else base(value)
            return {self.type(type(value)): [self.value(plain, name), *self._beside(value, name)]}
        if hasattr(value, "cache_info") and hasattr(value, "__wrapped__"):
            return {"cached": self.value(value.__wrapped__, name)}
        return self._object(value, name)

    def _parts(self, value: Any, name: str) -> Any:
        if not isinstance(value, dict):
            return [self.value(one, name) for one in value]
        return [(self.value(key, name), self.value(one, name)) for key, one in value.items() if key not in _TOLD]

    def _beside(self, value: Any, name: str) -> list[Any]:
        """What a value of a derived class holds beside what its base does."""
        factory = [self.value(value.default_factory, name)] if isinstance(value, defaultdict) else []
        own = getattr(value, "__dict__", None)
        return [*factory, self._attributes(own, name)] if own else factory

    def _object(self, value: Any, name: str) -> Any:
        """An object that holds what its attributes say."""
        kinds = type(value).__mro__[:-1]
        held = [slot for kind in kinds for slot, one in vars(kind).items() if isinstance(one, _SLOT)]
        own = {slot: getattr(value, slot) for slot in held if hasattr(value, slot)}
        inside = not (hasattr(value, "__dict__") or held) or any(map(_is_of_c, kinds))
        if inside or type(value).__module__ == "builtins":
            raise Unknown(f"{name} is a {type(value).__qualname__}, of which nothing tells what it holds")
        return {self.type(type(value)): self._attributes(own | getattr(value, "__dict__", {}), name)}

    def _attributes(self, own: dict[str, Any], name: str) -> dict[str, Any]:
        return {key: self.value(one, f"{name}.{key}") for key, one in sorted(own.items()) if key not in _TOLD}

    def _function(self, value: types.FunctionType, name: str, whole: bool = False) -> Any:
        """A function: by its name where its source says all of it, else, or if ``whole``, by its code, too."""
        made = value.__module__ not in sys.modules  # by who makes code, as of a named tuple
        if not made:
            self._names.add(value.__module__)
        if (file := loaded_code.stale(value)) is not None:
            raise Unknown(f"{name} is code that {file.name} no longer has: load it anew")
        told: dict[str, Any] = {"function": f"{value.__module__}.{value.__qualname__}"}
        if whole or made or value.__closure__ or not loaded_code.in_its_place(value):
            told["code"] = loaded_code.summed(value.__code__)
            told["holds"] = self._closure(value)
        told["by default"] = [self.value(one, name) for one in (value.__defaults__, value.__kwdefaults__)]
        self._globals(value)
        return told

    def _globals(self, value: types.FunctionType) -> None:
        """Note what a function of one's own reads of its module, and of others of one's own."""
        if value.__code__ in self._looked or own_source(value.__module__ or "") is None:
            return
        self._looked.add(value.__code__)
        names = sorted({*loaded_code.names(value.__code__)} & value.__globals__.keys())
        for name in names:
            found = value.__globals__[name]
            self._read(value.__module__, name, found)
            if isinstance(found, types.ModuleType) and own_source(found.__name__) is not None:
                for own in sorted({*loaded_code.names(value.__code__)} & vars(found).keys()):
                    self._read(found.__name__, own, vars(found)[own])

    def _read(self, module: str, name: str, found: Any) -> None:
        at = f"{module}.{name}"
        if at in self.reads:
            return
        if isinstance(found, types.FunctionType) and own_source(found.__module__ or "") is not None:
            self.reads[at] = None  # it may call itself
            self.reads[at] = self._function(found, at)
        elif isinstance(found, type) and own_source(found.__module__) is not None:
            self.reads[at] = self.type(found)
        elif isinstance(found, _DATA):
            self.reads[at] = self._data(found, at)

    def _closure(self, value: types.FunctionType) -> list[Any]:
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        return [self.value(cell.cell_contents, free) for free, cell in cells if free != "__class__"]


def _top(one: Any) -> str:
    return str(one.__module__ or "").partition(".")[0]


def _foreign(method: types.FunctionType, one: type) -> bool:
    return _top(method) not in (_top(one), *_ALIKE) and method.__module__ in sys.modules


def _counts(method: types.FunctionType, name: str, one: type) -> bool:
    """Whether a method that others put on a class may be called: one's own, or in place of another.

    A new name that a library adds, as transformers does to `nn.Module` once it has built a model, is only for itself.
    """
    replaced = any(name in vars(base) for base in one.__mro__[1:]) or loaded_code.defines(one, name)
    return replaced or own_source(method.__module__) is not None


def _methods(value: Any) -> list[types.FunctionType]:
    """The functions that an attribute of a class stands for."""
    if isinstance(value, property):
        every = [value.fget, value.fset]
    else:
        every = [value.__func__ if isinstance(value, staticmethod | classmethod) else value]
    return [one for one in every if isinstance(one, types.FunctionType)]


def _is_of_c(kind: type) -> bool:
    """Whether a class keeps what it holds where Python does not see it: as a deque, or what is derived from it."""
    return any(isinstance(one, _OF_C) for one in vars(kind).values())


def _hash(value: Tensor) -> str:
    if value.is_meta:
        raise Unknown("a tensor of it has no memory")
    data = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.sha256(data.tobytes()).hexdigest()


def _state(module: nn.Module) -> list[tuple[str, str, str]]:
    return [(name, str(value.dtype), _hash(value)) for name, value in sorted(module.state_dict().items())]
