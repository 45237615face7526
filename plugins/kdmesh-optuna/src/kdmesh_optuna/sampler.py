"""Tree-structured Parzen estimators of Optuna, asked and told, with a journal in the sweep's folder.

Bergstra, Bardenet, Bengio and Kégl, "Algorithms for Hyper-Parameter Optimization", 2011.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError
from kdmesh.samplers import Range, Sampler

try:
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
except ImportError as error:
    raise MeshError(
        f"there is no Optuna to ask ({error})", where="kdmesh-optuna", instead="pip install 'optuna>=5.0'"
    ) from None

if TYPE_CHECKING:
    from pathlib import Path

    from kdmesh.samplers import Axis, Point
    from optuna.distributions import BaseDistribution

NAME = "kdmesh"  # of the study
FAIL = optuna.trial.TrialState.FAIL
AGAIN = "again"  # attribute of a trial: the number of the failed one whose point it has, made again


class Optuna(Sampler):
    """Answers from its journal what it was asked before, and goes on from there."""

    def __init__(self, *, startup: int, **about: Any) -> None:
        super().__init__(**about)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.startup = startup
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "journal.log"
        _whole_lines(path)
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path), lock_obj=_Held(str(path)))),
            study_name=NAME,
            direction="maximize" if self.higher else "minimize",
            load_if_exists=True,
        )
        self._space = {axis.path: _distribution(axis) for axis in self.axes}
        self._numbers: list[int] = []  # of the trials in the study, in the order in which they were proposed
        self._again: set[int] = set()  # numbers of failed ones that were made again, and then had a figure
        for trial in self._study.trials:
            if AGAIN in trial.user_attrs:
                self._again.add(trial.user_attrs[AGAIN])
            elif trial.params.keys() == self._space.keys():
                self._numbers.append(trial.number)
            elif not trial.state.is_finished():  # killed as it was proposed
                self._study.tell(trial.number, state=FAIL)
        self._asked = self._told = 0

    def ask(self) -> Point:
        """The proposal of this number."""
        at = self._asked
        self._asked += 1
        if at < len(self._numbers):
            return self._point(self._study.get_trials(deepcopy=False)[self._numbers[at]].params)
        # a generator for each proposal: one that is resumed draws as one that was never interrupted
        self._study.sampler = optuna.samplers.TPESampler(n_startup_trials=self.startup, seed=self.seed + at)
        trial = self._study.ask(self._space)
        self._numbers.append(trial.number)
        return self._point(trial.params)

    def tell(self, point: Point, value: float | None) -> None:
        """Tell the next proposal's figure, unless the journal has it.

        A sweep that goes on makes again what failed. Optuna keeps a failed trial as it is: the figure that the point
        has then is told as another trial, with the attribute `AGAIN`.
        """
        number = self._numbers[self._told]
        self._told += 1
        before = self._study.get_trials(deepcopy=False)[number]
        if before.state == FAIL and value is not None and number not in self._again:
            self._again.add(number)
            kept = {"params": before.params, "distributions": before.distributions}
            self._study.add_trial(optuna.trial.create_trial(**kept, value=value, user_attrs={AGAIN: number}))
        if before.state.is_finished():
            return
        if value is None:
            self._study.tell(number, state=FAIL)
        else:
            self._study.tell(number, value)

    def _point(self, params: dict[str, Any]) -> Point:
        return {
            axis.path: params[axis.path] if isinstance(axis, Range) else json.loads(params[axis.path])
            for axis in self.axes
        }


class _Held(JournalFileOpenLock):
    """No lock: a sweep holds its folder, and a lock file would outlive a process that is killed."""

    def acquire(self) -> bool:
        """Held already."""
        return True

    def release(self) -> None:
        """Stays held."""


def _distribution(axis: Axis) -> BaseDistribution:
    """An axis in Optuna's terms; values are categories by their JSON, which may be of any kind."""
    if not isinstance(axis, Range):
        return CategoricalDistribution([json.dumps(value) for value in axis.values])
    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return FloatDistribution(float(axis.low), float(axis.high), log=axis.log)


def _whole_lines(path: Path) -> None:
    """Cut off a last line that a killed process did not write to its end: what comes next would stand in it."""
    if path.is_file() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        with path.open("rb+") as file:
            file.truncate(content.rfind(b"\n") + 1)
