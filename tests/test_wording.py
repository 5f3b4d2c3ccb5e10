"""Durations and lists as people read them."""

import pytest

from hsf_tune.wording import duration, listed


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (59, "59 s"), (59.7, "1 min"), (725, "12 min"), (3599, "1 h 00 min"),
     (3 * 3600 + 300, "3 h 05 min"), (52 * 3600, "2 d 4 h")],
)  # fmt: skip
def test_durations_are_as_precise_as_an_estimate(seconds, text):
    """Seconds, then minutes, then hours, then days."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], "none"), ([1, 2.5], "1, 2.5"),
     (range(1, 15), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 2 more")],
)  # fmt: skip
def test_a_long_list_is_cut_and_the_rest_counted(numbers, text):
    """Nobody reads fifty label values in an error."""
    assert listed(numbers) == text
