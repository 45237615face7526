"""An exported folder read as its user will read it, and compared with the model that was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdmesh.signals.compare import Comparison
from kdmesh.signals.lazy import dense
from kdmesh.text.heads import CAUSAL
from kdmesh.text.peft import with_prefix
from kdmesh.text.probes import inference, takes_types
from kdmesh.text.source import quiet
from kdmesh.text.template import given

if TYPE_CHECKING:
    from pathlib import Path

    from kdmesh.streams.texts import Sample, Texts
    from kdmesh.streams.tokens import Encoded, Tokens
    from kdmesh.text.encoder import Encoder
    from kdmesh.text.exported import Exported


@torch.no_grad()
def compare(model: Exported, root: Path, encoder: Encoder, samples: Texts, encoded: Encoded) -> Comparison:
    """Read a folder by plain transformers, as its card says, and compare tokens and logits of ``samples``.

    ``encoded``: the samples as the model was given them. Twice compared: the network in the same shape, which gives the
    same bits unless updates were merged, and the answers that were measured.
    """
    from transformers import AutoTokenizer

    found = Comparison("transformers", len(samples), file="tokenizer.json")
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(root)
    x = encoded.whole()
    for number, text in enumerate(text for sample in samples for text in encoder.texts(sample)):
        own = x.ids[number, : int(x.mask[number].sum())].tolist()
        if problem := _tokens_differ(tokenizer, text, own, _prompt(x, number), encoder):
            found.problem, found.difference = problem, None
            return found
    found.file = "adapter" if model.adapted == "prefix" else "model.safetensors"
    like = next(model.net.parameters())
    theirs = read_back(model, root).to(like.device)
    x = x.to(like.device)
    sides: Any = getattr(model, "sides", None)  # of a model that reads with one part and writes with another
    inputs: dict[str, Tensor] = {"input_ids": x.ids, "attention_mask": x.mask.long()} if sides is None else sides(x)
    if takes_types(model.net) and model.separator is not None and model.head != CAUSAL:
        inputs["token_type_ids"] = model.types(x)
    with quiet(), inference(model.net), inference(theirs):
        one, two, measured = model.net(**inputs)[0], theirs(**inputs)[0], dense(model(x))
    answers = model.answers(x, two)
    if one.dim() > 2:
        one, two = one.flatten(0, 1)[x.tokens], two.flatten(0, 1)[x.tokens]
    found.add(one, two, loose=model.adapted == "lora")
    found.add(measured, answers)
    return found


def read_back(model: Exported, root: Path) -> Any:
    """The folder's model as its card says how to read it."""
    import transformers

    more = {"attn_implementation": "eager"} if model.net.config._attn_implementation == "eager" else {}
    with quiet():
        net: Any = getattr(transformers, (model.kind or model.head).auto).from_pretrained(root, **more)
    return with_prefix(net, root) if model.adapted == "prefix" else net


def _prompt(x: Tokens, number: int) -> int:
    """How many of a sample's tokens stand before the first that is learned."""
    width = x.ids.shape[1]
    mine = x.units[(x.units // width) == number] % width
    return int(mine[0]) + 1 if len(mine) else int(x.mask[number].sum())


def _tokens_differ(tokenizer: Any, sample: Sample, own: list[int], prompt: int, encoder: Encoder) -> str:
    """What is wrong if the folder's tokenizer reads a sample otherwise than it was trained: as far as it was read."""
    if encoder.head != CAUSAL:
        told = tokenizer(sample.text, sample.pair, truncation=True, max_length=encoder.max_length)["input_ids"]
    elif sample.messages is not None:
        turns, tools = given(sample)
        told = list(tokenizer.apply_chat_template(turns, tools=tools, tokenize=True, return_dict=True)["input_ids"])
        own = own[:-1] if own[:-1] == told else own  # a template may leave the end of the last turn to us
    elif sample.prompt is not None:
        told, own = tokenizer(sample.prompt)["input_ids"], own[:prompt]
    else:
        told = tokenizer(sample.text)["input_ids"]
    told = told[: encoder.max_length] if len(own) == encoder.max_length else told
    if told == own:
        return ""
    at = next((n for n, (one, two) in enumerate(zip(told, own, strict=False)) if one != two), min(len(told), len(own)))
    return (
        f"the saved tokenizer reads {sample.at or 'a sample'} otherwise than it was read in training, "
        f"first at token {at}: {tokenizer.convert_ids_to_tokens(told[at : at + 3])} in place of "
        f"{tokenizer.convert_ids_to_tokens(own[at : at + 3])}"
    )
