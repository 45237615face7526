"""How a model behind an endpoint is asked, as a labeller of texts or as a language model; imports no transformers."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from kdmesh.endpoints.settings import EndpointConfig
from kdmesh.text.settings import TokenizerConfig

PROMPT = (
    "{{ text }}{% if pair %}\n\n{{ pair }}{% endif %}\n\n"
    "Which of these is it: {{ labels }}? Answer with one of these words alone."
)


class ApiConfig(EndpointConfig):
    """A model behind an OpenAI-compatible endpoint, as a frozen agent."""

    top: int = Field(
        20,
        ge=1,
        le=100_000,
        description="of a labeller: the likeliest first tokens whose log-probabilities are asked for",
    )
    prompt: str | None = Field(
        None, description="of a labeller: template of what it is asked, of {{ text }}, {{ pair }} and {{ labels }}"
    )
    words: dict[str, str] = Field(
        {}, description="of a labeller: the word that it answers with for each label; by default the label itself"
    )
    read: Literal["logprobs", "answers"] = Field(
        "logprobs",
        description="of a labeller: logprobs reads the first token's log-probabilities, answers counts written answers",
    )
    missing: Literal["bound", "refuse"] = Field(
        "bound",
        description="of a labeller, where no listed token begins a label: bound gives it the most that it can have, "
        "refuse ends the run",
    )
    draws: int | None = Field(
        None, ge=1, le=1000, description="of a labeller with read: answers: answers to each sample; by default 5"
    )
    together: bool = Field(True, description="several answers to a prompt are asked for in one request (`n`)")
    measured: bool = Field(True, description="it is asked about validation and test too, to compare students with it")
    scores: Literal["positions", "prompt_logprobs"] | None = Field(
        None,
        description="of a language model that teaches tokens: positions asks llama.cpp for the `top` tokens after each "
        "place of a text, a request each; prompt_logprobs vLLM for all places in one; by default it writes alone",
    )
    tokenizer: str | TokenizerConfig | None = Field(
        None, description="of a language model: the tokenizer of the agents that read its texts, as theirs is written"
    )
    max_length: int | None = Field(
        None, ge=2, description="of a language model: tokens of a sample, fewer than the mesh's `text` allows"
    )

    @model_validator(mode="after")
    def _reads(self) -> Self:
        if self.draws is not None and self.read != "answers":
            raise ValueError("write read: answers, or leave `draws` out: log-probabilities are asked for once")
        if (
            self.read == "answers"
            and {"top", "missing"} & self.model_fields_set
            and (self.top, self.missing)
            != (
                20,
                "bound",
            )
        ):
            raise ValueError("leave `top` and `missing` out: answers are counted, and no log-probabilities read")
        return self
