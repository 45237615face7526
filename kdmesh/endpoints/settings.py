"""How an endpoint is written in a mesh: where it is, whose key it wants, and what may be spent on it."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from kdmesh.offers import Config
from kdmesh.spec.names import BAD

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
KEY = re.compile(r"(?=.*[0-9])[A-Za-z0-9]{24,}")  # long, with digits and no underscore: rather a key than a name
OURS = ("model", "messages", "prompt", "n", "max_tokens", "temperature", "top_p", "seed", "stop", "logprobs",
        "top_logprobs", "stream")  # fmt: skip
"""Fields of a request that follow from the mesh."""
SECRETS = ("api_key", "apikey", "key", "authorization", "access_token", "auth_token", "token", "secret", "password")


def _refuse(what: str, instead: str) -> NoReturn:
    """Without the value, which may be a key that was put into the wrong place."""
    raise PydanticCustomError(BAD, "{what}", {"what": what, "instead": instead})


def _names(value: Any) -> Iterator[str]:
    """The names of all fields, at any depth."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield str(name)
            yield from _names(one)
    elif isinstance(value, list):
        for one in value:
            yield from _names(one)


class BudgetConfig(Config):
    """What may be sent to an endpoint and come back from it in one run, also where that is resumed."""

    requests: int | None = Field(None, ge=1, description="requests at most, repeated ones too; by default any number")
    tokens: int | None = Field(
        None, ge=1, description="tokens at most, of prompts and answers, as the server counts them; by default any"
    )


class EndpointConfig(Config):
    """An OpenAI-compatible endpoint."""

    base_url: str = Field(description="where it is, as http://127.0.0.1:8000/v1; https, or http on this machine alone")
    model: str = Field(min_length=1, description="the model's name there")
    key_env: str | None = Field(
        None, description="the environment variable that holds the key; the key itself stands in no file"
    )
    route: Literal["chat", "completions"] = Field(
        "chat", description="what is asked: /chat/completions with turns, or /completions with plain text"
    )
    system: str | None = Field(None, description="chat: what stands before the turns as the system's")
    concurrency: int = Field(4, ge=1, le=256, description="requests under way at a time")
    timeout: float = Field(60.0, gt=0, le=3600, description="seconds without a byte after which an answer is given up")
    retries: int = Field(5, ge=0, le=20, description="how often a request is repeated that was not answered well")
    longest_wait: float = Field(
        120.0, gt=0, le=3600, description="seconds between two tries at most; a server that asks for more is given up"
    )
    budget: BudgetConfig = Field(
        BudgetConfig(), description="what may be spent in a run: {requests: 500, tokens: 100000}"
    )
    extra: dict[str, Any] = Field({}, description="more fields of each request, as this server reads them: {top_k: 20}")
    sha256: str | None = Field(
        None,
        pattern="^[0-9a-f]{64}$",
        description="of the file that is served, where you know it: answers are kept by it",
    )
    terms: str | None = Field(
        None,
        min_length=1,
        description="the terms of service under which it answers, by name: openai services agreement",
    )
    insecure: bool = Field(
        False, description="true: plain http to another machine, where everybody between can read it"
    )

    @field_validator("base_url", "key_env", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        """Anything else is refused here, without being repeated."""
        if value is not None and not isinstance(value, str):
            _refuse("this is no text", "text: where the server is, or the name of the variable that holds the key")
        return value

    @field_validator("base_url")
    @classmethod
    def _plain(cls, value: str) -> str:
        found = urlsplit(value)
        if found.scheme not in ("http", "https") or not found.hostname:
            _refuse("this is no URL of a server", "http://127.0.0.1:8000/v1 or https://HOST/v1")
        if found.username is not None or found.password is not None or found.query or found.fragment:
            _refuse("this URL has a user, a password or a query", "the URL alone: `key_env` names what holds the key")
        return value.rstrip("/")

    @field_validator("key_env")
    @classmethod
    def _named(cls, value: str | None) -> str | None:
        if value is not None and (NAME.fullmatch(value) is None or KEY.fullmatch(value)):
            _refuse("this is no name of an environment variable", "OPENAI_API_KEY, say, and not the key itself")
        return value

    @field_validator("extra", mode="before")
    @classmethod
    def _others(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            _refuse("these are no fields by name", "fields of a request: {top_k: 20}")
        if keys := [name for name in _names(value) if name.lower().replace("-", "_") in SECRETS]:
            _refuse(
                f"{keys[0]!r} looks like a key, which would stand in the run's files", "key_env: the variable with it"
            )
        taken = [name for name in value if name in OURS]
        if taken:
            _refuse(f"leave {taken[0]!r} out: it follows from the mesh", "fields that only this server knows")
        return value

    @model_validator(mode="after")
    def _secure(self) -> Self:
        if urlsplit(self.base_url).scheme == "http" and not self.here and not self.insecure:
            _refuse(
                "everybody between could read what is sent there",
                "an https URL, or http://127.0.0.1; or insecure: true, which lets them",
            )
        if self.system is not None and self.route != "chat":
            _refuse("`system` has no effect on plain text", "route: chat, or no `system`")
        return self

    @property
    def here(self) -> bool:
        """Whether it is on this machine."""
        host = urlsplit(self.base_url).hostname or ""
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    @property
    def root(self) -> str:
        """The server itself."""
        found = urlsplit(self.base_url)
        return f"{found.scheme}://{found.netloc}"

    @property
    def path(self) -> str:
        """Where requests go, below the base URL."""
        return "chat/completions" if self.route == "chat" else "completions"
