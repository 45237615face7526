"""Texts that a language model writes: greedy or sampled, a batch of prompts at a time, with a key-value cache."""

from __future__ import annotations

import inspect
import time
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from kdmesh.errors import MeshError
from kdmesh.text.api import Served
from kdmesh.text.encoder_decoder import EncoderDecoder, Written
from kdmesh.text.heads import CAUSAL
from kdmesh.text.model import TextModel

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from torch import nn

    from kdmesh.spec import SamplingSpec


def refuse_writer(module: Any, where: str) -> None:
    """Raise MeshError for a model that cannot go on from a text token by token."""
    instead = "a causal language model of transformers"
    if isinstance(module, Served):
        return
    if not isinstance(module, TextModel) or module.head != CAUSAL:
        raise MeshError(f"a {type(module).__name__} writes no texts", where=where, instead=instead)
    if module.adapted == "prefix":
        what = "a model with a trained prefix writes no texts: its cache begins with the prefix"
        raise MeshError(what, where=where, instead="lora, or the whole model")
    net = module.net
    dynamic = getattr(net, "_supports_default_dynamic_cache", lambda: True)
    if getattr(net, "_is_stateful", False) or not dynamic():
        kind = net.config.model_type
        what = f"{kind} keeps what it has read in another way than as keys and values, and is not run as a writer"
        raise MeshError(what, where=where, instead=f"{instead} with attention alone")


class Memory(Protocol):
    """What was written before, by batch; :func:`generate` asks it before it writes one."""

    def find(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[list[int]] | None:
        """The texts of a batch that was written before."""

    def keep(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], texts: Sequence[list[int]], seconds: float
    ) -> None:
        """Keep those of one that was just written, and what it took."""


