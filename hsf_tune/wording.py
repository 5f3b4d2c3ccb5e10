"""Numbers as people read them: durations and lists."""

from __future__ import annotations

from collections.abc import Collection

LONGEST_LIST = 12  # numbers that are named before the rest are counted


def duration(seconds: float) -> str:
    """'40 s', '12 min', '3 h 05 min', '2 d 4 h': as precise as an estimate can be."""
    minutes = round(seconds / 60)
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def listed(numbers: Collection[float]) -> str:
    """'1, 2, 2.5', 'none', or the first twelve 'and 3 more'."""
    shown = ", ".join(f"{number:g}" for number in list(numbers)[:LONGEST_LIST]) or "none"
    more = len(numbers) - LONGEST_LIST
    return f"{shown} and {more} more" if more > 0 else shown
