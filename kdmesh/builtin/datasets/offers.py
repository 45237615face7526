"""What the built-in data sets are called and how they are configured; imports none of them."""

from __future__ import annotations

from pydantic import Field

from kdmesh.offers import Config, DatasetOffer


class IdxConfig(Config):
    """Files as MNIST and Fashion-MNIST have them."""

    folder: str = Field(description="folder with train- and t10k- images and labels, plain or .gz")
    classes: int | None = Field(None, ge=1, description="number of classes; by default the largest label + 1")


class ArraysConfig(Config):
    """Arrays x and y; perhaps x_validation, y_validation, x_test, y_test."""

    path: str = Field(description=".npz or .safetensors file")
    classes: int | None = Field(None, ge=1, description="number of classes; by default the largest label + 1")


class RowsConfig(Config):
    """A file with one sample per row and named columns."""

    path: str = Field(description="the file, plain or .gz")
    label: str = Field("label", description="column with the label: a whole number from 0, or a class name")
    features: list[str] | None = Field(None, min_length=1, description="feature columns; by default all numeric ones")
    test_path: str | None = Field(None, description="file with the official test split, same columns")
    classes: int | None = Field(None, ge=1, description="number of classes; by default as many as path has")


DATASETS = [
    DatasetOffer(
        "digits",
        "kdmesh.builtin.datasets.digits:digits",
        summary="1,797 handwritten digits of 8x8 pixels, from scikit-learn",
        paper="Alpaydin & Kaynak, Cascading classifiers, Kybernetika 1998",
    ),
    DatasetOffer(
        "idx", "kdmesh.builtin.datasets.idx:idx", IdxConfig, "IDX image files as of MNIST, with their test split"
    ),
    DatasetOffer("arrays", "kdmesh.builtin.datasets.arrays:arrays", ArraysConfig, "arrays of .npz or .safetensors"),
    DatasetOffer("csv", "kdmesh.builtin.datasets.csv_file:csv_file", RowsConfig, "a CSV file with a header row"),
    DatasetOffer("jsonl", "kdmesh.builtin.datasets.jsonl_file:jsonl_file", RowsConfig, "JSON objects, one per line"),
]
