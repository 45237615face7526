"""The settings of the right plugins; no torch is imported here."""

from __future__ import annotations

from pydantic import Field

from kdmesh.offers import Config
from kdmesh.spec import MetricRef


class Temperature(Config):
    temperature: float = Field(2.0, gt=0, description="what logits are divided by")


class Others(Config):
    others: float = Field(2.0, ge=0, description="weight of the other classes")


class Std(Config):
    std: float = Field(0.5, ge=0, description="deviation of the noise")


class Sharpness(Config):
    sharpness: float = Field(1.0, ge=0, description="how much more say a certain source has")


class Weights(Config):
    weights: dict[str, float] = Field(description="the weight of each source by its name; 1 where none is given")


class K(Config):
    k: int = Field(2, ge=1, description="how many classes count")


class Spread(Config):
    spread: float = Field(0.5, ge=0, le=1, description="by how much a factor differs from 1")


class Share(Config):
    share: float = Field(0.3, ge=0, le=1, description="which part")


class Least(Config):
    least: float = Field(0.6, ge=0, le=1, description="from which confidence on")


class Factor(Config):
    factor: float = Field(1.3, gt=0, description="from which multiple of the mean on")


class Rows(Config):
    rows: int = Field(128, ge=1, description="how many samples there are")


class Width(Config):
    width: int = Field(8, ge=1, description="size of the hidden layer")


class Dropped(Config):
    width: int = Field(16, ge=1, description="size of the hidden layer")
    rate: float = Field(0.3, ge=0, lt=1, description="share that is dropped in training")


class Clouds(Config):
    samples: int = Field(48, ge=6, description="number of samples")
    seed: int = Field(0, ge=0, description="seed of the samples")


class Path(Config):
    path: str = Field(description="the file")


class Enough(Config):
    least: int = Field(1, ge=1, description="samples that every class must have")


class Ring(Config):
    agents: list[str] = Field(min_length=2, description="who learns from whom, in order")
    weight: float = Field(0.5, gt=0, le=1, description="share of the teacher in the loss")


class Council(Config):
    teachers: list[str] = Field(min_length=1, description="agents that teach")
    students: list[str] = Field(min_length=1, description="agents that learn")


class Scored(Config):
    metric: MetricRef = Field(description="what scores a text")
