"""Tokenizers: read from a folder or hub, or made from the training texts, and carried between hosts as text."""

from __future__ import annotations

import hashlib
import json
from copy import deepcopy
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError
from kdmesh.spec.base import DEFAULT_TASK
from kdmesh.text.heads import CAUSAL, head_of
from kdmesh.text.settings import TokenizerConfig
from kdmesh.text.source import fetched, local, quiet, reach, read_config, small, small_on_hub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from transformers import PreTrainedTokenizerFast

    from kdmesh.text.settings import HfConfig

PAD, BOS, EOS, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
SPECIAL = [PAD, BOS, EOS, UNKNOWN]  # ids 0 to 3
WHERE = "model.hf.tokenizer"


def for_model(
    config: HfConfig, texts: Callable[[], Iterable[str]], task: str = DEFAULT_TASK, two_parts: bool = False
) -> PreTrainedTokenizerFast:
    """The tokenizer of an ``hf`` model: its own setting, or the one that stands beside its weights.

    ``two_parts``: of a language model that reads with one part and writes with another.
    """
    own = config.tokenizer
    if own is not None:
        return load(own, texts, task, two_parts)
    if config.path is None:
        what, instead = "a model made from `config` has none", "tokenizer: FOLDER, or {bpe: {vocabulary: 512}}"
        raise MeshError(what, where=WHERE, instead=instead)
    trusted = config.trust_remote_code is not None
    read_config(config.path, config.revision, trusted, {})  # which the tokenizer's reader reads, too
    return read(config.path, config.revision, trusted)


def pad(tokenizer: PreTrainedTokenizerFast, config: HfConfig, task: str) -> str:
    """Name a pad token for a classifier whose tokenizer has none, and say which; "" where there is nothing to say.

    A classifier's inputs are padded, and it looks for its last token by the pad token's number. The choice is saved
    with the tokenizer. By default it is what the model's own settings name, else the token that ends a text.
    """
    own = config.pad_token
    if own is not None and own != tokenizer.pad_token:
        number = tokenizer.convert_tokens_to_ids(own)
        if number is None or tokenizer.convert_ids_to_tokens(number) != own:
            raise MeshError(
                f"the tokenizer has no token {own!r}",
                where="model.hf.pad_token",
                instead=f"one of its tokens that no text contains: {_listed(tokenizer)}",
            )
        tokenizer.pad_token = own
    if tokenizer.pad_token_id is not None or head_of(task) == CAUSAL:
        return ""
    settings = config.config
    if config.path is not None:
        settings = read_config(config.path, config.revision, config.trust_remote_code is not None, {}).to_dict()
    known = settings.get("pad_token_id")
    found = tokenizer.eos_token
    if isinstance(known, int) and 0 <= known < len(tokenizer):
        found = tokenizer.convert_ids_to_tokens(known)
    if found is None:
        raise MeshError(
            "the tokenizer has no pad token, and none that ends a text: a classifier's inputs are padded",
            where="model.hf.pad_token",
            instead=f"pad_token: one of its tokens that no text contains: {_listed(tokenizer)}",
        )
    tokenizer.pad_token = found
    return f"pads with {found!r}, for its tokenizer names no pad token"


def _listed(tokenizer: PreTrainedTokenizerFast) -> str:
    """Some tokens that stand for no text."""
    special = [str(token) for token in tokenizer.all_special_tokens]
    return ", ".join(special[:8]) or "such as [PAD], in a tokenizer that has it"


def load(
    config: TokenizerConfig | str, texts: Callable[[], Iterable[str]], task: str = DEFAULT_TASK, two_parts: bool = False
) -> PreTrainedTokenizerFast:
    """Read the tokenizer of a folder or hub id, or make one from ``texts()``, which is asked for only then.

    Texts that keep what was ``made`` of them, by settings, are gone through once for all agents that want the same.
    """
    if isinstance(config, str):
        return read(config)
    words = texts()
    made: dict[Any, PreTrainedTokenizerFast] = getattr(words, "made", {})
    key = config.model_dump_json(), head_of(task) == CAUSAL, two_parts
    if key not in made:
        made[key] = make(config, words, task, two_parts)
    return deepcopy(made[key])  # whoever reads by it may name a pad token