def noise(seed: int, count: int) -> Tensor:
    """The numbers in [0, 1) by which one text's tokens are drawn, ``[count]`` float64: of a generator of its own."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generate(
    module: TextModel,
    prompts: Sequence[Sequence[int]],
    how: SamplingSpec,
    *,
    ends: Collection[int],
    pad: int,
    rows: int,
    seeds: Sequence[int] = (),
    decode: Callable[[list[int]], str] | None = None,
    memory: Memory | None = None,
) -> list[list[int]]:
    """The tokens that a model goes on with from each prompt, with the token that ends them, if one does.

    Prompts are written on together in batches of ``rows``, the longest first, padded on the left; the order of equally
    long ones is theirs. The module is in eval mode already. What is written from a prompt depends on the other prompts
    of its batch as far as rounding goes and no further: each text has noise of its own. So equal calls write equal
    texts; and calls that batch otherwise do, unless two tokens are nearly equally likely.

    Args:
        prompts: The tokens of each, at least one.
        ends: Tokens after which a text is over.
        pad: Stands in the places that are masked.
        seeds: Of each prompt's noise, see :func:`noise`; none where ``how.greedy``.
        decode: Says what tokens stand for, where ``how.stop`` is given.
        memory: Has batches that were written before, and keeps those that are.
    """
    order = sorted(range(len(prompts)), key=lambda at: -len(prompts[at]))
    found: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), rows):
        at = order[start : start + rows]
        asked, own = [list(prompts[one]) for one in at], [] if how.greedy else [seeds[one] for one in at]
        texts = None if memory is None else memory.find(asked, own)
        if texts is None:
            began = time.perf_counter()
            drawn = None if how.greedy else torch.stack([noise(seed, how.max_new_tokens) for seed in own])
            batch = Written(module, asked, pad) if isinstance(module, EncoderDecoder) else _Batch(module, asked, pad)
            texts = _texts(batch, how, frozenset(ends), pad, drawn, decode)
            if memory is not None:
                memory.keep(asked, own, texts, time.perf_counter() - began)
        for one, text in zip(at, texts, strict=True):
            found[one] = text
    return found


def _texts(
    batch: _Batch | Written,
    how: SamplingSpec,
    ends: frozenset[int],
    pad: int,
    drawn: Tensor | None,
    decode: Callable[[list[int]], str] | None,
) -> list[list[int]]:
    texts: list[list[int]] = [[] for _ in range(len(batch))]
    open_rows = set(range(len(batch)))
    drawn = None if drawn is None else drawn.to(batch.device)
    for number in range(how.max_new_tokens):
        logits = batch.logits()
        chosen = logits.argmax(-1) if drawn is None else choose(logits, how, drawn[:, number])
        tokens = chosen.tolist()
        for row in sorted(open_rows):
            texts[row].append(tokens[row])
            if tokens[row] in ends or (how.stop and _stopped(texts[row], how.stop, decode)):
                open_rows.remove(row)
        if not open_rows or number + 1 == how.max_new_tokens:
            break
        batch.append([tokens[row] if row in open_rows else pad for row in range(len(batch))])
    return texts


def _stopped(text: list[int], stop: Sequence[str], decode: Callable[[list[int]], str] | None) -> bool:
    assert decode is not None
    said = decode(text)
    return any(one in said for one in stop)


def choose(logits: Tensor, how: SamplingSpec, drawn: Tensor) -> Tensor:
    """A token for each row of ``logits [B, C]`` float32, by ``drawn [B]`` in [0, 1): ``[B]`` int64.

    It is the first whose probability, and that of all before it in the vocabulary, is together more than the drawn
    share of all. Probabilities are at ``temperature``, of the ``top_k`` likeliest, and of these of the fewest that
    together have ``top_p`` (Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020), in this order.
    """
    scores = logits / how.temperature
    if how.top_k is not None and how.top_k < scores.shape[-1]:
        least = scores.topk(how.top_k, -1).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    shares = scores.softmax(-1)
    if how.top_p < 1:
        ordered, places = shares.sort(dim=-1, descending=True, stable=True)
        before = ordered.double().cumsum(-1) - ordered
        shares = shares.scatter(-1, places, ordered.masked_fill(before >= how.top_p, 0.0))
    sums = shares.double().cumsum(-1)
    return torch.searchsorted(sums, (drawn * sums[:, -1])[:, None], right=True).squeeze(-1)


class _Batch:
    """Prompts and what was written to each so far, as a model reads them: padded on the left, with a cache."""

    def __init__(self, module: TextModel, prompts: list[list[int]], pad: int) -> None:
        from transformers import DynamicCache

        self.net: Any = module.net
        self.device = next(module.parameters()).device
        width = max(map(len, prompts))
        self._next = torch.tensor([[pad] * (width - len(one)) + one for one in prompts], device=self.device)
        self._mask: Tensor | None = None
        if min(map(len, prompts)) < width:
            lengths = torch.tensor([len(one) for one in prompts], device=self.device)
            self._mask = (torch.arange(width, device=self.device) >= width - lengths[:, None]).long()
        self._cache = DynamicCache(config=self.net.config)
        self._head = self.net.get_output_embeddings() if module.projects else None
        base = getattr(self.net, "get_base_model", lambda: self.net)()  # within an adapter
        self._positioned = "position_ids" in inspect.signature(base.forward).parameters

    def __len__(self) -> int:
        return len(self._next)

    def append(self, tokens: list[int]) -> None:
        """What was written last, one token for each."""
        self._next = torch.tensor(tokens, device=self.device)[:, None]
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], 1)

    @torch.no_grad()
    def logits(self) -> Tensor:
        """Of the next token of each, ``[B, C]`` float32."""
        more: dict[str, Any] = {}
        if self._mask is not None:
            more["attention_mask"] = self._mask
            if self._positioned:
                places = (self._mask.cumsum(1) - 1).clamp(min=0)
                more["position_ids"] = places[:, -self._next.shape[1] :]
        handle = None if self._head is None else self._head.register_forward_pre_hook(_last)
        try:
            out = self.net(input_ids=self._next, past_key_values=self._cache, use_cache=True, **more)
        finally:
            if handle is not None:
                handle.remove()
        return out.logits[:, -1].float()


def _last(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Only the last token's output is asked for."""
    return (args[0][:, -1:],)
