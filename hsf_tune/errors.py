"""The exceptions that a user may meet, each one sentence to act on.

Every message says where, what was found, what was expected, and what to do.
The command line prints them without a traceback and exits with code 1; anything
else that reaches it is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class HsfTuneError(Exception):
    """Base of all errors that are about the user's input or surroundings."""


class ConfigError(HsfTuneError):
    """A configuration, search space or command line that can't be used as it is."""


class DataError(HsfTuneError):
    """Images, labels or splits that can't be used as they are."""


class ModelError(HsfTuneError):
    """A base model that can't be fetched, verified or loaded."""


class RunError(HsfTuneError):
    """A run's folder that is none, that can't be read, or that leads elsewhere."""


class SearchError(HsfTuneError):
    """A search that can't start, go on, or name a best strategy."""


class TrackingError(HsfTuneError):
    """A tracking server that can't be used as asked."""


class Diverged(HsfTuneError):
    """A loss that became NaN or infinite; the trial ends, the search goes on."""


def did_you_mean(word: str, valid: Iterable[object]) -> str:
    """' Did you mean X?' and the valid words, as the tail of an error message."""
    names = sorted(str(v) for v in valid)
    close = get_close_matches(word, names, n=1, cutoff=0.6)
    guess = f" Did you mean '{close[0]}'?" if close else ""
    return f"{guess} Valid: {', '.join(names)}."
