"""A data set in memory: samples, labels, and which rows belong to an official test split."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

from kdmesh.errors import MeshError
from kdmesh.streams.contents import keys
from kdmesh.streams.texts import Texts
from kdmesh.streams.unread import Unread, chunks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from kdmesh.streams.cells import Cells
    from kdmesh.streams.planted import Planted
    from kdmesh.streams.prepared import Prepared

    class PersonalLog(Protocol):
        """The log of :mod:`kdmesh.personal`; ``others``: those of parties."""

        others: list[Any]

        def text(self) -> str:
            """The file."""

        def told(self) -> list[str]:
            """What it says in all, a line each."""

        def counts(self) -> dict[str, Any]:
            """The same as plain data."""


LABEL = "label"
"""By which a template names a sample's class."""
NOT_ASKED = "not among `features`"
"""Why a column is left out that nobody asked for."""


@dataclass
class Table:
    """Samples with stable ids: a sample's id is its row here, in the source's own order.

    ``x``: ``[N, ...]`` float32 (images as ``[N, channels, height, width]``, vectors as ``[N, features]``), in memory or
    read when asked for (:class:`kdmesh.streams.unread.Unread`), or texts;
    ``y``: ``[N]`` int64 in ``0 .. classes - 1``, ``[N, T]`` float32 where labels are T values, or how relevant each
    candidate is (x: ``[N, 1 + T, ...]`` or texts; see :mod:`kdmesh.builtin.tasks.ranking`), ``[N, K]`` int64 of
    0 and 1 where K labels hold or not (indicators), or None for unlabelled data and for texts whose targets are their
    own tokens or spans; ``classes`` is 0 where there are no classes; ``labels`` names these, or the values or
    indicators; ``official`` maps split names (`test`, perhaps `train`, `validation`, `transfer`) to row numbers, and
    samples of `transfer` may have no label (:func:`no_labels`); ``columns`` maps a column's name to one value per row
    (for shards by column). A reader of files with named columns says in ``reads`` which of them make a sample and its
    label, by the names of its own settings (``{"text": "review"}``), so that a trained model can be asked of other
    files; in ``features`` which of them x has, in order; and in ``left_out`` why it lacks others. One that scales says
    so in ``divided_by``, for whoever uses a saved model on the source's own values; one of images, in ``images``, how
    files became samples. Of a reader that was told of `prepare`
    ``cells`` are what x is made of, and x what samples are known by; once it is made, ``known`` are these, and
    ``prepared`` says how.
    """

    x: Tensor | Texts | Unread
    y: Tensor | None
    classes: int
    official: dict[str, Tensor] = field(default_factory=dict)
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)  # names of classes, values or indicators, where they have names
    licence: str = "not stated"
    source: str = ""
    deterministic: bool = True  # false: reading a row twice gave two values; here stands one of them
    reads: dict[str, str | list[str]] = field(default_factory=dict)  # see above
    features: list[str] = field(default_factory=list)  # names of the columns of x, in order, where they have names
    left_out: dict[str, str] = field(default_factory=dict)  # columns of the source that x lacks, and why
    divided_by: float = 1.0  # what the source's own values were divided by to give x
    notes: list[str] = field(default_factory=list)  # what whoever trains on this should hear
    images: dict[str, Any] = field(default_factory=dict)  # of images: how files became samples, to read others alike
    cells: Cells | None = None  # see above
    known: Tensor | None = None
    sources: list[str] = field(default_factory=list)  # names of the columns of ``known``, where they have names
    prepared: Prepared | None = None
    own: dict[str, tuple[Tensor, Prepared]] = field(
        default_factory=dict
    )  # the same by agent with a `prepare` of its own
    owners: dict[str, Tensor] = field(default_factory=dict)  # by agent of a party, the rows that this party has
    elsewhere: Tensor | None = None  # rows of parties whose samples are not here
    personal: PersonalLog | None = None  # what personal data was found, and done about it; None: nobody looked
    planted: Planted | None = None  # canaries: samples of nobody, which stand in train alone
    lists: bool = False  # a sample is a query (``x[:, 0]``, or a text) with its candidates: set where a task ranks

    def named(self, row: int) -> dict[str, str]:
        """What a template may name of a sample: its columns, and, where the data have classes, its own as `label`."""
        found = {name: values[row] for name, values in self.columns.items()}
        if self.y is not None and self.kind == "classes" and LABEL not in found:
            number = int(self.y[row])
            found[LABEL] = "" if number < 0 else self.labels[number] if self.labels else str(number)
        return found

    @property
    def shape(self) -> torch.Size:
        """The shape of one sample; that of a text is empty."""
        return self.x.shape[1:]

    @property
    def strata(self) -> Tensor | None:
        """The class of each sample ``[N]`` int64, None where labels are no classes: what samples are divided by."""
        return self.y if self.kind == "classes" else None

    @property
    def kind(self) -> str:
        """What labels are, by the shape and type of ``y``: `classes`, `values` or `indicators`; "" without labels."""
        if self.y is None:
            return ""
        return "values" if self.y.is_floating_point() else "classes" if self.y.dim() == 1 else "indicators"

    @property
    def is_text(self) -> bool:
        """Whether the samples are texts, which each agent tokenises for itself."""
        return isinstance(self.x, Texts)

    @property
    def unread(self) -> bool:
        """Whether the samples are not in memory."""
        return self.x.unread if isinstance(self.x, Texts) else isinstance(self.x, Unread)

    @property
    def texts(self) -> Texts:
        """The samples of a table of texts; MeshError if they are numbers."""
        if not isinstance(self.x, Texts):
            raise MeshError(
                f"samples of shape {list(self.shape)} where texts are needed",
                where="data.dataset",
                instead="a data set of texts: text, text_file",
            )
        return self.x

    @property
    def numbers(self) -> Tensor | Unread:
        """The samples ``[N, ...]`` of a table of numbers; MeshError if they are texts."""
        if isinstance(self.x, Texts):
            raise MeshError(
                "texts where numbers are needed", where="data.dataset", instead="a data set of numbers, or a text model"
            )
        return self.x

    @property
    def tensor(self) -> Tensor:
        """The same in memory."""
        return self.numbers if isinstance(self.numbers, torch.Tensor) else self.numbers[:]

    @property
    def source_x(self) -> Tensor | Unread:
        """The samples of a table of numbers as they were before they were prepared."""
        return self.numbers if self.known is None else self.known

    @property
    def tags(self) -> list[str]:
        """The tags of token classification, `O` (no tag) first: the ``labels`` of a table whose texts have spans."""
        return self.labels

    @cached_property
    def fingerprint(self) -> dict[str, str | None]:
        """The sha256 of the samples, ``x_sha256``, and of the labels, ``y_sha256`` (None where there are none)."""
        if isinstance(self.x, Texts):
            own = self._words[0] if self.x.unread else self.x.digest().hex()
        else:
            own = (
                self._look.sha256
                if isinstance(self.x, Unread)
                else _sha256(self.tensor if self.known is None else self.known)
            )
        return {"x_sha256": own, "y_sha256": None if self.y is None else _sha256(self.y)}

    @cached_property
    def _look(self) -> _Look:
        """What one reading of all samples shows, where they are not in memory: it may take as long as an epoch."""
        digest, done = hashlib.sha256(), 0
        found = torch.empty(len(self), dtype=torch.int64)  # at once: what stays between large parts splits the heap
        low = high = None
        for part in chunks(self.numbers):
            digest.update(_bytes(part))
            found[done : done + len(part)] = keys(known_by(self, part))
            done += len(part)
            ends = _ends(part)
            low = ends[0] if low is None else torch.minimum(low, ends[0], out=low)
            high = ends[1] if high is None else torch.maximum(high, ends[1], out=high)
        assert low is not None and high is not None
        return _Look(digest.hexdigest(), found, low, high)

    @cached_property
    def _words(self) -> tuple[str, Tensor]:
        """The sha256 and the keys of texts that are not in memory, of one reading."""
        digest, found, done = hashlib.sha256(), torch.empty(len(self), dtype=torch.int64), 0
        for part in self.texts.parts():
            part.hashed(digest)
            found[done : done + len(part)] = keys(part)
            done += len(part)
        return digest.hexdigest(), found

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """The least and the largest value of each column of ``x [N, F]``, of other shapes of all values, ``[1]``."""
        return (self._look.low, self._look.high) if isinstance(self.x, Unread) else _ends(self.tensor)

    @cached_property
    def keys(self) -> Tensor:
        """What each sample is, ``[N]`` int64, see :func:`kdmesh.streams.contents.keys`."""
        if isinstance(self.x, Texts):
            return self._words[1] if self.x.unread else keys(self.x)
        if isinstance(self.x, Unread):
            return self._look.keys
        return keys(known_by(self, self.tensor if self.known is None else self.known))

    def __len__(self) -> int:
        return len(self.x)


def known_by(table: Table, x: Tensor) -> Tensor:
    """Of samples ``x`` of numbers of a table what they are known again by: all; of a list its query, which may stand in
    another list later.
    """
    return x[:, 0] if table.lists else x  # of texts, keys leave candidates out


def no_labels(like: Tensor, rows: int) -> Tensor:
    """What stands in the place of labels ``like`` these for samples that have none: -1, or of values NaN."""
    return like.new_full((rows, *like.shape[1:]), torch.nan if like.is_floating_point() else -1)


class _Look(NamedTuple):
    sha256: str
    keys: Tensor
    low: Tensor
    high: Tensor


def _sha256(values: Tensor) -> str:
    return hashlib.sha256(_bytes(values)).hexdigest()


def _ends(x: Tensor) -> tuple[Tensor, Tensor]:
    """Beside samples that are blank."""
    flat, none = x if x.dim() == 2 else x.reshape(-1, 1), torch.inf
    return flat.nan_to_num(none, none, -none).amin(0), flat.nan_to_num(-none, none, -none).amax(0)


def _bytes(values: Tensor) -> Any:
    return values.contiguous().flatten().view(torch.uint8).numpy().data
