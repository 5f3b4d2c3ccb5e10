"""The records of a run: events, what they add up to, scores, tables, and what a trial is."""

from hsf_tune.records.events import (
    BASE,
    DEFAULT,
    NO_ARMS,
    RECOMMENDED,
    STAGES,
    Configured,
    ConfirmationVoided,
    EpochEnded,
    Event,
    Exhausted,
    FinalistsNamed,
    Note,
    Proposed,
    RetriedAlone,
    SearchFinished,
    SearchInterrupted,
    StageBegan,
    TimeBudgetUsed,
    TrialEnded,
    TrialStarted,
    Versions,
    Warned,
    event_from_dict,
    event_to_dict,
)  # fmt: skip
from hsf_tune.records.records import Records, TrialRecord, read_events, sole_writer
from hsf_tune.records.scores import Score, label_means, mean_dice, subject_means
from hsf_tune.records.spec import TrialSpec

__all__ = [
    "BASE", "DEFAULT", "NO_ARMS", "RECOMMENDED", "STAGES", "Configured", "ConfirmationVoided",
    "EpochEnded", "Event", "Exhausted", "FinalistsNamed", "Note", "Proposed", "Records",
    "RetriedAlone", "Score", "SearchFinished", "SearchInterrupted", "StageBegan",
    "TimeBudgetUsed", "TrialEnded", "TrialRecord", "TrialSpec", "TrialStarted", "Versions",
    "Warned", "event_from_dict", "event_to_dict", "label_means", "mean_dice", "read_events",
    "sole_writer", "subject_means",
]  # fmt: skip
