"""Images in a folder for each class, perhaps below a folder for each split."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kdmesh.errors import MeshError
from kdmesh.tables.archive import Archive
from kdmesh.tables.images import SUFFIXES, is_image

if TYPE_CHECKING:
    from collections.abc import Collection

SPLIT = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "transfer": "transfer",
    "unlabelled": "transfer",
    "unlabeled": "transfer",
}
"""What a folder of a split may be called, and which it then is."""
FORM = "a folder for each class with its images in it, perhaps below train/, validation/, test/ and transfer/"


class Listing(NamedTuple):
    """Images of an archive by name, and each one's class; None: they are in no class's folder."""

    archive: Archive
    names: list[str]
    labels: list[str] | None
    others: list[str]  # files that are no images


def splits_of(archive: Archive, classes: Collection[str] | None = None) -> dict[str, Listing]:
    """The images of each split by its name, where the folders at the top are those of splits; else all as `train`.

    Folders around all of these are looked through. ``classes``: those of who learned before, which go by their names
    whatever else these mean; the split train may then be missing. MeshError where a split is there twice, or stands
    beside classes.
    """
    prefix = ""
    while True:
        inside = [name.removeprefix(prefix) for name in archive.names if name.startswith(prefix)]
        images = [name for name in inside if is_image(name)]
        tops = list(dict.fromkeys(name.split("/")[0] for name in images if "/" in name))
        known = {top: SPLIT[top.lower()] for top in tops if top.lower() in SPLIT}
        if classes is None:
            splits = "train" in known.values() and (len(known) > 1 or len(tops) == 1)
        else:
            splits = bool(known) and not {*tops} & {*classes}
        if splits:
            break
        if len(tops) != 1 or any(name.count("/") < 2 for name in images):
            return {"train": listed(archive, prefix)}
        prefix += f"{tops[0]}/"
    flat = [name for name in images if "/" not in name]
    if odd := [*(top for top in tops if top not in known), *flat]:
        what = f"{archive.at(prefix + odd[0])} stands beside the folders of splits {', '.join(known)}"
        raise MeshError(what, where=archive.where, instead="only folders of splits there")
    for one in set(known.values()):
        if len(names := [top for top, split in known.items() if split == one]) > 1:
            what = f"{archive.path}: {' and '.join(names)} are both folders of the split {one}"
            raise MeshError(what, where=archive.where, instead="one of them")
    return {split: listed(archive, f"{prefix}{top}/", split != "transfer") for top, split in known.items()}


def found_in(archive: Archive) -> Listing:
    """All images of an archive, and the folder of each as its class where all of them are in one.

    Folders around all of them are looked through.
    """
    every = listed(archive, labelled=False)
    folders = [name.split("/")[:-1] for name in every.names]
    while all(len(one) > 1 for one in folders) and len({one[0] for one in folders}) == 1:
        folders = [one[1:] for one in folders]
    return every._replace(labels=[one[0] for one in folders]) if all(folders) else every


def around(archive: Archive, classes: Collection[str]) -> str:
    """The folders around all images of an archive, as a prefix of their names, above those of ``classes``."""
    images, prefix = [name for name in archive.names if is_image(name)], ""
    while True:
        inside = [name.removeprefix(prefix) for name in images]
        tops = {name.split("/")[0] for name in inside}
        if len(tops) != 1 or tops & {*classes} or any(name.count("/") < 2 for name in inside):
            return prefix
        prefix += f"{tops.pop()}/"


def listed(archive: Archive, prefix: str = "", labelled: bool = True) -> Listing:
    """The images below a folder of an archive, each with the folder in it as its class; none where none has one.

    ``labelled`` False: whatever their folders, they have no class.
    """
    inside = [name for name in archive.names if name.startswith(prefix)]
    images, others = [name for name in inside if is_image(name)], [name for name in inside if not is_image(name)]
    if not images:
        what = f"{archive.at(prefix) if prefix else archive.path}: no image ({', '.join(SUFFIXES)})"
        raise MeshError(what, where=archive.where, instead=FORM)
    if not labelled:
        return Listing(archive, images, None, others)
    classes = [name.removeprefix(prefix).split("/")[:-1] for name in images]
    flat = [number for number, folders in enumerate(classes) if not folders]
    if len(flat) == len(images):
        return Listing(archive, images, None, others)
    if flat:
        what = f"{archive.at(images[flat[0]])}: in no class's folder, as are {len(flat)} of {len(images)} images"
        raise MeshError(what, where=archive.where, instead="a class's folder; without a label, the folder transfer/")
    return Listing(archive, images, [folders[0] for folders in classes], others)
