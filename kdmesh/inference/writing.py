"""What a trained language model answers to prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.inference.truth import kept_of
from kdmesh.spec import SamplingSpec
from kdmesh.streams.table import Table
from kdmesh.streams.texts import Texts
from kdmesh.text.generate import generate, refuse_writer
from kdmesh.text.prompts import Asking
from kdmesh.text.spoken import Spoken

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kdmesh.contracts.filter import WrittenText
    from kdmesh.inference.inputs import Inputs
    from kdmesh.inference.trained import Trained
    from kdmesh.streams.texts import Sample

ROWS = 8  # prompts that are written on together


def write_texts(trained: Trained, prompts: Sequence[Sample], most: int, told: Callable[[int], None]) -> list[str]:
    """Greedy answers of at most ``most`` tokens, in the order of the prompts.

    Prompts of like length are written on together, which changes an answer by rounding alone.
    """
    module, encoder, who = trained.module.model, trained.module.encoder, trained.config.agent
    refuse_writer(module, str(trained.root))
    table = Table(Texts(prompts), None, 0)
    asking = Asking(encoder, table, None, who)
    for number, prompt in enumerate(prompts):
        if (length := len(asking(number))) + most > encoder.max_length:
            room = encoder.max_length - length
            what = f"a prompt of {length} tokens, which with {most} new ones are more than the {encoder.max_length}"
            instead = f"--tokens {room} (in Python most={room})" if room > 0 else "a shorter prompt"
            raise MeshError(f"{prompt.at}: {what} that {who} reads", where="--tokens", instead=instead)
    how = SamplingSpec(max_new_tokens=most, greedy=True)
    spoken = Spoken(encoder, table, 0, how, True, None)
    order = sorted(range(len(prompts)), key=lambda at: -len(asking(at)))
    found = [""] * len(prompts)
    with trained.settled():
        for start in range(0, len(order), ROWS):
            at = order[start : start + ROWS]
            answers = generate(module, [asking(one) for one in at], how, ends=spoken.ends, pad=encoder.pad, rows=ROWS)
            for one, ids in zip(at, answers, strict=True):
                found[one] = spoken(one, 0, ids).text
            told(min(start + ROWS, len(order)))
    return found


def measured_texts(trained: Trained, inputs: Inputs, told: Callable[[int], None]) -> list[WrittenText]:
    """What is written to the prompts of a labelled file as its run wrote what it measured: greedily, so many at once.

    Of a file that was a split of the run these are its own texts, to the last token.
    """
    module, encoder, how = trained.module.model, trained.module.encoder, trained.config.writes
    assert how is not None and isinstance(inputs.x, list)
    refuse_writer(module, str(trained.root))
    table = Table(Texts(inputs.x), None, 0, columns=kept_of(inputs, {*inputs.read}))
    asking = Asking(encoder, table, None, trained.config.agent)
    spoken = Spoken(encoder, table, 0, how.decoding, True, how.reasoning)
    prompts = [asking(row) for row in range(len(inputs.x))]
    with trained.settled():
        answers = generate(
            module,
            prompts,
            how.decoding,
            ends=spoken.ends,
            pad=encoder.pad,
            rows=how.rows,
            decode=lambda ids: str(encoder.tokenizer.decode(ids)),
        )
    told(len(inputs.x))
    return [spoken(row, 0, answer) for row, answer in enumerate(answers)]
