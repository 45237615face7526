"""A trained agent out of its folder, with what the run knew about its samples and answers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from kdmesh.errors import FAULTS, MeshError, text_of
from kdmesh.hosts import loading, ragged
from kdmesh.hosts.modules import output
from kdmesh.hosts.precision import cast
from kdmesh.hosts.scaled import Scaling
from kdmesh.plugins import registry
from kdmesh.signals.lazy import Lazy, dense, joined
from kdmesh.store.key import MEASURED
from kdmesh.streams.prepared import Prepared
from kdmesh.streams.texts import Sample, Texts
from kdmesh.streams.tokens import Encoded
from kdmesh.streams.unread import Unread
from kdmesh.tables.candidates import Candidates
from kdmesh.tables.samples import Columns
from kdmesh.text.heads import LISTS

ROLES = (*(one.name for one in fields(Columns)), *Candidates._fields)
"""What a column may be to samples of texts."""

Samples = Tensor | Unread | Encoded
"""What an agent is asked about."""
Told = Callable[[int], None]
"""What is told how many samples are done."""


def unheard(done: int) -> None:
    """Nobody looks."""


if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kdmesh.contracts.task import Task
    from kdmesh.hosts.loading import Config
    from kdmesh.offers import TaskOffer
    from kdmesh.personal.treatment import Treatment


@dataclass
class Trained:
    """A module in eval mode, and how it is used: ``config`` is what its folder says, ``root`` the folder."""

    root: Path
    module: Any
    config: Config
    continues: ClassVar[bool] = True  # whether it can go on from a text token by token, if it writes

    @classmethod
    def read(cls, folder: str | Path, *, code: bool = True, device: str = "cpu") -> Trained:
        """Of an agent's folder. MeshError where it is damaged, or no agent that answers samples by itself."""
        root = Path(folder)
        if (root / "consensus").is_dir() or (root / "agents").is_dir():
            names = sorted(one.name for one in (root / "agents").glob("*"))
            instead = " or ".join(f"{root / 'agents' / name}" for name in names[:4]) or loading.AGENT
            raise MeshError("this is a run, of several agents", file=str(root), instead=instead)
        config = loading.described(root)
        if config.sees:
            what = f"{config.agent} sees what {config.sees} says of a sample, and no sample by itself"
            raise MeshError(what, file=str(root), instead="an agent that sees samples")
        module = loading.load(root, code)
        instead = "cpu, cuda, cuda:N or mps, whichever this machine has"
        try:
            place = torch.device(device)
            if place.type == "meta":
                raise MeshError("meta computes nothing", where="--device", instead=instead)
            return cls(root, module.to(place), config)
        except (RuntimeError, AssertionError, ImportError) as error:  # none that is here, or that torch was built for
            raise MeshError(text_of(error), where="--device", instead=instead) from None

    @cached_property
    def offer(self) -> TaskOffer:
        """What the task's offer says of labels and answers."""
        found: TaskOffer = registry().find("tasks", self.config.task, "task")
        return found

    @cached_property
    def task(self) -> Task:
        """The task with the settings of the run."""
        made: Task = self.offer.make(self.config.task_settings)
        return made

    @cached_property
    def personal(self) -> Treatment | None:
        """What was done about personal data in the texts that it learned from; None: nothing."""
        if self.config.personal is None:
            return None
        from kdmesh.text.recognised import treatment

        return treatment(self.config.personal, "personal")

    @property
    def is_text(self) -> bool:
        """Whether it reads texts."""
        return hasattr(self.module, "encoder")

    @property
    def writes(self) -> bool:
        """Whether its answer to a sample is a text."""
        return self.offer.source == "tokens"

    @property
    def tags(self) -> bool:
        """Whether it tags the words of a text."""
        return self.offer.source == "spans"

    @property
    def ranks(self) -> bool:
        """Whether it puts the candidates of a query in order."""
        return self.offer.labels == "relevance"

    @property
    def reads(self) -> dict[str, Any]:
        """The columns of texts that it reads, by what they are; of samples from Python the names of their fields."""
        found = {role: column for role, column in self.config.reads.items() if role in ROLES}
        for role, column in found.items():
            if not isinstance(column, str):
                what = f"its folder is damaged: found {str(column)[:40]}"
                raise MeshError(what, file=str(self.root), where=f"reads.{role}", instead="a complete copy of it")
        if found or not self.is_text:
            return found
        own = ("query", "candidates", "relevance") if self.ranks else ("text", *(["spans"] if self.tags else []))
        return {role: role for role in own}

    @property
    def names(self) -> list[str]:
        """What each column of its answers is called: the class, the value, the label."""
        found, numbers = self.config.labels or [], self.config.class_numbers
        count = self.config.classes
        wrong = {
            "class_numbers": numbers is not None and len(numbers) != count,
            "labels": len({*found}) < len(found) or len(found) > count,
        }
        for where in (name for name, bad in wrong.items() if bad):
            what = f"its folder is damaged: found {str(getattr(self.config, where))[:40]} for {count} outputs"
            raise MeshError(what, file=str(self.root), where=where, instead="a complete copy of it")
        every = [str(number) for number in numbers or range(count)]
        return [*found, *every[len(found) :]]  # data may name fewer classes than they say that there are

    @cached_property
    def prepared(self) -> Prepared | None:
        """How samples are prepared before the module sees them; None where it sees them as they are."""
        return Prepared.read(self.root)

    @property
    def given_shape(self) -> torch.Size:
        """The shape of a sample as a user has it: before it is prepared, if it is."""
        return torch.Size(self.config.input_shape if self.prepared is None else self.prepared.shape)

    def as_seen(self, x: Tensor, where: str) -> Tensor:
        """Samples ``[N, ...]`` of the source, as the module sees them. MeshError for what cannot be prepared."""
        if self.prepared is None:
            return x
        if self.divided_by is not None:
            x = Scaling(self.divided_by).scaled(x)
        return self.prepared.of_values(x.float(), where)

    @property
    def divided_by(self) -> float | None:
        """By what the run divided the values of the source; None: by nothing."""
        return None if self.config.scale is None else self.config.scale["divided_by"]

    def told(self, text: str, at: str) -> Sample:
        """A text alone as a sample: what is read, or the prompt that is answered. ``at``: where it stands."""
        if self.writes:
            return Sample(prompt=text, at=at)
        return Sample(text, spans=() if self.tags else None, at=at)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next((one.device for one in self.module.parameters()), torch.device("cpu"))

    def scores(self, x: Samples, told: Told = unheard, rows: int = MEASURED) -> Tensor | Lazy:
        """Its logits or values ``[N, C]`` on the CPU, for samples ``[N, ...]`` or texts as it reads them.

        Where it answers for units of a text, words or tokens, each has a row; a language model's rows are made when
        they are asked for. Samples are forwarded as the run forwarded those that it measured: numbers in batches of one
        fixed size, of which the last is filled up, texts each in a shape that depends on its own length alone. So the
        same samples have the same answers, whatever stands beside them. ``told`` is called with the number of samples
        that are done; ``rows``: of the batches of texts.
        """
        parts: list[Tensor | Lazy] = []
        with self.settled():
            for start in range(0, len(x), MEASURED):
                stop = min(start + MEASURED, len(x))
                if isinstance(x, Encoded):
                    parts.append(self._texts(x.select(torch.arange(start, stop)), rows))
                elif isinstance(x, Unread):
                    parts.append(self._numbers(self.as_seen(x[start:stop], "images")))
                else:
                    parts.append(self._numbers(x[start:stop]))
                told(stop)
            return joined(parts) if parts else torch.zeros(0, self.config.classes)

    def tokens(self, texts: Sequence[Sample], cut: list[int] | None = None, pairs: bool = False) -> Encoded:
        """Texts as it reads them. To ``cut`` are added the numbers of those of which it reads the beginning alone.

        ``pairs``: both answers of each. MeshError for a text that it cannot read.
        """
        encoder = self.module.encoder
        if not texts:
            return Encoded.of([], encoder.pad)
        try:
            encoded, report = encoder.encode(Texts(texts), pairs)
        except MeshError as error:
            raise MeshError(error.what, file=str(self.root), instead=error.instead) from None
        for _, why in sorted(report.unreadable.items()):
            raise MeshError(why, file=str(self.root), instead="a text that has a token")
        if encoder.head in LISTS:
            self.module.model.classes = max(self.config.classes, *(len(one.candidates or ()) for one in texts))
        if cut is not None:
            cut += report.truncated
        found: Encoded = encoded
        return found

    def _numbers(self, part: Tensor) -> Tensor:
        rows = part.to(self.device)
        if (short := MEASURED - len(rows)) > 0:
            rows = torch.cat([rows, rows[-1:].expand(short, *rows.shape[1:])])
        return self._sound(self._asked(rows), MEASURED)[: len(part)]

    def _texts(self, part: Encoded, rows: int) -> Tensor | Lazy:
        asked = _Asked(self)
        made, _ = ragged.inference(asked, part.to(self.device), rows, ())
        if isinstance(made, Lazy):
            return made
        return self._sound(made, len(part) if asked.per("") == "samples" else int(part.counts.sum()))

    def _asked(self, x: Any) -> Tensor:
        try:
            return dense(output(self.module(x)))
        except FAULTS as error:
            raise MeshError(
                f"{self.config.agent} cannot answer these samples: {text_of(error)}",
                file=str(self.root),
                instead="samples as those that it learned from",
            ) from error

    def _sound(self, scores: Tensor, rows: int) -> Tensor:
        if scores.dim() != 2 or len(scores) != rows:
            what = f"{self.config.agent} gives {list(scores.shape)} for {rows} samples"
            raise MeshError(what, file=str(self.root), instead="a model that gives a row for each sample")
        return scores.float().cpu()

    def fits(self, shape: torch.Size) -> bool:
        """Whether samples ``[N, ...]`` of this shape are its own; of lists any number of candidates is."""
        own = self.given_shape
        if self.ranks:
            return len(shape) == len(own) + 1 and shape[2:] == own[1:] and shape[1] > 1
        return shape[1:] == own

    @property
    def wanted(self) -> str:
        """The shape of its samples, in words."""
        own = [str(size) for size in self.given_shape]
        return f"[N, {', '.join(['1 + candidates', *own[1:]] if self.ranks else own)}]"

    def settled(self) -> Settled:
        """In what stands whatever asks the module."""
        return Settled(self.module, self.device, self.config.precision, self.config.threads)


class _Asked:
    """A module as texts are forwarded through one: see :class:`kdmesh.hosts.ragged.Forwards`."""

    weights = None

    def __init__(self, trained: Trained) -> None:
        self.module: Any = trained.module.model
        self._trained = trained

    def forward(self, x: Any, names: tuple[str, ...] = ()) -> Any:
        """The logits alone."""
        return output(self.module(x)), {}

    def per(self, name: str) -> str:
        """What a logit's row is of."""
        return str(self.module.rows(""))


class Settled:
    """Eval mode without gradient, in the precision and with the threads of the run, and all as it was afterwards."""

    def __init__(self, module: nn.Module, device: torch.device, precision: str, threads: int) -> None:
        self._module, self._threads = module, threads
        self._cast = cast(device.type, precision)
        self._still = torch.no_grad()

    def __enter__(self) -> None:
        self._modes = [(part, part.training) for part in self._module.modules()]
        self._counted = threads(self._threads)
        self._counted.__enter__()
        self._module.eval()
        self._still.__enter__()
        self._cast.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._cast.__exit__(*error)
        self._still.__exit__(*error)
        self._counted.__exit__(*error)
        for part, mode in self._modes:
            part.training = mode


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many torch threads, for this while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
