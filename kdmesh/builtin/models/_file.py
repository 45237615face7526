"""What models of files that other libraries made have in common: the file is the state, and answers become logits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from kdmesh.errors import FAULTS, MeshError, text_of

MOST = 2**30
"""Bytes of a file that is read."""


class FileModel(nn.Module):
    """A model that was trained elsewhere, as a frozen agent: ``forward(x [B, F]) -> logits [B, classes]``, float32.

    Of probabilities logits are the logarithms, so that a softmax gives them back; one of 0 counts as the smallest
    normal number. Of values they are these. The file's bytes are a buffer, so that they are hashed, sent and saved as
    weights are, and a saved agent needs no file beside.
    """

    content: Tensor
    name: ClassVar[str]
    library: ClassVar[str]
    extra: ClassVar[str]

    def __init__(
        self,
        path: Path,
        size: int | None,
        input_shape: Sequence[int],
        classes: int,
        labels: Sequence[str] | None,
        **settings: Any,
    ) -> None:
        """``size``: of a saved agent, the bytes of the file, which is not read; ``labels``: names of classes."""
        super().__init__()
        self.shape, self.classes = tuple(input_shape), classes
        self.kdmesh_file = Path(path).name  # by such a name it is no part of what the module is
        self.labels, self.settings = list(labels or ()), settings
        found = self._read(Path(path)) if size is None else b""
        buffer = torch.empty(len(found) if size is None else size, dtype=torch.uint8)
        self.register_buffer("content", buffer)
        self.version = self._installed()
        if found:
            if not buffer.is_meta:
                buffer.copy_(torch.frombuffer(bytearray(found), dtype=torch.uint8))
            self._try(self._opened(found))

    @abstractmethod
    def open(self, content: bytes) -> Any:
        """The library's own object; whatever it raises is told as the file's fault."""

    @abstractmethod
    def answers(self, model: Any, x: np.ndarray) -> np.ndarray:
        """Logits or values ``[B, C]`` of samples ``[B, ...]`` float32."""

    @property
    def saved(self) -> dict[str, Any]:
        """The settings by which a saved agent is built again."""
        told = {name: value for name, value in self.settings.items() if value}
        return {self.name: {"path": self.kdmesh_file, "size": len(self.content), **told}}

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, classes]``."""
        if x.is_meta or self.content.is_meta:
            return torch.empty(len(x), self.classes, device="meta")
        found = self._asked(self._model(), x.detach().float().cpu().numpy())
        return torch.from_numpy(found).to(x.device)

    def extra_repr(self) -> str:
        """The file, in words."""
        return f"{self.kdmesh_file}, {len(self.content):,} bytes"

    def __getstate__(self) -> dict[str, Any]:
        """Without what is open: a copy opens the file for itself."""
        return {name: one for name, one in super().__getstate__().items() if name != "kdmesh_model"}

    def _model(self) -> Any:
        """The library's object, of the bytes as they are: a file of megabytes is not looked through at each forward."""
        version = 0 if self.content.is_inference() else self.content._version  # which moves with every change in place
        held = vars(self).get("kdmesh_model")  # see above
        if held is None or held[0] is not self.content or held[1] != version:
            held = self.content, version, self._opened(self.content.cpu().numpy().tobytes())
            vars(self)["kdmesh_model"] = held
        return held[2]

    def _opened(self, content: bytes) -> Any:
        try:
            return self.open(content)
        except MeshError:
            raise
        except Exception as error:  # of the library, by what is wrong with the file
            raise self._wrong(f"cannot be read: {text_of(error)}", f"a complete file of {self.library}") from None

    def _asked(self, model: Any, x: np.ndarray) -> np.ndarray:
        found = np.ascontiguousarray(self.answers(model, x), dtype=np.float32)
        if found.shape != (len(x), self.classes):
            what = f"gives {list(found.shape)} for {len(x)} samples of {self.classes} outputs"
            raise self._wrong(what, "a model of these classes or values")
        return found

    def _try(self, model: Any) -> None:
        """Ask about two samples of zeros: what does not fit is told before a run."""
        try:
            self._asked(model, np.zeros((2, *self.shape), dtype=np.float32))
        except FAULTS as error:
            if isinstance(error, MeshError):
                raise
            what = f"cannot answer samples of shape {list(self.shape)}: {text_of(error)}"
            instead = "a model of samples as its agent sees them (`prepare`)"
            raise self._wrong(what, instead) from None

    def _log(self, shares: np.ndarray) -> np.ndarray:
        """Logarithms of probabilities ``[B, C]``."""
        found: np.ndarray = np.log(np.maximum(shares.astype(np.float32), np.finfo(np.float32).tiny))
        return found

    def _in_order(self, shares: np.ndarray, names: Sequence[Any]) -> np.ndarray:
        """Columns ``[B, C]`` of classes with these names, in the order of the data's."""
        told = [str(name.item() if hasattr(name, "item") else name) for name in names]
        numbers = [str(number) for number in range(self.classes)]
        wanted = next((one for one in (self.labels, numbers) if sorted(one) == sorted(told)), None)
        if wanted is None:
            what = (
                f"knows the classes {', '.join(told[:6])}, and the data have {', '.join((self.labels or numbers)[:6])}"
            )
            raise self._wrong(what, "a model of these classes, by name or by number")
        place = {name: at for at, name in enumerate(told)}
        return shares[:, [place[name] for name in wanted]]

    def _wrong(self, what: str, instead: str) -> MeshError:
        return MeshError(f"{self.kdmesh_file} {what}", where=f"model.{self.name}.path", instead=instead)

    def _read(self, path: Path) -> bytes:
        if not path.is_file():
            found = f"{path} is a folder" if path.is_dir() else f"no file {path}"
            raise MeshError(found, where=f"model.{self.name}.path", instead="a path from the mesh file's folder")
        if (size := path.stat().st_size) > MOST or not size:
            raise self._wrong(f"has {size:,} bytes", f"a file of 1 to {MOST:,}")
        return path.read_bytes()

    def _installed(self) -> str:
        """The library's version, by which answers are known again. MeshError where it is not installed."""
        try:
            import_module(self.library)
        except ModuleNotFoundError:
            what, instead = f"a model of {self.library} needs {self.library}", f'pip install "kdmesh[{self.extra}]"'
            raise MeshError(what, where=f"model.{self.name}", instead=instead) from None
        return f"{self.library} {version(self.library)}"
