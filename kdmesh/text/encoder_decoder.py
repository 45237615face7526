"""A language model that reads the prompt with one part and writes the answer with another, as T5, as an agent.

Raffel et al., "Exploring the limits of transfer learning with a unified text-to-text transformer", 2020.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kdmesh.errors import MeshError
from kdmesh.signals.lazy import FactoredLogits
from kdmesh.text.heads import SEQUENCES
from kdmesh.text.model import TextModel

if TYPE_CHECKING:
    from kdmesh.streams.tokens import Tokens
    from kdmesh.text.model import Rows


class EncoderDecoder(TextModel):
    """A row of tokens is a prompt with the token that ends it, and an answer; units are the answer's tokens.

    The encoder is given what stands before the answer, the decoder its start and the answer without its last token, so
    that its k-th output answers for the k-th unit. Both are as wide as the row is, whatever answers stand beside: still
    forwards are of a shape that depends on a sample alone. No layers can be tapped.
    """

    kind = SEQUENCES

    def rows(self, path: str) -> Rows:
        """The outputs are of units; there are no other layers."""
        if path:
            what = f"no layer {path!r} to tap in a model that reads with one part and writes with another"
            raise MeshError(what, where="taps", instead="an encoder, or a decoder alone")
        return "units"

    def sides(self, x: Tokens) -> dict[str, Tensor]:
        """What the network is given: the encoder's tokens with their mask, and the decoder's."""
        if x.positions is not None:
            what = f"{self.net.config.model_type} does not keep samples apart that are packed into one row"
            raise MeshError(what, where="text.pack", instead="pack: false")
        width = x.ids.shape[1]
        row, at, first = self._places(x)
        column = torch.arange(width, device=x.device)
        decoder = torch.full_like(x.ids, self.net.config.pad_token_id or 0)
        decoder[:, 0] = self.net.config.decoder_start_token_id
        follows = at + 1 < width
        decoder[row[follows], at[follows] + 1] = x.targets[follows]
        mask = (x.mask & (column <= first[:, None])).long()
        return {"input_ids": x.ids, "attention_mask": mask, "decoder_input_ids": decoder}

    def answers(self, x: Tokens, values: Tensor) -> Tensor:
        """The units' logits ``[N, C]`` in the decoder's ``[R, L, C]``."""
        row, at, _ = self._places(x)
        return values[row, at]

    def _places(self, x: Tokens) -> tuple[Tensor, Tensor, Tensor]:
        """Of each unit its row and its place in the answer, and where each row's prompt ends."""
        width = x.ids.shape[1]
        row, column = x.units // width, x.units % width
        first = (x.mask.sum(1) - 1).clamp(min=0)
        first = first.scatter_reduce(0, row, column, "amin")
        return row, column - first[row], first

    def _language(self, x: Tokens, more: dict[str, Any]) -> Tensor | FactoredLogits:
        inputs = self.sides(x)
        if not self.projects:
            return self.answers(x, self.net(**inputs, use_cache=False).logits)
        head, seen = self.net.get_output_embeddings(), []

        def look(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            seen.append(self.answers(x, args[0]))
            return (args[0][:0],)  # nothing is projected here

        handle = head.register_forward_pre_hook(look)
        try:
            self.net(**inputs, use_cache=False)
        finally:
            handle.remove()
        return FactoredLogits(seen[0].to(head.weight.dtype), head.weight, head.bias)


class Written:
    """Prompts and what was written to each so far: the encoder runs once, the decoder goes on from a cache."""

    def __init__(self, module: EncoderDecoder, prompts: list[list[int]], pad: int) -> None:
        from transformers import DynamicCache, EncoderDecoderCache

        self.net: Any = module.net
        self.device = next(module.parameters()).device
        width = max(map(len, prompts))
        ids = torch.tensor([one + [pad] * (width - len(one)) for one in prompts], device=self.device)
        lengths = torch.tensor([len(one) for one in prompts], device=self.device)
        self._mask = (torch.arange(width, device=self.device) < lengths[:, None]).long()
        with torch.no_grad():
            self._read = self.net.get_encoder()(input_ids=ids, attention_mask=self._mask)
        self._next = torch.full_like(ids[:, :1], self.net.config.decoder_start_token_id)
        self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())

    def __len__(self) -> int:
        return len(self._next)

    def append(self, tokens: list[int]) -> None:
        """What was written last, one token for each."""
        self._next = torch.tensor(tokens, device=self.device)[:, None]

    @torch.no_grad()
    def logits(self) -> Tensor:
        """Of the next token of each, ``[B, C]`` float32."""
        out = self.net(
            encoder_outputs=self._read,
            attention_mask=self._mask,
            decoder_input_ids=self._next,
            past_key_values=self._cache,
            use_cache=True,
        )
        found: Tensor = out.logits[:, -1].float()
        return found
