"""What an agent wrote to a prompt, as filters and metrics see it: words, not tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.contracts.filter import WrittenText
from kdmesh.streams.texts import Texts
from kdmesh.text.prompts import ends

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.spec import SamplingSpec
    from kdmesh.streams.table import Table
    from kdmesh.text.encoder import Encoder


class Spoken:
    """Makes a :class:`WrittenText` of an answer's tokens.

    ``first``: a row of the prompts, by which is told what ends an answer; ``how``: as they were written; ``labelled``:
    whether what the data answer may be told; ``marks``: see `text.reasoning`.
    """

    def __init__(
        self,
        encoder: Encoder,
        table: Table,
        first: int,
        how: SamplingSpec,
        labelled: bool,
        marks: Sequence[str] | None = None,
    ) -> None:
        assert isinstance(table.x, Texts)
        self._encoder, self._samples, self._columns = encoder, table.x, table.columns
        self._marks = None if marks is None else (marks[0], marks[1])
        self.ends, self._stop, self._labelled = ends(encoder, table.x[first]), how.stop, labelled

    def __call__(self, row: int, draw: int, answer: Sequence[int]) -> WrittenText:
        """The answer to a sample of the table, in tokens with the one that ended it, if one did."""
        sample = self._samples[row]
        content = list(answer[:-1] if answer and answer[-1] in self.ends else answer)
        text = str(self._encoder.tokenizer.decode(content, skip_special_tokens=True))
        return WrittenText(
            sample=row,
            draw=draw,
            prompt=sample.asks(),
            text=text,
            tokens=len(content),
            ended=len(content) < len(answer) or any(one in text for one in self._stop),
            given=sample.answers() if self._labelled else "",
            columns={name: values[row] for name, values in self._columns.items()},
            at=sample.at or f"sample {row}",
            marks=self._marks,
        )
