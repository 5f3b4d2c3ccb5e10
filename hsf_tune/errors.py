"""The exceptions that a user may meet, each one sentence to act on.

Every message says where, what was found, what was expected, and what to do.
The command line prints them without a traceback and exits with code 1; anything
else that reaches it is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class HsfTuneError(Exception):
    """Base of all errors that are about the user's input or surroundings."""

    def __str__(self) -> str:
        return printable(super().__str__())


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


def printable(text: str) -> str:
    """A text with what steers a terminal, or is no text, made visible: `\\x1b` for escape.

    Bytes of a name that are not UTF-8 (surrogates, in Python) become `\\xff`.
    """
    return _UNPRINTABLE.sub(lambda hit: _visible(ord(hit[0])), text)


def _visible(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def did_you_mean(word: str, valid: Iterable[object]) -> str:
    """' Did you mean X?' and the valid words, as the tail of an error message."""
    names = sorted(str(v) for v in valid)
    close = get_close_matches(word, names, n=1, cutoff=0.6)
    guess = f" Did you mean '{close[0]}'?" if close else ""
    return f"{guess} Valid: {', '.join(names)}."
