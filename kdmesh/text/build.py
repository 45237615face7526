"""Build a model of transformers: from a folder or the hub, from chosen layers of one, or from a configuration."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kdmesh.errors import MeshError
from kdmesh.text.encoder_decoder import EncoderDecoder
from kdmesh.text.heads import BI, CAUSAL, CROSS, LISTS, SEQUENCES, SINGLE, Head, head_of, problem_of
from kdmesh.text.lists import ListModel
from kdmesh.text.loading import keep_config, keep_layers, name_labels, nameless, order_of, read_model, reorder
from kdmesh.text.model import TextModel
from kdmesh.text.probes import is_causal, recompute, sees_later, unmasked
from kdmesh.text.source import (
    attention_exists,
    folder_of,
    licence_of,
    local,
    make_config,
    quiet,
    read_config,
    weight_files,
)

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from kdmesh.text.settings import BiEncoderSettings, LoraSettings, PrefixSettings, TokenizerConfig

ASKED = 32
"""Tokens of the model that is asked in place of one without memory."""
LARGEST = 2**27
"""Weights that such a model has at most: a layer of those that are not causal has far fewer."""


def build(
    *,
    task: str,
    vocabulary: int,
    classes: int = 0,
    labels: list[str] | None = None,
    pad: int | None = None,
    separator: int | None = None,
    path: str | None = None,
    revision: str | None = None,
    tokenizer: str | TokenizerConfig | None = None,
    pad_token: str | None = None,
    config: dict[str, Any] | None = None,
    layers: list[int] | None = None,
    lora: LoraSettings | None = None,
    prefix: PrefixSettings | None = None,
    bi_encoder: BiEncoderSettings | None = None,
    gradient_checkpointing: bool = False,
    attention: str = "sdpa",
    dtype: str = "float32",
    trust_remote_code: str | None = None,
    label_map: dict[str, str] | None = None,
    max_length: int | None = None,
    new_head: str | None = None,
    processor: object = None,
    whole: bool = False,
) -> TextModel:
    """Return the model; what is not read is drawn from torch's default generator.

    ``task``: the name of one whose models are of transformers; ``vocabulary``: how many tokens its tokenizer has,
    ``pad`` and ``separator`` two of them; ``classes``: how many outputs, ``labels``: their names. The rest is
    :class:`~kdmesh.text.settings.HfConfig`. With `meta` as default device, it has no weights. ``whole``: a
    folder that we wrote, whose weights are all there and all used; ``dtype`` may then be `auto`, as they were saved.
    Raises MeshError with paths that start at ``model.hf``.
    """
    head = head_of(task, bi_encoder is not None)
    causal = head == CAUSAL
    del tokenizer, pad_token, processor  # said their part when the samples were encoded
    meta, trusted, changes = torch.get_default_device().type == "meta", trust_remote_code is not None, config or {}
    if path is None:
        settings = make_config(changes, _filled(task, vocabulary, pad))
        order = None
    else:
        settings = read_config(path, revision, trusted, changes)
        named = not causal and head not in LISTS and new_head is None
        order = order_of(settings, labels, label_map or {}) if named else None
    two_parts = causal and settings.is_encoder_decoder
    if two_parts:
        _goes_on(settings, pad, lora or prefix, layers)
    auto = auto_of(SEQUENCES if two_parts else head, task, settings, trusted)
    _has_labels(head, {"label_map": label_map, "new_head": new_head})
    if not causal:
        _answers(settings, head, task, classes, path is None or new_head is not None, pad)
    _fits(settings, vocabulary, max_length, path)
    how = {"dtype": dtype if dtype == "auto" else getattr(torch, dtype), "attn_implementation": attention}
    net, drawn = network(auto, settings, path, revision, trusted, how, layers, order, not causal, whole, new_head)
    if head == BI:
        _embeds(net, bi_encoder, meta)
    elif causal:
        if not two_parts and not (_is_causal(auto, settings, trusted, how) if meta else is_causal(net)):
            raise MeshError(
                f"{net.config.model_type} sees the tokens that it is to predict",
                where="model.hf.path" if path is not None else "model.hf.config",
                instead="config: {is_decoder: true}, or a decoder such as gpt2 or llama",
            )
        unmasked(net)
    else:
        name_labels(net.config, None if head == CROSS else labels, 1 if head == CROSS else classes)
    made = _dressed(
        net.train(), head, task, classes, max_length, separator, path, lora, prefix, bi_encoder, gradient_checkpointing
    )
    drawn = [name for name, _ in made.net.named_parameters()] if drawn is None else drawn
    made.drawn = [name for name in drawn if head != BI or path is None or not _pools(name)]  # no pooler is asked
    if path is not None and not trusted:
        made.source = folder_of(path, revision)
    if made.adapted is not None:
        made.drawn += [name for name, p in made.net.named_parameters() if p.requires_grad and name not in made.drawn]
    return made


def _has_labels(head: Head, given: dict[str, Any]) -> None:
    """MeshError for settings about labels of a model that has none."""
    if head != CAUSAL and head not in LISTS:
        return
    for field in (name for name, value in given.items() if value):
        what = "the next token is no label" if head == CAUSAL else "scores have no labels"
        raise MeshError(what, where=f"model.hf.{field}", instead="leave it out")


def network(
    auto: Any,
    settings: PreTrainedConfig,
    path: str | None,
    revision: str | None,
    trusted: bool,
    how: dict[str, Any],
    layers: list[int] | None,
    order: list[int] | None,
    answers: bool,
    whole: bool,
    new_head: str | None = None,
) -> tuple[Any, list[str] | None]:
    """The network, of the layers that are kept, its outputs in an order; and which weights were not read: None, all.

    ``answers``: it has a head for labels or scores, which a folder may lack.
    """
    meta = torch.get_default_device().type == "meta"
    drawn = None
    if path is not None:
        if layers is not None:
            keep_config(settings, layers)  # refuses numbers before weights are read
        if whole and not meta:
            _held(auto, settings, path, trusted, how)
        net, drawn = read_model(auto, settings, path, revision, trusted, answers, how, whole, new_head)
    if path is None or meta:  # on meta, the weights were read for their names and shapes alone
        return _fresh(auto, settings if layers is None else keep_config(settings, layers), trusted, how), drawn
    if order is not None and order != sorted(order):
        reorder(net, order)
    return net if layers is None else keep_layers(net, layers, how), drawn


def _goes_on(settings: Any, pad: int | None, adapter: Any, layers: list[int] | None) -> None:
    """Say with which token the part that writes begins: the model's own, else the one that pads, as of T5."""
    if adapter is not None or layers is not None:
        field, kind = "layers" if layers is not None else "lora", settings.model_type
        what = f"{kind} reads with one part and writes with another, and is trained whole"
        raise MeshError(what, where=f"model.hf.{field}", instead="leave it out")
    if settings.pad_token_id is None:
        settings.pad_token_id = pad
    start = getattr(settings, "decoder_start_token_id", None)
    settings.decoder_start_token_id = settings.pad_token_id if start is None else start
    if settings.decoder_start_token_id is None:
        what = "nothing says with which token the part that writes begins"
        raise MeshError(what, where="model.hf.config", instead="decoder_start_token_id: NUMBER")


