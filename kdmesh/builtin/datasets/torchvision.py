"""Data sets of torchvision by name, from a folder that has them; nothing is downloaded."""

from __future__ import annotations

import inspect
import math
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdmesh.errors import MeshError, nearest, text_of
from kdmesh.streams.checks import targets
from kdmesh.streams.from_torch import class_names, join
from kdmesh.streams.host_memory import memory
from kdmesh.streams.table import Table
from kdmesh.tables.images import Form, Unreadable, needed, pixels_of

WHERE = "data.dataset.torchvision"
PARTS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}


def torchvision(
    name: str, folder: str, resize: int | list[int] | None = None, mode: str | None = None, split: str | None = None
) -> Table:
    """Return images ``[N, channels, height, width]``, values 0 .. 1, with the official splits that the data set has."""
    needed(WHERE)
    try:
        library: Any = import_module("torchvision.datasets")
    except (ImportError, RuntimeError) as error:  # a wheel beside another build of torch
        what = f"this needs torchvision: {text_of(error)}"
        raise MeshError(what, where=WHERE, instead="pip install torchvision, of the build that fits torch") from None
    known = {
        one: kind for one, kind in vars(library).items()
        if inspect.isclass(kind) and issubclass(kind, library.VisionDataset) and not one.startswith("_")
    }  # fmt: skip
    if name not in known:
        what, instead = f"torchvision has no data set {name!r}", nearest(name, known, "data sets")
        raise MeshError(what, where=f"{WHERE}.name", instead=instead)
    if not Path(folder).is_dir():
        raise MeshError(
            f"no folder {folder}", where=f"{WHERE}.folder", instead="the folder that torchvision calls root"
        )
    size = None if resize is None else (resize, resize) if isinstance(resize, int) else (resize[0], resize[1])
    form = Form(size, mode)
    found = {part: _read(made, f"{name}, {part}", form) for part, made in _parts(known[name], folder, split).items()}
    table = join(found["train"], found.get("validation"), found.get("test"))
    table.source, table.images = name, {"resize": size, "mode": mode}
    return table


def _parts(kind: Any, folder: str, split: str | None) -> dict[str, Any]:
    """The data set's splits, by what its class takes: `train`, `split`, or neither."""
    takes = inspect.signature(kind).parameters
    if split is not None and "split" not in takes:
        raise MeshError(f"{kind.__name__} has no `split`", where=f"{WHERE}.split", instead="leave it out")
    more: dict[str, Any] = {"download": False} if "download" in takes else {}
    if "train" in takes:
        return {part: _made(kind, folder, {**more, "train": part == "train"}) for part in ("train", "test")}
    if "split" not in takes or split is not None:
        return {"train": _made(kind, folder, {**more, "split": split} if split is not None else more)}
    found: dict[str, Any] = {}
    for part, names in PARTS.items():
        for one in names:
            try:
                found[part] = kind(folder, **more, split=one)
                break
            except ValueError as error:  # it has no split of this name
                if part == "train":
                    raise _refused(kind, error) from None
            except Exception as error:  # it has, and what it is of is missing or damaged
                raise _refused(kind, error) from None
    return found


def _made(kind: Any, folder: str, settings: dict[str, Any]) -> Any:
    try:
        return kind(folder, **settings)
    except Exception as error:  # of torchvision, by what is missing or damaged
        raise _refused(kind, error) from None


def _refused(kind: Any, error: Exception) -> MeshError:
    """The same in its own words."""
    what = f"{kind.__name__}: {text_of(error)}"
    return MeshError(what, where=f"{WHERE}.folder", instead="the folder in which it was downloaded")


def _read(made: Any, source: str, form: Form) -> Table:
    x: Tensor | None = None
    labels: list[Any] = []
    for at in range(len(made)):
        image, label = made[at]
        try:
            pixels = torch.from_numpy(pixels_of(image, form))
            x = _room(len(made), pixels.shape, source) if x is None else x
            if pixels.shape != x.shape[1:]:
                raise Unreadable(f"shape {list(pixels.shape)}, where others have {list(x.shape[1:])}", "resize: [H, W]")
        except Unreadable as error:
            raise MeshError(f"{source}, item {at}: {error.what}", where=WHERE, instead=error.instead) from None
        x[at] = pixels
        labels.append(label)
    if x is None:
        raise MeshError(f"{source}: it is empty", where=WHERE, instead="a data set with images")
    names = class_names(made)
    try:
        y, count = targets(torch.as_tensor(labels), len(x), len(names) or None, source, WHERE)
    except (TypeError, ValueError):
        what = f"{source}: its labels are no classes: {labels[0]!r:.40}"
        raise MeshError(what, where=f"{WHERE}.name", instead="a data set that classifies images") from None
    return Table(x.div_(255), y, count, labels=names if len(names) == count else [], divided_by=255)


def _room(count: int, shape: torch.Size, source: str) -> Tensor:
    """Memory for so many images; refused where they would take more than half of what there is."""
    if (size := 4 * count * math.prod(shape)) > memory() // 2:
        what = f"{source}: {size:,} bytes of images, which are read into memory, of {memory():,}"
        instead = "resize: [H, W] with less; or `images`, of files, which are read when a batch asks for them"
        raise MeshError(what, where=WHERE, instead=instead)
    return torch.empty(count, *shape)
