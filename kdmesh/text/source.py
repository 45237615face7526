"""Where a model of transformers comes from: a folder, which is looked through before it is read, or the hub."""

from __future__ import annotations

import functools
import json
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError, nearest
from kdmesh.files import INDEX, REFERENCE, WEIGHTS, found_at, inside, read
from kdmesh.licences.cards import card_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from transformers import PreTrainedConfig

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".pkl")
ADAPTER_CONFIG = "adapter_config.json"
PATIENCE = 5  # seconds for the hub's first answer
MANY = 10_000  # layers, experts, labels ... of a configuration
MANY_NAMES = 100_000  # added tokens, names of labels: models of speech add 65,536
GROWTH = 100  # times that a tokenizer may make a text longer: what is in use replaces a character by one or two
READ_WHOLE = (".json", ".jinja", ".txt", ".model", ".md")
"""How the files end that libraries read whole, into memory."""

MOST = 1 << 28
"""Bytes of such a file: the tokenizers of 2026 that know most have an eighth of it."""

_PARTS = re.compile("layer|block|expert|label|stage|depth|group|head")
_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from printing: what it warns of is refused here, or told in our words."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def local(path: str, where: str) -> Path | None:
    """The folder of this name; None for what can only be a hub id."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or not _HUB.fullmatch(path) or path.startswith("."):
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise MeshError(f"{path} {what}", where=where, instead="a folder made by save_pretrained, or a hub id")
    return None


def small(folder: Path, where: str) -> None:
    """Refuse a folder in which a file that is read whole is none, as a named pipe, or has more than :data:`MOST`.

    Its config.json is looked through, too: whoever reads a tokenizer reads it.
    """
    for file in sorted([*folder.iterdir(), *folder.glob("additional_chat_templates/*")]):
        if file.suffix not in READ_WHOLE:
            continue
        what = found_at(file)
        if what == "file" and file.stat().st_size > MOST:
            what = f"holds more than {MOST >> 20} MiB"
        if what not in ("file", "folder"):
            raise MeshError(f"{file} {what}", where=where, instead="a complete copy of the folder")
    for name, look in (("config.json", few_parts), ("tokenizer.json", plain_tokenizer)):
        try:
            settings = json.loads(read(folder / name))
        except (OSError, ValueError, RecursionError):
            continue  # said by whoever needs it
        if isinstance(settings, dict):
            look(settings, where)


@functools.cache  # a hub id is read several times in a run
def small_on_hub(path: str, revision: str | None, where: str, offline: bool = False) -> None:
    """The same of a hub id: refused before it is fetched by what the hub says of sizes, and before it is read.

    ``offline``: look through what was fetched before.
    """
    from huggingface_hub import model_info, snapshot_download

    names = None
    if not offline:
        files = model_info(path, revision=revision, files_metadata=True).siblings or []
        read_whole = [file for file in files if file.rfilename.endswith(READ_WHOLE) and _is_read(file.rfilename)]
        names = [file.rfilename for file in read_whole]
        for file in read_whole:
            if (file.size or 0) > MOST:
                said = f"{file.rfilename} of {path} holds more than {MOST >> 20} MiB"
                raise MeshError(said, where=where, instead="another hub id")
    home = snapshot_download(path, revision=revision, allow_patterns=names, local_files_only=offline)
    small(Path(home), where)


def _is_read(name: str) -> bool:
    """Whether a file of a hub id is one that :func:`small` looks at in a folder."""
    return "/" not in name or name.startswith("additional_chat_templates/")


def plain_tokenizer(settings: dict[str, Any], where: str) -> None:
    """Refuse a tokenizer.json of absurdly many added tokens, or by whose replacements a text grows beyond measure."""
    added = settings.get("added_tokens")
    if isinstance(added, list) and len(added) > MANY_NAMES:
        raise MeshError(f"it adds {len(added):,} tokens", where=where, instead=f"at most {MANY_NAMES:,}")
    for part in ("normalizer", "decoder"):
        if (grows := _growth(settings.get(part))) > GROWTH:
            said = f"the {part} of its tokenizer.json makes a text {grows:,.0f} times as long"
            raise MeshError(said, where=where, instead=f"replacements that make it at most {GROWTH} times as long")


def _growth(part: Any) -> float:
    """How many times longer a text can become by a normalizer's replacements, one after the other."""
    if not isinstance(part, dict):
        return 1
    own: float = 1
    if part.get("type") == "Replace" and isinstance(content := part.get("content"), str):
        pattern = part.get("pattern")
        found = pattern.get("String") if isinstance(pattern, dict) else None
        length = len(found) if isinstance(found, str) else 0  # a regular expression may match nothing, anywhere
        own = max(1, len(content) / length if length else len(content))
    for inner in ("normalizers", "decoders"):
        for one in part.get(inner) or () if isinstance(part.get(inner), list) else ():
            own = min(own * _growth(one), 1e300)
    return own


