"""Which options to try next, remembered by Optuna in one file, so that a sweep can go on where it was cut off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from fupruner.errors import InputError
from fupruner.sweeping.records import Method, Trial
from fupruner.sweeping.space import Range, Space, Value, combinations
from fupruner.training.seeds import mix

if TYPE_CHECKING:
    import optuna

TRIALS = 20
"""Trials of a search unless the user says how many."""
PATIENCE = 50
"""Proposals in a row that were all tried before, after which a search is over."""


@dataclass(frozen=True)
class Proposal:
    """Options to try, and the folder for the run."""

    number: int
    folder: str
    values: dict[str, Value]


@final
class Study:
    """The trials of a sweep: proposed, running, done.

    Args:
        file: where everything is remembered.
        space: what varies.
        method: ``grid`` tries every combination, ``search`` what looks promising for metric and speed at once (TPE).
        trials: of a search; a grid has as many as it has combinations.
        seed: of a search.

    Raises:
        InputError: Optuna is not installed, or the space does not suit the method.
    """

    def __init__(self, file: Path, space: Space, method: Method, trials: int | None, seed: int) -> None:
        self.optuna = _optuna()
        from optuna.storages import JournalStorage  # noqa: PLC0415 - optional
        from optuna.storages.journal import JournalFileBackend  # noqa: PLC0415 - optional

        grid = combinations(space) if method == "grid" else []
        if method == "grid" and trials is not None:
            raise InputError(f"A grid tries all of its {len(grid)} combinations.", hint="Leave trials out.")
        if trials is not None and trials < 1:
            raise InputError(f"A search of {trials} trials finds nothing; it needs at least one.")
        self.planned = len(grid) if method == "grid" else trials or TRIALS
        file.parent.mkdir(parents=True, exist_ok=True)
        self.study = self.optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(file))),
            study_name="sweep",
            directions=["maximize", "maximize"],
            load_if_exists=True,
        )
        # going on with the first seed would propose once more what was proposed before
        self.study.sampler = self.optuna.samplers.TPESampler(
            seed=mix(seed, len(self.study.trials)) % 2**32, n_startup_trials=max(2, min(10, self.planned // 3))
        )
        self.space = {name: self._distribution(values) for name, values in space.items()}
        self._asked: dict[int, optuna.Trial] = {}
        self._take_back()
        for values in grid:
            self.study.enqueue_trial(values, skip_if_exists=True)

    def ask(self) -> Proposal | None:
        """The next options to try, or None where all were tried, or as many as were planned."""
        if sum(1 for _ in self._real()) >= self.planned:
            return None
        tried = [trial.params for trial in self._real()]
        for _ in range(PATIENCE):
            trial = self.study.ask(self.space)
            if trial.params in tried and "folder" not in trial.user_attrs:
                self.study.tell(trial, state=self.optuna.trial.TrialState.FAIL)
                continue
            if "folder" not in trial.user_attrs:
                trial.set_user_attr("folder", f"trials/{len(self._folders()):03d}")
            self._asked[trial.number] = trial
            return Proposal(trial.number, trial.user_attrs["folder"], dict(trial.params))
        return None

    def tell(self, number: int, *, reason: str, worker: str, values: tuple[float, float] | None) -> None:
        """Remember what came of a trial: metric and speed-up, or the reason why there are none."""
        trial = self._asked.pop(number)
        trial.set_user_attr("reason", reason)
        trial.set_user_attr("worker", worker)
        if values is None:
            self.study.tell(trial, state=self.optuna.trial.TrialState.FAIL)
        else:
            self.study.tell(trial, list(values))

    def trials(self) -> list[Trial]:
        """Trials that are over, numbered by their folders, without the figures of their runs."""
        return [
            Trial(
                number=int(trial.user_attrs["folder"].rpartition("/")[2]), folder=trial.user_attrs["folder"], values=dict(trial.params),
                reason=trial.user_attrs["reason"], worker=trial.user_attrs["worker"],
            )
            for trial in self._real() if "reason" in trial.user_attrs
        ]  # fmt: skip

    def _real(self) -> Iterator[Any]:
        """Trials that ran or are running, in order: neither waiting, nor proposed twice, nor cut off."""
        running = self.optuna.trial.TrialState.RUNNING
        return (
            trial
            for trial in self.study.trials
            if "folder" in trial.user_attrs and ("reason" in trial.user_attrs or trial.state == running)
        )

    def _folders(self) -> set[str]:
        """Folders that are taken, also by trials that are to be run again."""
        return {trial.user_attrs["folder"] for trial in self.study.trials if "folder" in trial.user_attrs}

    def _take_back(self) -> None:
        """Propose once more, for the same folder, what was running when the process before this one ended."""
        state = self.optuna.trial.TrialState
        for trial in self.study.trials:
            if trial.state == state.RUNNING:
                self.study.tell(trial.number, state=state.FAIL)
                self.study.enqueue_trial(trial.params, user_attrs=trial.user_attrs)

    def _distribution(self, values: tuple[Value, ...] | Range) -> Any:
        made = self.optuna.distributions
        if not isinstance(values, Range):
            return made.CategoricalDistribution(list(values))
        if values.whole:
            return made.IntDistribution(int(values.low), int(values.high), log=values.log)
        return made.FloatDistribution(values.low, values.high, log=values.log)


def _optuna() -> Any:
    try:
        import optuna  # noqa: PLC0415 - optional
    except ImportError as error:
        raise InputError(
            f"A sweep needs Optuna, which cannot be imported: {error}.",
            hint="Install it: pip install 'fupruner[sweep]'",
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
