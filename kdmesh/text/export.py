"""Out of kdmesh: a folder that plain transformers reads to the same logits, and its card."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from kdmesh.text.aligned import align
from kdmesh.text.heads import CAUSAL
from kdmesh.text.peft import ADAPTER, calm, merged
from kdmesh.text.probes import takes_types
from kdmesh.text.source import quiet
from kdmesh.text.tokenizers import begin_with

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

    from kdmesh.text.exported import Exported


def export(
    model: Exported,
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    begin: int | None = None,
    ends: Sequence[int] = (),
    told: Mapping[str, str] | None = None,
) -> None:
    """Write a ``save_pretrained`` folder: safetensors, configuration, tokenizer, of a language model how it generates.

    ``begin``: the token before every plain text that was learned, which the tokenizer writes by itself from here on;
    ``ends``: the tokens that ended what was learned, at which the folder's model stops to generate;
    ``told``: what the header of every weights file says beside, since files are moved without their folder.

    Low-rank updates are merged into the weights, and saved by themselves in ``adapter/``; a prefix cannot be merged:
    the folder then holds the model without it, and ``adapter/`` the prefix.
    """
    net: Any = model.net
    tokenizer = _for(model, tokenizer, begin)
    with quiet(), calm():
        if model.adapted is not None:
            net.save_pretrained(folder / ADAPTER, save_embedding_layers=False)
            (folder / ADAPTER / "README.md").unlink(missing_ok=True)  # the folder has a card
        net = plain(model)
        settle(net, tokenizer, model.head == CAUSAL, begin, ends)
        net.save_pretrained(folder)
        for file in folder.rglob("*.safetensors"):
            align(file, told)
        tokenizer.save_pretrained(folder)


def _for(model: Exported, tokenizer: PreTrainedTokenizerFast, begin: int | None) -> PreTrainedTokenizerFast:
    """The tokenizer as it goes with this model: without what a call has set, and giving only what the model takes."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
    if takes_types(model.net) and model.separator is not None:
        names.append("token_type_ids")
    tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names  # the second is what is saved
    if begin is not None:
        begin_with(tokenizer, begin)
    return tokenizer


def plain(model: Exported) -> Any:
    """The network as transformers knows it: low-rank updates merged, in a copy; a prefix left out."""
    net: Any = model.net
    if model.adapted == "lora":
        return merged(net)
    if model.adapted == "prefix":
        from peft.utils import ModulesToSaveWrapper

        net = copy.deepcopy(net.get_base_model())
        for name, part in list(net.named_modules()):
            if isinstance(part, ModulesToSaveWrapper):  # the head, and beside it what it was
                net.set_submodule(name, part.modules_to_save[part.active_adapter])
    return net


def settle(
    net: Any, tokenizer: PreTrainedTokenizerFast, language: bool, begin: int | None = None, ends: Sequence[int] = ()
) -> None:
    """Tell a model which of its tokens begin and end a text: a ``language`` model as it was trained, whatever it said
    before; any other where it does not know.
    """
    told: list[Any] = [net.config, *filter(None, [getattr(net, "generation_config", None)])]
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        own = getattr(tokenizer, name)
        for config in told:
            if getattr(config, name, None) is None and own is not None:
                setattr(config, name, own)
    if not language:
        return
    stops = sorted(set(ends)) or [number for number in [tokenizer.eos_token_id] if number is not None]
    for config in told:
        config.bos_token_id = tokenizer.bos_token_id if begin is None else begin
        if stops:
            config.eos_token_id = stops if len(stops) > 1 else stops[0]
    if tokenizer.pad_token_id is not None:
        told[-1].pad_token_id = tokenizer.pad_token_id
