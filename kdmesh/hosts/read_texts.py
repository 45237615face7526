"""Written texts as agents read them that answer for a text as a whole: each with its own tokenizer, with a label.

What crosses is what the writer wrote, its tokens. Whoever reads them makes characters of these, as the writer's
tokenizer does, and tokens of its own of those. The label of a text is that of the sample that was its prompt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kdmesh.errors import MeshError, nearest
from kdmesh.hosts.loader import Batch
from kdmesh.hosts.rollouts import Rollouts
from kdmesh.hosts.written import IDS
from kdmesh.spec import SamplingSpec
from kdmesh.streams.texts import Sample, Texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kdmesh.hosts.loader import ShardView
    from kdmesh.hosts.publications import Publications
    from kdmesh.hosts.rollouts import Schedule
    from kdmesh.hosts.state import HostState
    from kdmesh.spec import StreamSpec
    from kdmesh.streams.table import Table
    from kdmesh.streams.tokens import Encoded
    from kdmesh.text.encoder import Encoder
    from kdmesh.text.spoken import Spoken


class ReadTexts(Rollouts):
    """Written texts in a reader's own tokens: one answer to each, and its label. See :class:`Rollouts`.

    ``encoder``: the reader's; ``spoken``: makes words of the writer's tokens; ``labels``: of every sample of the data,
    None where the stream hides them; ``given``: the batches of given texts that are mixed in.
    """

    units = False

    def __init__(
        self,
        publications: Publications,
        schedule: Schedule,
        writer: str,
        device: torch.device,
        encoder: Encoder,
        spoken: Spoken,
        labels: Tensor | None,
        given: ShardView | None = None,
    ) -> None:
        super().__init__(publications, schedule, writer, device, encoder.pad, None, given)
        self._encoder, self._spoken, self._labels = encoder, spoken, labels

    def count(self, step: int, size: int, drop_last: bool) -> int:
        """How many texts of a step, which is written already, are learned."""
        if self._given is not None and self._is_given(step):
            return self._given.count(step, size, drop_last)
        return 0 if self._texts() is None else len(self._kept(step, size, drop_last)[0])

    def batch(self, step: int, size: int, drop_last: bool) -> Batch | None:
        """What was written for a step and kept, with its labels; None where nothing was."""
        if self._given is not None and self._is_given(step):
            batch = self._given.batch(step, size, drop_last)
            assert batch is not None
            return batch._replace(y=batch.y if self._labels is not None else None, at=-1 - batch.at)
        found = super().batch(step, size, drop_last)
        if found is None:
            return None
        own = self._labels
        return found._replace(y=None if own is None else own[self.samples(found.at)].to(self.device))

    def rows(self, at: Tensor) -> Tensor:
        """A text has one answer."""
        return at

    def unit_samples(self, at: Tensor) -> Tensor:
        """The ids of the samples that were answered, one for each answer."""
        return self.samples(at).to(self.device)

    def _encoded(self) -> Encoded:
        """All that was written last, as this agent reads it."""
        rows = zip(self._part(IDS).tolist(), self.answers(), strict=True)
        return self._encoder.encode(Texts([read(self._spoken(row, 0, ids).text) for row, ids in rows]))[0]


def read(text: str, at: str = "") -> Sample:
    """What is read of a written text: its words, without the space around them. ``at``: which it is, for errors."""
    return Sample(text.strip(), at=at)


def spoken_by(host: HostState, stream: str, writer: str) -> Spoken:
    """What makes words of the tokens that the writer of a stream has written."""
    from kdmesh.text.spoken import Spoken

    own, how = host.streams[stream], host.plan.spec.streams[stream].sampling or SamplingSpec()
    return Spoken(
        host.reading.encoder(writer), host.table, int(own.rows[0]), how, own.labelled, host.plan.spec.text.reasoning
    )


def labels_of(table: Table, spec: StreamSpec, name: str, rows: Sequence[int]) -> Tensor | None:
    """The label of what is written to each sample of the data, ``[N, ...]``; None where there are none.

    ``name``: the stream's; ``rows``: its prompts', each of which has one. MeshError, which names the sample, for what
    is no class of the data.
    """
    if spec.label is None:
        return table.y
    where = f"streams.{name}.label"
    if spec.label not in table.columns:
        instead = nearest(spec.label, table.columns, "columns") if table.columns else "data with such a column"
        raise MeshError(f"the data have no column {spec.label!r}", where=where, instead=instead)
    classes = table.labels or [str(number) for number in range(table.classes)]
    known, values = {label: number for number, label in enumerate(classes)}, table.columns[spec.label]
    found = torch.zeros(len(table), dtype=torch.int64)
    for row in dict.fromkeys(rows):
        if values[row] not in known:
            assert isinstance(table.x, Texts)
            at = table.x[row].at or f"sample {row}"
            what = f"{at}, column {spec.label!r}: {values[row]!r:.60} is no class of the data"
            raise MeshError(what, where=where, instead=nearest(values[row], classes, "classes"))
        found[row] = known[values[row]]
    return found
