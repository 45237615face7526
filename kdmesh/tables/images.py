"""Images as samples: PNG, JPEG and WebP, decoded by Pillow; whatever is wrong with one is said of its file."""

from __future__ import annotations

import io
import warnings
from importlib import import_module
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from kdmesh.errors import MeshError, text_of
from kdmesh.tables.unchanged import Changed

if TYPE_CHECKING:
    import numpy as np

    from kdmesh.tables.archive import Archive

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")
MODES = {"grey": "L", "rgb": "RGB"}
CHANNELS = {"L": 1, "RGB": 3}
OTHERS = {
    "1": "one bit a pixel",
    "P": "a palette",
    "PA": "a palette with transparency",
    "LA": "2 channels (grey with transparency)",
    "RGBA": "4 channels (RGB with transparency)",
    "CMYK": "4 channels (CMYK)",
}
MOST_PIXELS = 89_478_485  # as many as Pillow takes for no decompression bomb


class Form(NamedTuple):
    """How images become samples. ``resize``: height and width; ``mode``: grey, rgb, or None: as they are."""

    resize: tuple[int, int] | None = None
    mode: str | None = None


class Unreadable(ValueError):
    """An image that makes no sample: ``what`` is wrong, and what to do ``instead``."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(what)
        self.what, self.instead = what, instead


def is_image(name: str) -> bool:
    """Whether a file's name is one of an image that is read."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def needed(where: str) -> Any:
    """Pillow; MeshError where it is not installed."""
    try:
        return import_module("PIL.Image")
    except ModuleNotFoundError:
        what, instead = "images need Pillow", 'pip install "kdmesh[images]"'
        raise MeshError(what, where=where, instead=instead) from None


def decode(data: bytes, form: Form) -> np.ndarray[Any, Any]:
    """The pixels ``[channels, height, width]`` uint8 of a file's content, turned as its EXIF says.

    Raises Unreadable for what is no such image or is damaged, has more pixels than an image has, moves, or has other
    channels than grey or RGB where ``form`` does not say which to make of it.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image: Any = Image.open(io.BytesIO(data), formats=FORMATS)
            _refuse_large(image.size)
            if getattr(image, "is_animated", False) and image.format in ("PNG", "WEBP"):
                raise Unreadable(f"an animation of {image.n_frames} images", "a file with one image")
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return pixels_of(image, form)
    except Unreadable:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise _bomb() from None
    except Exception as error:  # of Pillow's decoders, which raise whatever a damaged file makes them
        what = "no PNG, JPEG or WebP" if type(error).__name__ == "UnidentifiedImageError" else text_of(error)
        raise Unreadable(f"cannot be read: {what}", "a complete PNG, JPEG or WebP") from None


def pixels_of(image: Any, form: Form) -> np.ndarray[Any, Any]:
    """The pixels ``[channels, height, width]`` uint8 of an image of Pillow's; Unreadable for one of other channels."""
    import numpy as np
    from PIL import Image

    image = _in_mode(image, form.mode)
    if form.resize is not None and image.size != form.resize[::-1]:
        image = image.resize(form.resize[::-1], Image.Resampling.BILINEAR)
    pixels = np.array(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def read_image(archive: Archive, name: str, form: Form, like: tuple[int, ...] | None) -> np.ndarray[Any, Any]:
    """One image of an archive; Unreadable where it makes no sample, or none of the shape that it is to be ``like``."""
    try:
        data = archive.read(name)
    except Changed:
        raise  # no fault of this image's
    except MeshError as error:
        raise Unreadable(error.what.removeprefix(f"{archive.at(name)}: "), error.instead) from None
    found = decode(data, form)
    if like is not None and found.shape != like:
        if found.shape[0] != like[0]:
            what = f"{_channels(found.shape[0])}, where others have {_channels(like[0])}"
            raise Unreadable(what, "mode: rgb, or mode: grey")
        what = f"{found.shape[2]} x {found.shape[1]} pixels, where others have {like[2]} x {like[1]}"
        raise Unreadable(what, f"resize: [{like[1]}, {like[2]}] (height, width), or images of one size")
    return found


def _in_mode(image: Any, mode: str | None) -> Any:
    if image.mode[0] in "IF":
        raise Unreadable(f"more than 8 bits a channel ({image.mode})", "8 bits a channel")
    if mode is not None:
        return image if image.mode == MODES[mode] else image.convert(MODES[mode])
    if image.mode not in CHANNELS:
        what = OTHERS.get(image.mode, f"pixels of the form {image.mode}")
        raise Unreadable(what, "mode: rgb, or mode: grey: transparency is left out")
    return image


def _refuse_large(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MOST_PIXELS:
        raise _bomb()


def _bomb() -> Unreadable:
    what = f"says that it has more than {MOST_PIXELS:,} pixels, as decompression bombs do"
    return Unreadable(what, "a smaller image")


def _channels(count: int) -> str:
    return "1 channel (grey)" if count == 1 else f"{count} channels"
