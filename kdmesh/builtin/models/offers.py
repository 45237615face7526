"""What the built-in models are called and how they are configured; imports none of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from kdmesh.offers import Config, ModelOffer
from kdmesh.text.api_settings import ApiConfig
from kdmesh.text.settings import HfConfig

Width = Annotated[int, Field(ge=1)]


class _Layers(Config):
    """Hidden layers, perhaps none."""

    hidden: list[Width] = Field([64], description="units of each hidden layer; [] is a linear model")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of hidden units silenced while training")
    activation: Literal["relu", "gelu", "tanh"] = Field("relu", description="non-linearity of the hidden layers")

    @model_validator(mode="after")
    def _of_hidden_layers(self) -> Self:
        for name in ("dropout", "activation") if not self.hidden else ():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` is of hidden layers, and `hidden` has none: leave it out")
        return self


class MlpConfig(_Layers):
    """Fully connected layers."""


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


class NamedModelConfig(Config):
    """A model that a library has under a name."""

    name: str = Field(min_length=1, description="what the library calls it: resnet18, mobilenet_v3_small ...")
    args: dict[str, Any] = Field(
        {}, description="its other arguments; classes and channels follow from the data, weights from `weights`"
    )


class CrossEncoderConfig(_Layers):
    """Fully connected layers that read a query and a candidate together."""


class BiEncoderConfig(_Layers):
    """Fully connected layers that embed queries and candidates, each alone and all alike."""

    embedding: int = Field(32, ge=1, description="values of an embedding")
    similarity: Literal["dot", "cosine"] = Field("dot", description="what of two embeddings is the score")
    scale: float = Field(1.0, gt=0, allow_inf_nan=False, description="factor of the score; of cosines 10 and more")


def _url_stays(value: object, path: ValidatorFunctionWrapHandler) -> object:
    """A URL as it is written: as a path it would lose a slash."""
    return value if isinstance(value, str) and "://" in value else path(value)


class StoredConfig(Config):
    """What the store has of an agent or a consensus, answering in a mesh as a frozen agent."""

    entry: str = Field(
        pattern="^[0-9a-f]{4,64}$", description="the first digits of an entry's name, as `kdmesh store ls` lists them"
    )
    round: int | None = Field(
        None, ge=1, description="of a history: as it stood after this round; by default after its last"
    )
    store: Annotated[Path | None, WrapValidator(_url_stays)] = Field(
        None, description="the store's folder or URL; by default the run's own store"
    )
    measured: str | None = Field(
        None,
        pattern="^[0-9a-f]{4,64}$",
        description="an entry of the same agent in forwards of another size, for what it is measured on; by default "
        "the one of the size in which agents are measured, where the store has it",
    )


class FileConfig(Config):
    """A file that another library made."""

    path: Path = Field(description="the file; a saved agent has its bytes in model.safetensors")


class SklearnConfig(FileConfig):
    """A file of skops; a pickle is never read."""

    trusted: list[str] = Field(
        [], description="types in it that you have reviewed, beside those of scikit-learn that kdmesh knows"
    )


class OnnxConfig(FileConfig):
    """A file of ONNX with one input of float32."""

    output: str | None = Field(None, description="the output that is meant, where there are several")
    gives: Literal["logits", "probabilities"] = Field("logits", description="what that is; of values: logits")


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
        "torchvision",
        "kdmesh.builtin.models.torchvision:build",
        NamedModelConfig,
        "a model of torchvision by name; for images of 3 channels",
    ),
    ModelOffer(
        "timm",
        "kdmesh.builtin.models.timm:build",
        NamedModelConfig,
        "a model of timm by name; for images of any number of channels",
        "Wightman 2019, PyTorch image models, github.com/huggingface/pytorch-image-models",
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
        "a model of transformers, by folder, hub id or configuration; for texts, and images to classify",
        "Wolf et al. 2020, Transformers: state-of-the-art natural language processing, arXiv 1910.03771",
        encoder="kdmesh.text.encoding:encoder",
        images="kdmesh.text.images:build",
        sizes="kdmesh.text.sizes:sizes",
        learning=("gradient_checkpointing",),
    ),
    ModelOffer(
        "api",
        "kdmesh.text.api:build",
        ApiConfig,
        "a model behind an OpenAI-compatible endpoint, as a labeller or a language model; for frozen agents",
        encoder="kdmesh.text.api:encoder",
        served=True,
    ),
    ModelOffer(
        "sklearn",
        "kdmesh.builtin.models.sklearn_file:SklearnFile",
        SklearnConfig,
        "a model of scikit-learn that skops saved, by its probabilities or values; for frozen agents",
        fixed=True,
    ),
    ModelOffer(
        "lightgbm",
        "kdmesh.builtin.models.lightgbm_file:LightgbmFile",
        FileConfig,
        "gradient boosting of LightGBM, in its own text form; for frozen agents",
        "Ke et al. 2017, LightGBM: A Highly Efficient Gradient Boosting Decision Tree, NeurIPS",
        fixed=True,
    ),
    ModelOffer(
        "onnx",
        "kdmesh.builtin.models.onnx_file:OnnxFile",
        OnnxConfig,
        "a model in the ONNX format, run by onnxruntime on the CPU; for frozen agents",
        fixed=True,
    ),
    ModelOffer(
        "stored",
        "kdmesh.builtin.models.stored:Stored",
        StoredConfig,
        "what the store has of an agent or a consensus, looked up; for frozen agents",
        lookup="kdmesh.builtin.models.stored:settle",
    ),
]
