"""Language modelling: the next token of a text, or of an answer to a prompt.

Bengio, Ducharme, Vincent and Jauvin, "A Neural Probabilistic Language Model", 2003.
"""

from __future__ import annotations

from kdmesh.contracts.task import Task


class LanguageModelling(Task):
    """A unit is a token to predict: labels ``[units]`` int64, the tokens of the text in each model's own vocabulary.

    Accuracy and loss depend on how a model cuts texts into tokens; bits per character do not, so these are compared.
    """