def read(path: str, revision: str | None = None, trusted: bool = False) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder or hub id, of the `tokenizers` library: others do not say what they read."""
    from transformers import AutoTokenizer

    folder = local(path, WHERE)
    if folder is not None:
        small(folder, WHERE)
    elif path in TokenizerConfig.model_fields:
        said = f"{path} is not a folder here; a tokenizer that is made is written with its settings"
        raise MeshError(said, where=WHERE, instead=f"tokenizer: {{{path}: {{}}}}")
    more: dict[str, Any] = reach(path, revision, WHERE) | ({} if revision is None else {"revision": revision})
    with quiet(), fetched(path, WHERE, "a folder with tokenizer.json, or {bpe: {vocabulary: 512}}"):
        if folder is None:
            small_on_hub(path, revision, WHERE, bool(more.get("local_files_only")))
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trusted, **more)
    return _fast(tokenizer, path)


def make(
    config: TokenizerConfig, texts: Iterable[str], task: str = DEFAULT_TASK, two_parts: bool = False
) -> PreTrainedTokenizerFast:
    """Make a tokenizer, equal for equal texts.

    By itself it writes ``<s> text </s>`` and ``<s> text </s> pair </s>``; for a language model, which goes on from
    there, ``<s> text``; where another part of it does, ``text </s>``.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if not any(texts):
        raise MeshError("there are no training texts to make a tokenizer from", where=WHERE, instead="tokenizer: PATH")
    if config.bpe is not None:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=config.bpe.vocabulary,
            special_tokens=SPECIAL,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(iter(texts), trainer)
    else:
        known = SPECIAL + sorted(set(chain.from_iterable(texts)))
        tokenizer = Tokenizer(models.WordLevel({token: number for number, token in enumerate(known)}, UNKNOWN))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}" if two_parts else f"{BOS} $A" if head_of(task) == CAUSAL else f"{BOS} $A {EOS}",
        pair=f"{BOS} $A {EOS} $B:1 {EOS}:1",
        special_tokens=[(token, SPECIAL.index(token)) for token in (BOS, EOS)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        cls_token=BOS,
        sep_token=EOS,
        clean_up_tokenization_spaces=False,
    )


def dumps(tokenizer: PreTrainedTokenizerFast) -> dict[str, str]:
    """The files of a tokenizer, by name."""
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        root = Path(folder)
        return {str(p.relative_to(root)): p.read_text(encoding="utf-8") for p in sorted(root.rglob("*")) if p.is_file()}


def loads(files: dict[str, str]) -> PreTrainedTokenizerFast:
    """The tokenizer of :func:`dumps`."""
    from transformers import AutoTokenizer

    with TemporaryDirectory() as folder, quiet():
        for name, text in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.name_or_path = ""
    return _fast(tokenizer, "the tokenizer")


def numbered(tokenizer: Any) -> str:
    """The sha256 of which number stands for which token, whatever else a tokenizer does with them."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def begin_with(tokenizer: PreTrainedTokenizerFast, begin: int) -> None:
    """Let a tokenizer write this token before a text, and nothing else beside it, as a language model reads it."""
    from tokenizers import processors

    text = "a b"
    if tokenizer(text)["input_ids"] == [begin, *tokenizer(text, add_special_tokens=False)["input_ids"]]:
        return
    backend, token = tokenizer.backend_tokenizer, tokenizer.convert_ids_to_tokens(begin)
    told = json.loads(backend.to_str())["post_processor"] or {}
    every = told.get("processors", [told])
    kept = [  # what moves offsets stays, what writes tokens goes
        processors.ByteLevel(add_prefix_space=one.get("add_prefix_space", True), trim_offsets=one["trim_offsets"])
        for one in every
        if one.get("trim_offsets") is not None
    ]
    writes = processors.TemplateProcessing(
        single=f"{token} $A", pair=f"{token} $A $B:1", special_tokens=[(token, begin)]
    )
    backend.post_processor = processors.Sequence([*kept, writes]) if kept else writes
    for name in ("add_bos_token", "add_eos_token"):  # by which transformers would put it back
        tokenizer.init_kwargs.pop(name, None)


def separator(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """The token that ends the first of two texts, where the tokenizer tells them apart by it; else None."""
    if tokenizer.sep_token_id is None:
        return None
    told = tokenizer("a", "b", return_token_type_ids=True)
    first = told["input_ids"].index(tokenizer.sep_token_id) if tokenizer.sep_token_id in told["input_ids"] else -1
    expected = [int(number > first) for number in range(len(told["input_ids"]))]
    return tokenizer.sep_token_id if told["token_type_ids"] == expected else None


def _fast(tokenizer: Any, path: str) -> PreTrainedTokenizerFast:
    if not getattr(tokenizer, "is_fast", False):
        raise MeshError(
            f"{path} has a {type(tokenizer).__name__}, which does not say which characters a token stands for",
            where=WHERE,
            instead="a tokenizer with tokenizer.json",
        )
    return tokenizer