@contextmanager
def fetched(path: str, where: str, instead: str) -> Iterator[None]:
    """Say in our words what went wrong while transformers read a folder or asked the hub."""
    from huggingface_hub import constants

    try:
        yield
    except MeshError:
        raise
    except Exception as error:  # files may hold anything, and each architecture reads them in its own way
        reason = said(error)
        attention_exists(error, path)
        if "trust_remote_code" in str(error):
            raise MeshError(
                f"{path} comes with code of its own, which is not run unasked",
                where="model.hf.trust_remote_code",
                instead=f"trust_remote_code: {path}, where you trust it",
            ) from None
        if local(path, where) is None and isinstance(error, OSError):
            raise MeshError(
                f"{path} is not a folder here, and could not be fetched from {constants.ENDPOINT}: {reason}",
                where=where,
                instead="a folder made by save_pretrained, or a hub id that can be reached",
            ) from None
        raise MeshError(f"{path} cannot be read: {reason}", where=where, instead=instead) from None


def said(error: Exception) -> str:
    """What an error says first: a line, and the next one where that only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    bare = isinstance(error, (LookupError, TypeError, AttributeError, ArithmeticError, AssertionError))
    first = f"{type(error).__name__}: {lines[0]}" if bare else lines[0]
    return " ".join([first, *lines[1:2]]) if first.endswith(":") else first


def reach(path: str, revision: str | None, where: str) -> dict[str, bool]:
    """How to ask for a hub id: the hub if it answers, else only what was fetched before. Nothing for a folder.

    MeshError where it does not answer, and nothing was fetched.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    if local(path, where) is not None:
        return {}
    reason = (
        _unreachable(path, revision, constants.ENDPOINT) if not constants.HF_HUB_OFFLINE else "HF_HUB_OFFLINE is set"
    )
    files = ("config.json", "tokenizer.json", "tokenizer_config.json")
    if not reason:
        return {}
    if any(isinstance(try_to_load_from_cache(path, name, revision=revision), str) for name in files):
        return {"local_files_only": True}
    raise MeshError(
        f"{path} is not a folder here, and could not be fetched from {constants.ENDPOINT}: {reason}",
        where=where,
        instead="a folder made by save_pretrained, or a hub id that can be reached",
    )


@functools.cache
def _unreachable(path: str, revision: str | None, endpoint: str) -> str:
    """Why the hub does not answer, "" if it does: asked once and briefly, as libraries try for most of a minute."""
    from huggingface_hub import get_session, hf_hub_url

    try:
        get_session().head(hf_hub_url(path, "config.json", revision=revision, endpoint=endpoint), timeout=PATIENCE)
    except Exception as error:  # of whichever library sends it
        return said(error)
    return ""


def commit(path: str, revision: str | None = None) -> str | None:
    """The commit of a hub id as it is stored here; None for what is not. Nothing is fetched."""
    if not _HUB.fullmatch(path):
        return None
    try:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(path, "config.json", revision=revision)
    except (ImportError, ValueError):
        return None
    return Path(found).parent.name if isinstance(found, str) else None


def attention_exists(error: Exception, who: str) -> None:
    """Refuse, if that is what the error is about, a kind of attention that an architecture is not written for."""
    if "attn_implementation" in str(error):
        raise MeshError(
            f"{who} has no attention of this kind", where="model.hf.attention", instead="attention: eager"
        ) from None


def read_config(path: str, revision: str | None, trusted: bool, changes: dict[str, Any]) -> PreTrainedConfig:
    """The configuration of a folder or hub id, with changes laid over it; no weights are read."""
    from transformers import AutoConfig, PreTrainedConfig

    where = "model.hf.path"
    folder = local(path, where)
    if folder is not None and revision is not None:
        what = f"{path} is a folder here, which has one revision, so that this has no effect"
        raise MeshError(what, where="model.hf.revision", instead="leave it out, or path: a hub id")
    if folder is not None:
        small(folder, where)
    if folder is not None and not any((folder / name).is_file() for name in ("config.json", ADAPTER_CONFIG)):
        refers = (folder / REFERENCE).is_file()
        raise MeshError(
            f"{path} has no config.json" + (f": its {REFERENCE} says where the weights are" if refers else ""),
            where=where,
            instead="that folder" if refers else "a folder made by save_pretrained",
        )
    if folder is not None and (folder / ADAPTER_CONFIG).is_file():
        raise MeshError(
            f"{path} has an {ADAPTER_CONFIG}: it is an adapter of peft, to be read with another model",
            where=where,
            instead="the model with the adapter merged: PeftModel.from_pretrained(...).merge_and_unload(), and save it",
        )
    more: dict[str, Any] = reach(path, revision, where) | ({} if revision is None else {"revision": revision})
    few_parts(changes, "model.hf.config")
    with quiet(), fetched(path, where, "a config.json of a model that transformers knows"):
        if folder is None:
            small_on_hub(path, revision, where, bool(more.get("local_files_only")))
        few_parts(PreTrainedConfig.get_config_dict(path, **more)[0], where)
        config = AutoConfig.from_pretrained(path, trust_remote_code=trusted, **more)
    known_settings(config, changes)
    for name, value in changes.items():
        try:
            setattr(config, name, value)
        except Exception as error:  # each architecture checks in its own way
            raise MeshError(said(error), where=f"model.hf.config.{name}", instead="a value that it takes") from None
    return config


