"""A model of transformers as an agent: it reads :class:`Tokens` and gives a row per sample, or per unit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from kdmesh.errors import MeshError
from kdmesh.signals.lazy import FactoredLogits
from kdmesh.streams.tokens import starts_of
from kdmesh.text.heads import CAUSAL, USAGE, head_of
from kdmesh.text.probes import is_projection, keeps_apart, recompute, takes_types, unmasked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from kdmesh.signals.compare import Comparison
    from kdmesh.streams.texts import Texts
    from kdmesh.streams.tokens import Encoded, Tokens
    from kdmesh.text.encoder import Encoder
    from kdmesh.text.heads import Head

PROBES = ("hidden", "pooled", "attention")
Rows = Literal["samples", "units", "tokens"]


class TextModel(nn.Module):
    """A model of transformers, ``net``, for one task.

    Layers to tap, each computed only where it is tapped: ``hidden.i [T, D]`` (0: the embeddings; i: after layer i) over
    the T tokens that are no padding, ``pooled.i [B, D]`` (the first token of each sample) and ``attention.i [T, L]``
    (of each token, mean over heads, over its sample's tokens, zeros up to ``max_length``).

    ``base``: what it started from, ``hub`` whether that is on the hub, ``licence`` what its card states; ``adapted``:
    `lora` or `prefix`, where only an adapter trains; ``drawn``: the parameters that no file had, so that they start at
    random; ``source``: the folder that was read, None where code of its own was run, too.
    """

    kind: Head | None = None  # what transformers and the hub call it, where that is not what the head says

    def __init__(
        self,
        net: PreTrainedModel,
        task: str,
        classes: int,
        *,
        max_length: int | None = None,
        separator: int | None = None,
        base: str = "",
        hub: bool = False,
        licence: str | None = None,
        adapted: str | None = None,
    ) -> None:
        super().__init__()
        self.net, self.head, self.classes = net, head_of(task), classes
        self.max_length, self.separator = max_length, separator
        self.base, self.hub, self.licence, self.adapted = base, hub, licence, adapted
        self.drawn: list[str] = []
        self.source: Path | None = None
        self._probes(net.config.num_hidden_layers)
        self.projects = self.head == CAUSAL and is_projection(net)
        self._apart: bool | None = None  # whether packed samples do not see each other: found out when there are some

    def _probes(self, layers: int) -> None:
        self.hidden = nn.ModuleList(nn.Identity() for _ in range(layers + 1))
        self.pooled = nn.ModuleList(nn.Identity() for _ in range(layers + 1))
        self.attention = nn.ModuleList(nn.Identity() for _ in range(layers))

    def become(self, net: PreTrainedModel) -> None:
        """Take a smaller network of the same kind in the place of this one, with what was set at its weights."""
        trained = {name: one.requires_grad for name, one in self.net.named_parameters()}
        for name, one in net.named_parameters():
            one.requires_grad_(trained.get(name, True))
        net.train(self.net.training)
        again = getattr(self.net, "is_activation_checkpointing", None)  # of older ones, by its old name
        if self.net.is_gradient_checkpointing if again is None else again:
            recompute(net)
        if self.head == CAUSAL:
            unmasked(net)
        self.net = net
        self._probes(net.config.num_hidden_layers)
        self.drawn = [name for name in self.drawn if name in dict(net.named_parameters())]
        self.source = None

    @property
    def shapes_only(self) -> bool:
        """Whether there are no weights, on the `meta` device: the forward then only gives shapes."""
        return next(self.net.parameters()).is_meta

    def rows(self, path: str) -> Rows:
        """What a layer's value has rows of; "": the outputs."""
        kind = path.partition(".")[0]
        if not path:
            return self.head.per
        if kind not in PROBES:
            raise MeshError(
                f"no layer {path!r} to tap in a model of transformers",
                where="taps",
                instead="hidden.i, pooled.i or attention.i, where i is a layer's number and hidden.0 the embeddings",
            )
        return "samples" if kind == "pooled" else "tokens"

    def forward(self, x: Tokens) -> Tensor | FactoredLogits:
        """Logits ``[B, C]`` of samples or ``[N, C]`` of units; a language model's as hidden rows to project."""
        if self.shapes_only:
            return self._shapes(x)
        more = self._asked()
        if self.head == CAUSAL:
            return self._language(x, more)
        if x.positions is not None:
            raise MeshError("packed samples are for language modelling", where="text.pack", instead="pack: false")
        if self.separator is not None and takes_types(self.net):
            more["token_type_ids"] = self.types(x)
        out = self.net(input_ids=x.ids, attention_mask=x.mask.long(), **more)
        self._probe(x, out)
        return self.answers(x, out[0])

    def answers(self, x: Tokens, values: Tensor) -> Tensor:
        """The answers in what the net gives: logits of samples ``[B, C]``, or those of units in ``[B, L, C]``."""
        return values if self.head.per == "samples" else values.flatten(0, 1)[x.units]

    def usage(self) -> list[str]:
        """A program's lines that ask a `model` with its `tokenizer`."""
        usage = USAGE.get(self.net.config.problem_type or "", self.head.usage)
        return ['logits = model(**tokenizer("A text.", return_tensors="pt")).logits', usage]

    def _language(self, x: Tokens, more: dict[str, Any]) -> Tensor | FactoredLogits:
        """No mask: padding stands on the right, where no output that counts can see it."""
        if x.positions is not None:
            self._check_packing()
            more["position_ids"] = x.positions
        if not self.projects:
            out = self.net(input_ids=x.ids, use_cache=False, **more)
            self._probe(x, out)
            return out.logits.flatten(0, 1)[x.units]
        head, seen = self.net.get_output_embeddings(), []

        def look(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            seen.append(args[0].flatten(0, 1)[x.units])
            return (args[0][:0],)  # nothing is projected here

        handle = head.register_forward_pre_hook(look)
        try:
            self._probe(x, self.net(input_ids=x.ids, use_cache=False, **more))
        finally:
            handle.remove()
        return FactoredLogits(seen[0].to(head.weight.dtype), head.weight, head.bias)

    def _check_packing(self) -> None:
        if self._apart is None:
            self._apart = self.adapted != "prefix" and keeps_apart(self.net)
        if not self._apart:
            raise MeshError(
                f"{self.net.config.model_type}{' with a prefix' if self.adapted == 'prefix' else ''} does not keep "
                "samples apart that are packed into one row",
                where="text.pack",
                instead="pack: false",
            )

    def types(self, x: Tokens) -> Tensor:
        """0 up to and with the first separator, then 1: which of two texts a token is of."""
        ends = torch.eq(x.ids, self.separator if self.separator is not None else -1).long()
        return ((ends.cumsum(1) - ends) > 0).long() * x.mask

    def _asked(self) -> dict[str, Any]:
        """What the net must return beside its logits, for the layers that are tapped now."""
        more: dict[str, Any] = {}
        if any(_tapped(probe) for probe in [*self.hidden, *self.pooled]):
            more["output_hidden_states"] = True
        if any(map(_tapped, self.attention)):
            if self.net.config._attn_implementation != "eager":
                raise MeshError("no maps are computed", where="model.hf.attention", instead="attention: eager")
            if self.max_length is None:
                raise MeshError("how wide are the maps?", where="model.hf.max_length", instead="max_length: 128")
            more["output_attentions"] = True
        return more

    def _probe(self, x: Tokens, out: Any) -> None:
        for number, probe in enumerate(self.hidden):
            if _tapped(probe):
                probe(out.hidden_states[number].flatten(0, 1)[x.tokens])
        for number, probe in enumerate(self.pooled):
            if _tapped(probe):
                probe(out.hidden_states[number].flatten(0, 1)[x.tokens[starts_of(x.lengths)[:-1]]])
        for number, probe in enumerate(self.attention):
            if _tapped(probe):
                probe(self._maps(x, out.attentions[number]))

    def _maps(self, x: Tokens, attention: Tensor) -> Tensor:
        """``[R, heads, L, L]`` to ``[T, max_length]``: each token's own sample, from its first token on."""
        length, width = x.ids.shape[1], self.max_length or 0
        attention = attention[..., -length:].mean(1)  # without a prefix, which stands before
        own = x.lengths if x.texts is None else x.mask.sum(1)  # of a list each text by itself
        begins = torch.repeat_interleave(x.tokens[starts_of(own)[:-1]] % length, own)
        sizes = torch.repeat_interleave(own, own)
        step = torch.arange(width, device=x.tokens.device)
        at = (begins[:, None] + step).clamp(max=length - 1)
        maps = attention.flatten(0, 1)[x.tokens].gather(1, at)
        return maps * (step < sizes[:, None])

    def _shapes(self, x: Tokens) -> Tensor | FactoredLogits:
        """Outputs and tapped layers of the right shapes, without computing them."""
        like, width = next(self.net.parameters()), self.net.config.hidden_size
        for probe in filter(_tapped, self.hidden):
            probe(like.new_empty(len(x.tokens), width))
        for probe in filter(_tapped, self.pooled):
            probe(like.new_empty(len(x), width))
        for probe in filter(_tapped, self.attention):
            probe(like.new_empty(len(x.tokens), self.max_length or 0))
        if self.head == CAUSAL:
            head = self.net.get_output_embeddings()
            if not self.projects:
                return like.new_empty(len(x.units), head.weight.shape[0])
            return FactoredLogits(like.new_empty(len(x.units), head.weight.shape[1]), head.weight, head.bias)
        return like.new_empty(len(x) if self.head.per == "samples" else len(x.units), self.classes)

    def export(
        self,
        folder: Path,
        tokenizer: PreTrainedTokenizerFast,
        begin: int | None = None,
        ends: Sequence[int] = (),
        told: Mapping[str, str] | None = None,
    ) -> None:
        """See :func:`kdmesh.text.export.export`."""
        from kdmesh.text.export import export

        export(self, folder, tokenizer, begin, ends, told)

    def sources(self) -> list[Path]:
        """The files that the whole model was read from: its configuration and weights; none where others made it."""
        from kdmesh.text.source import weight_files

        if self.source is None or self.drawn or self.adapted is not None:
            return []
        return [self.source / "config.json", *weight_files(self.source)]

    def keep_tokenizer(self, folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
        """Write the tokenizer alone, for weights that stay where they are."""
        tokenizer.save_pretrained(folder)

    def card(self, name: str, **facts: Any) -> str:
        """See :func:`kdmesh.text.card.card`."""
        from kdmesh.text.card import card

        return card(name, self, **facts)

    def proven(self, folder: Path, encoder: Encoder, samples: Texts, encoded: Encoded) -> Comparison:
        """See :func:`kdmesh.text.proving.compare`."""
        from kdmesh.text.proving import compare

        return compare(self, folder, encoder, samples, encoded)


def _tapped(probe: nn.Module) -> bool:
    return bool(probe._forward_hooks)
