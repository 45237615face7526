"""What the built-in models are called and how they are configured; imports none of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from kdmesh.offers import Config, ModelOffer

Width = Annotated[int, Field(ge=1)]


class MlpConfig(Config):
    """Fully connected layers."""

    hidden: list[Width] = Field([64], description="units of each hidden layer; [] is a linear classifier")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of hidden units silenced while training")
    activation: Literal["relu", "gelu", "tanh"] = Field("relu", description="non-linearity of the hidden layers")


class CnnConfig(Config):
    """Convolution, ReLU and pooling, then a linear head."""

    width: int = Field(16, ge=1, description="channels of the first layer; each next one has twice as many")
    depth: int = Field(2, ge=1, description="number of layers; each halves height and width")


class ResnetConfig(Config):
    """A residual network of 6 * blocks + 2 layers."""

    width: int = Field(16, ge=1, description="channels of the first stage; the next have twice and four times as many")
    blocks: int = Field(1, ge=1, description="residual blocks per stage, of three stages")


class VitConfig(Config):
    """A vision transformer."""

    patch: int = Field(4, ge=1, description="side of a patch in pixels; divides height and width")
    dim: int = Field(64, ge=1, description="size of a token; a multiple of heads")
    depth: int = Field(2, ge=1, description="transformer layers")
    heads: int = Field(4, ge=1, description="attention heads per layer")


class EncoderConfig(Config):
    """Settings of models of a query and its candidates."""

    hidden: list[Width] = Field([64], description="units of each hidden layer")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of hidden units silenced while training")
    activation: Literal["relu", "gelu", "tanh"] = Field("relu", description="non-linearity of the hidden layers")


class CrossEncoderConfig(EncoderConfig):
    """Fully connected layers that read a query and a candidate together."""


class BiEncoderConfig(EncoderConfig):
    """Fully connected layers that embed queries and candidates, each alone and all alike."""

    embedding: int = Field(32, ge=1, description="values of an embedding")
    similarity: Literal["dot", "cosine"] = Field("dot", description="what of two embeddings is the score")
    scale: float = Field(1.0, gt=0, allow_inf_nan=False, description="factor of the score; of cosines 10 and more")


class BpeConfig(Config):
    """Byte-pair merges learned from the training texts; every text can be written in it."""

    vocabulary: int = Field(512, ge=260, description="tokens, of which 260 are bytes and special tokens")


class CharactersConfig(Config):
    """A token for each character of the training texts."""


class TokenizerConfig(Config):
    """A tokenizer that is made from the training texts: exactly one kind."""

    bpe: BpeConfig | None = Field(None, description="byte-level byte-pair encoding")
    characters: CharactersConfig | None = Field(None, description="one token per character")

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


class HfConfig(Config):
    """A model of transformers."""

    path: str | None = Field(None, description="a folder made by save_pretrained, or a hub id; safetensors only")
    revision: str | None = Field(None, description="branch, tag or commit of a hub id; by default its main branch")
    tokenizer: str | TokenizerConfig | None = Field(
        None, description="folder or hub id of the tokenizer, or how to make one; by default `path`"
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
    gradient_checkpointing: bool = Field(False, description="recompute in the backward pass instead of remembering")
    attention: Literal["sdpa", "eager"] = Field("sdpa", description="eager computes maps that `attention.i` can tap")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="type of the weights")
    trust_remote_code: str | None = Field(
        None, description="run the code that comes with `path`: only by its name, the same text as in `path`"
    )
    label_map: dict[str, str] = Field({}, description="label names of the checkpoint, and what the data calls them")
    max_length: int | None = Field(None, ge=2, description="tokens of a sample; by default as the mesh's `text`")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.path is None and "model_type" not in self.config:
            raise ValueError("write path: FOLDER or hub id, or config: {model_type: bert, ...}")
        if self.path is not None and "model_type" in self.config:
            raise ValueError("`path` says what the model is; leave out config.model_type")
        if self.path is None:
            given = [name for name in ("revision", "layers", "trust_remote_code") if getattr(self, name) is not None]
            if given:
                raise ValueError(f"`{given[0]}` is about the model at `path`, which is not given")
            if self.tokenizer is None:
                raise ValueError("a model made from `config` needs `tokenizer`: FOLDER, or {bpe: {vocabulary: 512}}")
        if self.trust_remote_code not in (None, self.path):
            raise ValueError(
                f"code is run only where it is asked for by name: trust_remote_code: {self.path}, or leave it out"
            )
        if self.lora is not None and self.prefix is not None:
            raise ValueError("write `lora` or `prefix`, not both")
        if self.prefix is not None and self.gradient_checkpointing:
            raise ValueError("a prefix is a cache, which gradient_checkpointing does without; leave one of them out")
        return self


MODELS = [
    ModelOffer("mlp", "kdmesh.builtin.models.mlp:MLP", MlpConfig, "fully connected layers, for vectors and images"),
    ModelOffer("cnn", "kdmesh.builtin.models.cnn:CNN", CnnConfig, "convolution, ReLU, pooling; for images"),
    ModelOffer(
        "resnet",
        "kdmesh.builtin.models.resnet:ResNet",
        ResnetConfig,
        "small residual network with batch norm; for images",
        "He et al. 2016, Deep residual learning for image recognition, arXiv 1512.03385",
    ),
    ModelOffer(
        "vit",
        "kdmesh.builtin.models.vit:ViT",
        VitConfig,
        "small vision transformer; for images",
        "Dosovitskiy et al. 2021, An image is worth 16x16 words, arXiv 2010.11929",
    ),
    ModelOffer(
        "cross_encoder",
        "kdmesh.builtin.models.cross_encoder:CrossEncoder",
        CrossEncoderConfig,
        "a score of each candidate, read together with its query; for lists of vectors",
        "Nogueira and Cho 2019, Passage re-ranking with BERT, arXiv 1901.04085",
    ),
    ModelOffer(
        "bi_encoder",
        "kdmesh.builtin.models.bi_encoder:BiEncoder",
        BiEncoderConfig,
        "a score of each candidate, from embeddings of it and of its query; for lists of vectors",
        "Reimers and Gurevych 2019, Sentence-BERT, arXiv 1908.10084",
    ),
    ModelOffer(
        "hf",
        "kdmesh.text.build:build",
        HfConfig,
        "a model of transformers, by folder, hub id or configuration; for text",
        "Wolf et al. 2020, Transformers: state-of-the-art natural language processing, arXiv 1910.03771",
        encoder="kdmesh.text.encoding:encoder",
        sizes="kdmesh.text.sizes:sizes",
    ),
]
