"""What Ollama is told of a model: where its file is, how a conversation becomes a text, where an answer ends.

Ollama's templates are Go's and those of tokenizers Jinja's. A template is written as the pieces that a tokenizer puts
around what is said, found by letting it write conversations; where these pieces do not give what it writes, it is
refused rather than guessed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from kdmesh.inference.trained import Trained

Turns = list[dict[str, str]]
SETTINGS = ("temperature", "top_p", "top_k", "repetition_penalty")
CALLED = {"repetition_penalty": "repeat_penalty"}  # by Ollama


@dataclass(frozen=True)
class Pieces:
    """What stands around turns: ``start`` before all where nobody set the system, ``opens`` an answer."""

    start: str
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    opens: str

    def text(self, turns: Turns) -> str:
        """A conversation as Ollama will write it, up to where the answer begins."""
        told = turns[0]["content"] if turns[0]["role"] == "system" else None
        text = self.start if told is None else f"{self.system[0]}{told}{self.system[1]}"
        for turn in turns[told is not None :]:
            before, after = self.user if turn["role"] == "user" else self.assistant
            text += f"{before}{turn['content']}{after}"
        return text + self.opens

    def go(self) -> str:
        """The same as a template of Go."""
        (s, s_), (u, u_), (a, a_) = self.system, self.user, self.assistant
        head = f"{{{{ if .System }}}}{s}{{{{ .System }}}}{s_}{{{{ else }}}}{self.start}{{{{ end }}}}"
        turns = (
            f'{{{{ range .Messages }}}}{{{{ if eq .Role "user" }}}}{u}{{{{ .Content }}}}{u_}'
            f'{{{{ else if eq .Role "assistant" }}}}{a}{{{{ .Content }}}}{a_}{{{{ end }}}}{{{{ end }}}}'
        )
        return f"{head}{turns}{self.opens}"


def modelfile(trained: Trained, file: str) -> str:
    """The Modelfile of a language model whose weights stand in ``file``."""
    tokenizer, net = trained.module.tokenizer, trained.module.model.net
    template = "{{ .Prompt }}" if tokenizer.chat_template is None else pieces_of(tokenizer).go()
    lines = [f"FROM {file}", f'TEMPLATE """{template}"""']
    told = net.generation_config
    ends = told.eos_token_id if isinstance(told.eos_token_id, list) else [told.eos_token_id]
    stops = [tokenizer.convert_ids_to_tokens(number) for number in ends if number is not None]
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops]
    lines.append(f"PARAMETER num_ctx {room_of(trained)}")
    for name in SETTINGS:
        if (value := getattr(told, name, None)) is not None:
            lines.append(f"PARAMETER {CALLED.get(name, name)} {value:g}")
    return "\n".join(lines) + "\n"


def room_of(trained: Trained) -> int:
    """How many tokens a conversation may have: the model's positions, or as many as it learned with."""
    room = getattr(trained.module.model.net.config.get_text_config(), "max_position_embeddings", None)
    return int(room or trained.module.encoder.max_length)


def pieces_of(tokenizer: Any) -> Pieces:
    """What a tokenizer puts around turns. MeshError where it does more than that."""
    begins = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    begin = tokenizer.bos_token if begins else ""  # what begins every text is no part of Ollama's template

    def told(turns: Turns, opens: bool = True) -> str:
        text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=opens)
        return text.removeprefix(begin)

    def turns(*said: str) -> Turns:
        roles = {"S": "system", "U": "user", "V": "user", "A": "assistant", "B": "assistant"}
        return [{"role": roles[one[0]], "content": one} for one in said]

    talks = [("Uone",), ("Sset", "Uone"), ("Uone", "Aone", "Vtwo"), ("Sset", "Uone", "Aone", "Vtwo", "Btwo", "Uend")]
    try:
        plain, alone = told(turns(*talks[0])), told(turns(*talks[0]), opens=False)
        opens = plain.removeprefix(alone)
        first, after = alone.split("Uone")
        between = told(turns(*talks[2]), opens=False).removeprefix(alone)
        before_answer, rest = between.split("Aone")
        middle, _ = rest.split("Vtwo")
        before = middle.removeprefix(after)  # turns mostly end alike
        before = before if before and first.endswith(before) else _shared_end(middle, first)
        head, of_system = told(turns(*talks[1]), opens=False).split("Uone")[0].split("Sset")
        system = head, of_system.removesuffix(before)
        made = Pieces(
            first.removesuffix(before), system, (before, after), (before_answer, middle.removesuffix(before)), opens
        )
        sound = all(made.text(turns(*talk)) == told(turns(*talk)) for talk in talks)
        pieces = [made.start, *made.system, *made.user, *made.assistant, made.opens]
        sound &= not any(odd in piece for piece in pieces for odd in ("{{", "}}", '"""'))
    except Exception:  # of whatever the template raises, or where a turn does not stand in the text once
        sound = False
    if not sound:
        what = "the tokenizer's chat template does more than putting pieces around turns"
        raise MeshError(what, where="--to", instead="--to gguf, and a Modelfile with a TEMPLATE of your own")
    return made


def _shared_end(one: str, other: str) -> str:
    """The longest text that both end with."""
    size = 0
    while size < min(len(one), len(other)) and one[-size - 1] == other[-size - 1]:
        size += 1
    return one[len(one) - size :]
