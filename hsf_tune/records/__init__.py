"""The records of a run: events, what they add up to, scores, tables, and what a trial is."""

from hsf_tune.records.events import (
    BASE,
    DEFAULT,
    NO_ARMS,
    RECOMMENDED,
    EpochEnded,
    Event,
    Note,
    TrialEnded,
    TrialStarted,
    event_from_dict,
    event_to_dict,
)
from hsf_tune.records.records import Records, TrialRecord, read_events, sole_writer
from hsf_tune.records.scores import Score, label_means, mean_dice, subject_means
from hsf_tune.records.spec import TrialSpec

__all__ = [
    "BASE", "DEFAULT", "NO_ARMS", "RECOMMENDED", "EpochEnded", "Event", "Note", "Records",
    "Score", "TrialEnded", "TrialRecord", "TrialSpec", "TrialStarted", "event_from_dict",
    "event_to_dict", "label_means", "mean_dice", "read_events", "sole_writer", "subject_means",
]  # fmt: skip