def _is_causal(auto: Any, settings: PreTrainedConfig, trusted: bool, how: dict[str, Any]) -> bool:
    """Whether a model that has no memory is causal; of peers that are alike one is asked."""
    if trusted:  # its code is not of transformers, and may change
        return _one_layer_is_causal(auto, settings, trusted, how)
    key = auto, how["attn_implementation"], settings.to_json_string(use_diff=False)
    if key not in _CAUSAL:
        _CAUSAL[key] = _one_layer_is_causal(auto, settings, trusted, how)
    return _CAUSAL[key]


_CAUSAL: dict[tuple[Any, str, str], bool] = {}


def _one_layer_is_causal(auto: Any, settings: PreTrainedConfig, trusted: bool, how: dict[str, Any]) -> bool:
    """Found by asking one layer of it, drawn, with few tokens.

    Where an architecture cannot be made so small, or the layer has too many weights for a question, it is taken for
    causal: it is asked itself where it is built.
    """
    little = deepcopy(settings)
    text = little.get_text_config()
    try:
        text.vocab_size = ASKED
        if text.pad_token_id is not None:
            text.pad_token_id = 0  # there is an embedding of it; some count positions from it
        little = keep_config(little, [0])
        how = {**how, "dtype": torch.float32}
        if sum(one.numel() for one in _fresh(auto, deepcopy(little), trusted, how).parameters()) > LARGEST:
            return True
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            net = _fresh(auto, little, trusted, how)
            unmasked(net)
            return is_causal(net)
    except Exception:  # each architecture fails in its own way
        return True


