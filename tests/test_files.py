"""Tables as text."""

import csv
import io

import pytest

from hsf_tune.files import csv_text


@pytest.mark.parametrize("name", ["=1+1", "+A1", "-A1", "@SUM(A1)", "\t=1"])
def test_a_name_is_no_formula_in_a_spreadsheet(name):
    """An apostrophe in front makes it text; numbers, minus signs included, stay numbers."""
    text = csv_text(("subject", "value"), [(name, -0.5)])
    assert list(csv.reader(io.StringIO(text, newline="")))[1] == [f"'{name}", "-0.5"]


def test_nothing_and_nan_are_empty_cells():
    """None and nan are no words."""
    assert csv_text(("a", "b", "c"), [(None, float("nan"), 1.0)]) == "a,b,c\n,,1.0\n"
