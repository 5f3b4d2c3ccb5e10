"""Name the files of a run, and keep to its folder.

The only place that knows what the files are called, how the first lines of `config.yaml` are
laid out, and that a path which comes with a run lies inside its folder or is refused: a run
may be someone else's. What the files mean is for those who read and write them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from hsf_tune.errors import RunError
from hsf_tune.files import write_text
from hsf_tune.installed import typed

TRIAL_ID = re.compile(r"[A-Za-z0-9_-]+")  # also its folder's name
_COMMAND = "# command:"  # how the line of `config.yaml` begins that says what the user typed
_SHEETS = "contact-sheet-*.png"
_CHECKPOINTS, _EXPORTS = "checkpoints", "export"
_MARK, _ENDED = "trial.json", "ended.json"
_WAY_OUT = "The run needs it as it was written: bring it back from a copy."


class _File:
    """A path of a fixed name in a folder."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: RunFolder | TrialFolder, kind: object = None) -> Path:
        return folder.path / self.name


class TrialFolder:
    """What one trial writes; a run has many, each named by the trial's id."""

    mark = _File(_MARK)  # whose folder it is
    ended = _File(_ENDED)  # the event that ended the trial
    last = _File("last.ckpt")  # its whole state, while it runs
    best = _File("best.safetensors")  # weights of the best epoch
    final = _File("final.safetensors")  # and of the last
    predictions = _File("predictions.npz")
    curve = _File("learning_curve.png")
    overlay = _File("overlay.png")
    stop = _File("stop")  # by which the driver ends it; holds the reason
    strategy = _File("strategy.json")  # of an exported model: the key of its strategy

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def own(self) -> Iterator[Path]:
        """Every file that a trial may leave, whether it is there or not."""
        kept = (value for value in vars(TrialFolder).values() if isinstance(value, _File))
        return (self.path / file.name for file in kept)

    @property
    def weights(self) -> list[Path]:
        """All weights and states."""
        return [path for pattern in ("*.ckpt", "*.safetensors") for path in self.path.glob(pattern)]

    def in_run(self, path: Path) -> str:
        """A file of the trial as the records name it, relative to the run's folder."""
        return f"{_CHECKPOINTS}/{self.path.name}/{path.name}"

    def clear(self) -> None:
        """Remove what the trial wrote, and the folder if nothing else is in it."""
        for path in self.own:
            path.unlink(missing_ok=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()


class RunFolder:
    """The folder of a search or of a single finetuning, `outputs/NAME`."""

    config = _File("config.yaml")
    space = _File("space.yaml")
    dataset = _File("dataset.json")
    records = _File("trials.jsonl")
    study = _File("optuna.db")
    strategy = _File("best_strategy.yaml")
    scores_table = _File("scores.csv")
    trials_table = _File("trials.csv")
    report = _File("report.html")
    summary = _File("report.json")
    pictures = _File("figures")
    lock = _File(".lock")

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def is_run(self) -> bool:
        """Whether a search or a single finetuning was begun here."""
        return self.records.is_file()

    @property
    def runs_beside(self) -> str:
        """' Runs beside it: a, b.', as the tail of an error message; '' where there are none."""
        there = self.path.absolute().parent.glob(f"*/{self.records.name}")
        names = sorted(path.parent.name for path in there)
        return f" Runs beside it: {', '.join(names[-8:])}." if names else ""

    def inside(self, path: Path | str) -> Path:
        """A path that came with the run, relative to its folder.

        Raises:
            RunError: it leads out of the folder, by itself or through a link.
        """
        try:
            target = (self.path / path).resolve()
        except (ValueError, RuntimeError, OSError):  # no path at all; links in a circle
            target = None
        if target is None or not target.is_relative_to(self.path.resolve()):
            raise RunError(
                f"{self.path} holds the path {str(path)!r}, which leads out of that folder; it was"
                " neither read, changed nor sent. Expected paths inside the run's folder. Do you"
                " trust where the run comes from? A link to another disk is replaced by what it"
                " links to."
            )
        return self.path / path

    def trial(self, trial: str) -> TrialFolder:
        """Where a trial keeps its state, weights and figures.

        Raises:
            RunError: the id is none, or the place is outside of the run.
        """
        return self._trial(_CHECKPOINTS, trial)

    def export(self, trial: str) -> TrialFolder:
        """Likewise for the training on every subject."""
        return self._trial(_EXPORTS, trial)

    @property
    def exports(self) -> list[TrialFolder]:
        """Trainings on every subject that have ended."""
        ended = self.path.glob(f"{_EXPORTS}/*/{_ENDED}")
        return [TrialFolder(self.inside(p.relative_to(self.path)).parent) for p in ended]

    def is_export(self, weights: Path) -> bool:
        """Whether weights were trained on every subject."""
        return weights.parent.parent == self.path / _EXPORTS

    @property
    def to_show(self) -> list[Path]:
        """What a tracking server keeps of the run beside its trials, as far as it is there."""
        listed = [
            self.config, self.space, self.dataset, self.strategy, self.report, self.summary,
            self.scores_table, self.trials_table,
        ]  # fmt: skip
        there = [path for path in listed if path.exists()] + sorted(self.path.glob(_SHEETS))
        return [self.inside(path.name) for path in there]

    def sheet(self, dataset: str) -> Path:
        """The contact sheet of a dataset, or of a page of it."""
        return self.path / _SHEETS.replace("*", dataset)

    def claim(self, *others: Path) -> None:
        """Make the folder a new run's, and remove what one left that never recorded a trial.

        From here on it is a run, as its records are there: what has a run's names is its own.

        Args:
            others: files of the run that lie elsewhere.

        Raises:
            RunError: it is no run, and holds files under the names of a run's: somebody's own.
        """
        if self.is_run:
            for mark in self.path.glob(f"{_CHECKPOINTS}/*/{_MARK}"):
                if TRIAL_ID.fullmatch(mark.parent.name):
                    self.trial(mark.parent.name).clear()
        else:
            self._require_free(*others)
        write_text(self.records, "")

    def _require_free(self, *others: Path) -> None:
        names = {file.name for file in vars(RunFolder).values() if isinstance(file, _File)}
        own = [self.path / name for name in names - {self.lock.name} | {_CHECKPOINTS, _EXPORTS}]
        there = sorted(str(path) for path in (*own, *others) if os.path.lexists(path))
        if there:
            raise RunError(
                f"{self.path} is no run, but a run would replace {', '.join(there)}; nothing was"
                " changed. Choose another --name or --output, or move that away."
            )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Files of the run are written here, which a full disk prevents.

        Raises:
            RunError: in place of an OSError; what to do.
        """
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{error.filename or self.path} can't be written ({error.strerror or error})."
                " What was recorded is safe. Make room or bring the folder back, then go on with"
                f" --resume {self.name}; the report alone is written by"
                f" {typed('report', str(self.path))}."
            ) from error

    # Formats

    def write_config(self, plain: Mapping[str, Any], command: str) -> None:
        head = f"# The configuration of this run, resolved.\n{_COMMAND} {command}\n"
        write_text(self.config, head + _yaml(plain))

    def write_space(self, plain: Mapping[str, Any]) -> None:
        write_text(self.space, _yaml(plain))

    def write_dataset(self, plain: Mapping[str, Any]) -> None:
        write_text(self.dataset, json.dumps(plain, indent=1))

    def read_config(self) -> dict[str, Any]:
        """The resolved configuration, unchecked.

        Raises:
            RunError: the file is not there or holds none.
        """
        return _mapping(self.config, yaml.safe_load)

    def read_space(self) -> dict[str, Any]:
        """The search space; {} where there is none, as of a single finetuning."""
        return _mapping(self.space, yaml.safe_load) if self.space.exists() else {}

    def read_dataset(self) -> dict[str, Any]:
        """Cases, fingerprints and splits; {} where they were not written."""
        return _mapping(self.dataset, json.loads) if self.dataset.exists() else {}

    def read_summary(self) -> dict[str, Any]:
        """What the report says, as data; {} while there is none."""
        return _mapping(self.summary, json.loads) if self.summary.exists() else {}

    def read_command(self) -> str:
        """What the user typed to begin the run; '' where it was not written down."""
        lines = _text(self.config).splitlines()
        command = next((line for line in lines if line.startswith(_COMMAND)), "")
        return command.removeprefix(_COMMAND).strip()

    def _trial(self, where: str, trial: str) -> TrialFolder:
        if not TRIAL_ID.fullmatch(trial):
            raise RunError(
                f"{self.path}: {trial!r} can't be the id of a trial; expected letters, digits, '_'"
                " and '-'."
            )
        return TrialFolder(self.inside(os.path.join(where, trial)))


def _yaml(plain: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(plain), sort_keys=False, allow_unicode=True)


def _mapping(path: Path, parse: Any) -> dict[str, Any]:
    try:
        plain = parse(_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RunError(f"{path} can't be read: {error}. {_WAY_OUT}") from None
    if not isinstance(plain, dict) or not plain:
        raise RunError(f"{path} holds {_kind(plain)}, expected keys with values. {_WAY_OUT}")
    return plain


def _kind(plain: Any) -> str:
    return "nothing" if plain is None or plain == {} else f"a {type(plain).__name__}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RunError(f"{path} is no text ({error}). {_WAY_OUT}") from None
    except OSError as error:
        raise RunError(f"{path} can't be read ({error.strerror}). {_WAY_OUT}") from error