def _embeds(net: Any, how: BiEncoderSettings | None, meta: bool) -> None:
    """Leave out of training what no embedding comes by; refuse a model that gives no embedding of a text."""
    for name, parameter in net.named_parameters():
        if _pools(name):
            parameter.requires_grad_(False)
    where = "model.hf.bi_encoder"
    if net.config.is_encoder_decoder:
        what = f"{net.config.model_type} reads a text with one part and writes with another"
        raise MeshError(what, where=where, instead="an encoder: bert, roberta ..., or a decoder alone")
    if how is not None and how.pooling == "cls" and not meta and not sees_later(net):
        what = f"{net.config.model_type} has seen nothing else at the first token"
        raise MeshError(what, where=f"{where}.pooling", instead="mean")


def _pools(name: str) -> bool:
    """Whether a parameter is of the layer that some encoders put behind their first token."""
    return "pooler" in name.split(".")


def _dressed(
    net: Any,
    head: Head,
    task: str,
    classes: int,
    max_length: int | None,
    separator: int | None,
    path: str | None,
    lora: LoraSettings | None,
    prefix: PrefixSettings | None,
    bi_encoder: BiEncoderSettings | None,
    gradient_checkpointing: bool,
) -> TextModel:
    """The module around the network, with its adapters."""
    folder = None if path is None else local(path, "model.hf.path")
    base = "" if path is None else path if folder is None else folder.resolve().name  # no path of this machine
    licence = licence_of(path) if path is not None and folder is not None else None
    if gradient_checkpointing:
        try:
            recompute(net)
        except ValueError as error:
            where = "model.hf.gradient_checkpointing"
            raise MeshError(f"{net.config.model_type}: {error}", where=where, instead="false") from None
    adapted = None
    if lora is not None or prefix is not None:
        from kdmesh.text.peft import adapt

        adapted = "prefix" if lora is None else "lora"
        net = adapt(net, head.adapter, lora, prefix, base)
    make: Any = partial(ListModel, bi_encoder=bi_encoder) if head in LISTS else TextModel
    if head == CAUSAL and net.config.is_encoder_decoder:
        make = EncoderDecoder
    made: TextModel = make(
        net,
        task,
        classes,
        max_length=max_length,
        separator=separator,
        base=base,
        hub=path is not None and folder is None,
        licence=licence,
        adapted=adapted,
    )
    return made


def auto_of(head: Head, task: str, settings: PreTrainedConfig, trusted: bool) -> Any:
    """The class of transformers that makes models for a task."""
    import transformers

    auto = getattr(transformers, head.auto)
    known: Any = auto._model_mapping
    if type(settings) not in known and not trusted:
        raise MeshError(
            f"transformers has no {settings.model_type} for {task}",
            where="model.hf",
            instead=f"an architecture for this task: {head.known} ...",
        )
    return auto


def _fresh(auto: Any, settings: PreTrainedConfig, trusted: bool, how: dict[str, Any]) -> PreTrainedModel:
    with quiet():
        try:
            return auto.from_config(settings, trust_remote_code=trusted, **how)
        except Exception as error:  # each architecture checks in its own way
            attention_exists(error, settings.model_type)
            reason = (str(error).strip() or type(error).__name__).split("\n")[0]
            raise MeshError(
                f"{settings.model_type} cannot be built: {reason}",
                where="model.hf.config",
                instead="settings that fit together",
            ) from None