def make_config(settings: dict[str, Any], filled: dict[str, Any]) -> PreTrainedConfig:
    """A configuration of the architecture ``model_type``; a type or setting that it does not know is refused.

    ``filled``: what settings that were not given are, where the architecture has them.
    """
    from transformers import CONFIG_MAPPING

    kind = settings["model_type"]
    if kind not in CONFIG_MAPPING:
        raise MeshError(
            f"transformers knows no architecture {kind!r}",
            where="model.hf.config.model_type",
            instead=nearest(str(kind), CONFIG_MAPPING.keys(), "architectures"),
        )
    rest = {name: value for name, value in settings.items() if name != "model_type"}
    few_parts(rest, "model.hf.config")
    with quiet():
        usual = CONFIG_MAPPING[kind]()
        known_settings(usual, rest)
        try:
            return CONFIG_MAPPING[kind](**{name: v for name, v in filled.items() if hasattr(usual, name)} | rest)
        except Exception as error:  # each architecture checks in its own way
            raise MeshError(f"{kind}: {error}", where="model.hf.config", instead="settings that fit together") from None


def in_two_parts(path: str | None, revision: str | None, trusted: bool, changes: dict[str, Any]) -> bool:
    """Whether a model with these settings reads with one part and writes with another."""
    config = make_config(changes, {}) if path is None else read_config(path, revision, trusted, changes)
    return bool(config.is_encoder_decoder)


def few_parts(settings: dict[str, Any], where: str) -> None:
    """Refuse absurd numbers of layers, experts, labels ...: configurations make lists as long as these are high."""
    for name, value in settings.items():
        if isinstance(value, dict):
            if len(value) > MANY_NAMES:
                what = f"{name} has {len(value):,} entries"
                raise MeshError(what, where=f"{where}.{name}", instead=f"at most {MANY_NAMES:,}")
            few_parts(value, f"{where}.{name}")
        elif isinstance(value, int | float) and _PARTS.search(name) and value > MANY:
            raise MeshError(f"{name} is {value:,}", where=f"{where}.{name}", instead=f"at most {MANY:,}")


def known_settings(config: PreTrainedConfig, changes: dict[str, Any]) -> None:
    """Refuse a setting that this architecture lacks: transformers would take it and never look at it."""
    for name in changes:
        if not hasattr(config, name):
            known = [key for key in [*vars(config), *config.attribute_map] if not key.startswith("_")]
            raise MeshError(
                f"{config.model_type} has no setting {name!r}",
                where=f"model.hf.config.{name}",
                instead=nearest(name, known, "settings"),
            )


def folder_of(path: str, revision: str | None) -> Path | None:
    """The folder of files that a path or hub id was read from, None where it is not known."""
    from huggingface_hub import try_to_load_from_cache

    folder = local(path, "model.hf.path")
    if folder is not None:
        return folder
    found = try_to_load_from_cache(path, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def files_read(config: Mapping[str, Any]) -> list[Path] | None:
    """The files that a model with these settings is read from; None where these are not all that it is made from.

    That is so of a hub id, of code of its own, and of adapters.
    """
    if any(config.get(name) is not None for name in ("trust_remote_code", "lora", "prefix")):
        return None
    if (path := config.get("path")) is None:
        return []
    folder = Path(str(path)).expanduser()
    if not (folder / "config.json").is_file() or (folder / "adapter_config.json").exists():
        return None
    return [*sorted(file for file in folder.glob("*.json") if file.is_file()), *weight_files(folder)]


def check_weights(path: str) -> None:
    """Look through a local folder: safetensors, all of them, each with a whole header. A hub id is left to the hub."""
    where = "model.hf.path"
    folder = local(path, where)
    if folder is not None:
        for file in weight_files(folder):
            _check_file(file, where)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights. MeshError where it has none that are safetensors."""
    where = "model.hf.path"
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        try:
            names = set(json.loads(read(folder / INDEX, most=MOST))["weight_map"].values())
            return [inside(folder, name) for name in sorted(names)]
        except Exception as error:  # it may be any JSON, or none
            reason = f"{type(error).__name__}: {error.what if isinstance(error, MeshError) else error}"
            raise MeshError(f"{folder / INDEX} is damaged: {reason}", where=where, instead="a complete copy") from None
    pickled = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLED)
    found = f"only {', '.join(pickled)}, which can run code when they are read" if pickled else "none"
    raise MeshError(f"{folder} has no {WEIGHTS}: {found}", where=where, instead="weights saved as safetensors")


def _check_file(file: Path, where: str) -> None:
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise MeshError(f"{file} is missing", where=where, instead="a complete copy of the folder")
    try:
        with safe_open(file, "pt") as content:
            content.keys()
    except (SafetensorError, OSError) as error:
        raise MeshError(f"{file} is damaged: {error}", where=where, instead="a complete copy") from None


def licence_of(path: str) -> str | None:
    """The licence that a local folder's model card states, if it states one."""
    card = card_of(Path(path).expanduser())
    return card.licence or None if card is not None else None
