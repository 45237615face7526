"""How models of transformers are configured; imports none of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from kdmesh.offers import Config
from kdmesh.spec.names import BAD

MOST_PIXELS = 1 << 13
"""Of a side of an image."""


class BpeConfig(Config):
    """Byte-pair merges learned from the training texts; every text can be written in it."""

    vocabulary: int = Field(512, ge=260, description="tokens, of which 260 are bytes and special tokens")


class CharactersConfig(Config):
    """A token for each character of the training texts."""


class TokenizerConfig(Config):
    """A tokenizer that is made from the training texts: exactly one kind."""

    bpe: BpeConfig | None = Field(None, description="byte-level byte-pair encoding")
    characters: CharactersConfig | None = Field(None, description="one token per character")

    @model_validator(mode="before")
    @classmethod
    def _no_folder(cls, value: Any) -> Any:
        if isinstance(value, dict) and (folder := value.get("path")):
            raise ValueError(f"a tokenizer that there is stands by its folder or hub id alone: tokenizer: {folder}")
        return value

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.bpe is None) == (self.characters is None):
            raise ValueError("write one of bpe: {vocabulary: 512}, characters: {}")
        return self


class LoraSettings(Config):
    """Low-rank updates beside frozen layers."""

    rank: int = Field(8, ge=1, description="rank of the updates")
    alpha: float = Field(16.0, gt=0, description="updates are scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the update")
    targets: list[str] | Literal["all-linear"] | None = Field(
        None, description="names of the layers to update; by default those that peft knows for the architecture"
    )


class PrefixSettings(Config):
    """Trained keys and values that stand before every sample, beside a frozen model."""

    length: int = Field(10, ge=1, description="how many")


class BiEncoderSettings(Config):
    """One encoder embeds a query and its candidates, each alone; a score compares two embeddings."""

    pooling: Literal["mean", "cls"] = Field(
        "mean", description="what of a text's hidden states is its embedding: their mean, or the first token's"
    )
    similarity: Literal["dot", "cosine"] = Field("dot", description="what of two embeddings is the score")
    scale: float = Field(1.0, gt=0, allow_inf_nan=False, description="factor of the score; of cosines 10 and more")


Side = Annotated[int, Field(ge=1, le=MOST_PIXELS)]


class ProcessorSettings(Config):
    """What is done to an image of pixels 0 to 1 before the model sees it."""

    size: Side | tuple[Side, Side] | None = Field(
        None, description="height and width, or of the shorter side alone; by default images stay as large as they are"
    )
    resample: Literal["bilinear", "bicubic", "lanczos", "box"] = Field("bilinear", description="how they are resized")
    crop: tuple[Side, Side] | None = Field(None, description="height and width of the middle that is kept")
    mean: list[float] = Field([0.0], min_length=1, description="taken off, of each channel or of all")
    std: list[Annotated[float, Field(gt=0)]] = Field([1.0], min_length=1, description="what is then divided by")
    scale: float = Field(1.0, gt=0, description="factor of the pixels before that")


class HfConfig(Config):
    """A model of transformers."""

    path: str | None = Field(None, description="a folder made by save_pretrained, or a hub id; safetensors only")
    revision: str | None = Field(
        None, description="branch, tag or commit of a hub id (a folder has none); by default its main branch"
    )
    tokenizer: str | TokenizerConfig | None = Field(
        None, description="folder or hub id of the tokenizer, or how to make one; by default `path`"
    )
    processor: str | ProcessorSettings | None = Field(
        None, description="of images: the folder of a processor, or its settings; by default the one at `path`"
    )
    new_head: str | None = Field(
        None, description="layer that is not read from `path` but starts anew, for other labels: classifier"
    )
    pad_token: str | None = Field(
        None, description="token that fills up shorter texts, where the tokenizer names none; by default one it has"
    )
    config: dict[str, Any] = Field(
        {}, description="without `path` the architecture, {model_type: bert, hidden_size: 64}; with it, what to change"
    )
    layers: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, min_length=1, description="keep only these layers of `path`, in this order, with embeddings and head"
    )
    lora: LoraSettings | None = Field(None, description="train low-rank updates only; needs kdmesh[peft]")
    prefix: PrefixSettings | None = Field(None, description="train a prefix only; needs kdmesh[peft]")
    bi_encoder: BiEncoderSettings | None = Field(
        None, description="candidates to rank are scored by embeddings; without it, each is read with its query"
    )
    gradient_checkpointing: bool = Field(
        False, description="recompute in the backward pass instead of remembering; of weights that learn"
    )
    attention: Literal["sdpa", "eager"] = Field("sdpa", description="eager computes maps that `attention.i` can tap")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="type of the weights")
    trust_remote_code: str | None = Field(
        None, description="run the code that comes with `path`: only by its name, the same text as in `path`"
    )
    label_map: dict[str, str] = Field({}, description="label names of the checkpoint, and what the data calls them")
    max_length: int | None = Field(
        None, ge=2, description="tokens of a sample, fewer than the mesh's `text` allows; by default as many"
    )

    @field_validator("revision", "layers", "new_head", "trust_remote_code", "label_map")
    @classmethod
    def _of_a_path(cls, value: Any, info: ValidationInfo) -> Any:
        if value not in (None, {}) and info.data.get("path", "unread") is None:
            what = f"`{info.field_name}` is about the model at `path`, which is not given"
            raise PydanticCustomError(BAD, "{what}", {"what": what, "instead": "leave it out, or add path: FOLDER"})
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.path is None and "model_type" not in self.config:
            raise ValueError("write path: FOLDER or hub id, or config: {model_type: bert, ...}")
        if self.path is not None and "model_type" in self.config:
            raise ValueError("`path` says what the model is; leave out config.model_type")
        if self.new_head is not None and self.label_map:
            raise ValueError("a new head has the labels of the data: leave `label_map` out")
        if self.trust_remote_code not in (None, self.path):
            raise ValueError(
                f"code is run only where it is asked for by name: trust_remote_code: {self.path}, or leave it out"
            )
        if self.lora is not None and self.prefix is not None:
            raise ValueError("write `lora` or `prefix`, not both")
        if self.bi_encoder is not None and self.prefix is not None:
            raise ValueError("no prefix is tuned for embeddings: write `lora`, or train the whole model")
        if self.prefix is not None and self.gradient_checkpointing:
            raise ValueError("a prefix is a cache, which gradient_checkpointing does without; leave one of them out")
        return self
