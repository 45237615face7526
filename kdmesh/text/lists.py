"""A model of transformers that scores the candidates of a query: each pair read together, or each text by itself.

Cross-encoders: Nogueira and Cho, "Passage Re-ranking with BERT", 2019. Bi-encoders: Reimers and Gurevych,
"Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks", 2019.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdmesh.errors import MeshError
from kdmesh.text.heads import head_of
from kdmesh.text.model import Rows, TextModel

if TYPE_CHECKING:
    from kdmesh.streams.tokens import Tokens
    from kdmesh.text.settings import BiEncoderSettings


class ListModel(TextModel):
    """Scores ``[B, L]`` of the candidates of B queries, with L as ``classes``; ``-inf`` where a list is shorter.

    Without ``bi_encoder`` a cross-encoder: a classifier with one output, which reads a query and a candidate as two
    texts. With it ``net`` gives hidden states ``[R, T, D]`` of a query and of each of its candidates, which are pooled
    to embeddings: `mean` over the tokens, or `cls`, the first token's; a score is ``scale`` times their dot product, of
    length 1 where the similarity is `cosine`. A tap on ``embedding`` gives ``[B, 1 + L, D]``, the query first, zeros
    where there is no candidate.
    """

    def __init__(
        self, net: Any, task: str, classes: int, *, bi_encoder: BiEncoderSettings | None = None, **more: Any
    ) -> None:
        super().__init__(net, task, classes, **more)
        self.head, self.bi_encoder = head_of(task, bi_encoder is not None), bi_encoder
        if bi_encoder is not None:
            self.embedding = nn.Identity()

    def rows(self, path: str) -> Rows:
        """What a layer's value has rows of; "": the scores."""
        if path == "embedding" and self.bi_encoder is not None:
            return "samples"
        if path.partition(".")[0] in ("pooled", "embedding"):
            raise MeshError(
                f"no layer {path!r} to tap in a {self.head.name.replace('_', '-')}",
                where="taps",
                instead="hidden.i or attention.i" + (", or embedding" if self.bi_encoder is not None else ""),
            )
        return super().rows(path)

    def answers(self, x: Tokens, values: Tensor) -> Tensor:
        """Scores ``[B, L]`` of what the net gives, a row for each text or pair."""
        assert x.texts is not None
        if self.bi_encoder is None:
            return _padded(values.squeeze(-1), x.texts, self.classes, -torch.inf)
        how = self.bi_encoder
        made = values[:, 0] if how.pooling == "cls" else mean_of(values, x.mask)
        made = F.normalize(made, dim=-1) if how.similarity == "cosine" else made
        embedded = self.embedding(_padded(made, x.texts, 1 + self.classes, 0.0))
        scores = (embedded[:, 1:] @ embedded[:, 0, :, None]).squeeze(-1)
        absent = torch.arange(self.classes, device=scores.device) >= x.texts[:, None] - 1
        return (scores if how.scale == 1 else how.scale * scores).masked_fill(absent, -torch.inf)

    def usage(self) -> list[str]:
        """A program's lines that score two texts."""
        how = self.bi_encoder
        if how is None:
            pair = 'tokenizer("A query.", "A candidate.", return_tensors="pt")'
            return [f"score = model(**{pair}).logits[0, 0]", "print(score.item())"]
        cut = "" if self.max_length is None else f", truncation=True, max_length={self.max_length}"
        lines = ["", "def embed(texts):", f'    inputs = tokenizer(texts, padding=True{cut}, return_tensors="pt")']
        lines += ["    made = model(**inputs).last_hidden_state"]
        if how.pooling == "mean":
            lines += ['    mask = inputs["attention_mask"][..., None]', "    made = (made * mask).sum(1) / mask.sum(1)"]
        else:
            lines += ["    made = made[:, 0]"]
        length = " / made.norm(dim=1, keepdim=True)" if how.similarity == "cosine" else ""
        lines += [f"    return made{length}", ""]
        lines += [f'scores = {how.scale:g} * embed(["A query."]) @ embed(["A candidate.", "Another one."]).T']
        return [*lines, "print(scores[0].tolist())"]

    def _shapes(self, x: Tokens) -> Any:
        made: Any = super()._shapes(x)
        if self.bi_encoder is not None:
            self.embedding(made.new_empty(len(x), 1 + self.classes, self.net.config.hidden_size))
        return made


def mean_of(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of values ``[R, T, D]`` over the tokens where ``mask [R, T]`` is true, ``[R, D]``."""
    counted = mask[..., None].to(values.dtype)
    return (values * counted).sum(1) / counted.sum(1)


def _padded(values: Tensor, counts: Tensor, width: int, fill: float) -> Tensor:
    """Values ``[R, ...]`` of lists, so many of each as ``counts [B]`` says, as ``[B, width, ...]``."""
    there = torch.arange(width, device=values.device) < counts[:, None]
    whole = values.new_full((len(counts), width, *values.shape[1:]), fill)
    return whole.masked_scatter(there.view(*there.shape, *[1] * (values.dim() - 1)), values)