def _held(auto: Any, settings: PreTrainedConfig, path: str, trusted: bool, how: dict[str, Any]) -> None:
    """Refuse settings of a model with more parameters than a folder's weights have bytes, before it takes memory."""
    files = weight_files(Path(path))
    with torch.device("meta"):
        net = _fresh(
            auto, deepcopy(settings), trusted, {**how, "dtype": torch.float32}
        )  # a model writes its type there
    count, size = sum(one.numel() for one in net.parameters()), sum(file.stat().st_size for file in files)
    if count > size:
        raise MeshError(
            f"{path} has weights of {size:,} bytes, and its config.json is of a model with {count:,} parameters",
            where="model.hf.path",
            instead="a complete copy",
        )


def _filled(task: str, vocabulary: int, pad: int | None) -> dict[str, Any]:
    """The settings of a new model that follow from its tokenizer."""
    own = {"vocab_size": vocabulary, "bos_token_id": None, "eos_token_id": None}
    if head_of(task) != CAUSAL:  # a language model may pad with a token that it must learn
        own["pad_token_id"] = pad
    return own


def _answers(settings: PreTrainedConfig, head: Head, task: str, classes: int, new: bool, pad: int | None) -> None:
    """How many outputs a model has that is none of language, what they are, and where its inputs end."""
    if head != BI and (new or nameless(settings) or head == CROSS):
        settings.num_labels = 1 if head == CROSS else classes
    _pad(settings, pad)
    say_problem(settings, task)


def _pad(settings: PreTrainedConfig, pad: int | None) -> None:
    """A classifier looks for padding by its number: it and the tokenizer must agree."""
    if settings.pad_token_id is None:
        settings.pad_token_id = pad
    if settings.pad_token_id is None or pad not in (None, settings.pad_token_id):
        what = "there is no pad token" if pad is None else f"the tokenizer pads with {pad}"
        raise MeshError(
            f"{what}; the model's is {settings.pad_token_id}",
            where="model.hf.tokenizer",
            instead="the tokenizer that belongs to the model, or model.hf.pad_token: the token of that number",
        )


def say_problem(settings: Any, task: str) -> None:
    """Write down what the outputs are, as transformers reads it; refuse a model that says they are something else."""
    own, wanted = settings.problem_type, problem_of(task)
    if wanted is None:
        return
    if own not in (None, wanted):
        raise MeshError(
            f"the model is one of {own}, and task {task} is {wanted}",
            where="model.hf.config.problem_type",
            instead=f"a model of {wanted}, or config: {{problem_type: {wanted}}}, which reads its outputs as such",
        )
    if wanted != SINGLE:  # what transformers takes a model of several outputs for that says nothing
        settings.problem_type = wanted


def _fits(settings: PreTrainedConfig, vocabulary: int, max_length: int | None, path: str | None) -> None:
    """Every token has an embedding, and every position."""
    text = settings.get_text_config()
    if text.num_hidden_layers < 1:
        raise MeshError(
            f"the model has {text.num_hidden_layers} layers",
            where="model.hf.path" if path is not None else "model.hf.config",
            instead="num_hidden_layers: 1 or more",
        )
    if text.vocab_size < vocabulary:
        raise MeshError(
            f"the tokenizer has {vocabulary} tokens, the model embeddings for {text.vocab_size}",
            where="model.hf.tokenizer" if path is not None else "model.hf.config.vocab_size",
            instead="the tokenizer that belongs to the model" if path is not None else "leave it out",
        )
    room = getattr(text, "max_position_embeddings", None)
    if room is not None and max_length is not None:
        if text.model_type in _AFTER_PAD:
            room -= (text.pad_token_id or 0) + 1
        if room < max_length:
            raise MeshError(
                f"samples may have {max_length} tokens, the model has {room} positions",
                where="model.hf.max_length",
                instead=f"at most {room}, or config: {{max_position_embeddings: ...}} where it is made here",
            )


_AFTER_PAD = ("roberta", "xlm-roberta", "camembert", "longformer", "mpnet", "data2vec-text", "ibert", "esm")
"""Architectures that count positions from the one after the pad token's number."""
