"""Out of kdmesh: a folder that plain transformers reads to the same logits, and its card."""

from __future__ import annotations

import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from kdmesh.text.aligned import align
from kdmesh.text.probes import takes_types
from kdmesh.text.source import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from kdmesh.text.model import TextModel

ADAPTER = "adapter"


def export(model: TextModel, folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write a ``save_pretrained`` folder: safetensors, configuration, tokenizer, of a language model how it generates.

    Low-rank updates are merged into the weights, and saved by themselves in ``adapter/``; a prefix cannot be merged:
    the folder then holds the model without it, and ``adapter/`` the prefix.
    """
    net: Any = model.net
    tokenizer = _for(model, tokenizer)
    with quiet():
        if model.adapted is not None:
            net.save_pretrained(folder / ADAPTER, save_embedding_layers=False)
            (folder / ADAPTER / "README.md").unlink(missing_ok=True)  # the folder has a card
        net = plain(model)
        settle(net, tokenizer)
        net.save_pretrained(folder)
        for file in folder.glob("*.safetensors"):
            align(file)
        tokenizer.save_pretrained(folder)


def files(model: TextModel, tokenizer: PreTrainedTokenizerFast) -> dict[str, bytes]:
    """The files of :func:`export` by their paths, for a folder on another machine."""
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        export(model, root, tokenizer)
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def _for(model: TextModel, tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer as it goes with this model: without what a call has set, and giving only what the model takes."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
    if takes_types(model.net) and model.separator is not None:
        names.append("token_type_ids")
    tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names  # the second is what is saved
    return tokenizer


def plain(model: TextModel) -> Any:
    """The network as transformers knows it: low-rank updates merged, in a copy; a prefix left out."""
    net: Any = model.net
    if model.adapted == "lora":
        with torch.no_grad():
            return copy.deepcopy(net).merge_and_unload()
    if model.adapted == "prefix":
        from peft.utils import ModulesToSaveWrapper

        net = copy.deepcopy(net.get_base_model())
        for name, part in list(net.named_modules()):
            if isinstance(part, ModulesToSaveWrapper):  # the head, and beside it what it was
                net.set_submodule(name, part.modules_to_save[part.active_adapter])
    return net


def settle(net: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    """Tell a model which of its tokens begin and end a text, where it does not know."""
    configs = [net.config, *filter(None, [getattr(net, "generation_config", None)])]
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        own = getattr(tokenizer, name)
        for config in configs:
            if getattr(config, name, None) is None and own is not None:
                setattr(config, name, own)
