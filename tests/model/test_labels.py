import pytest

from hsf_tune.errors import ConfigError
from hsf_tune.model.labels import find_merging

CA23 = ["CA2/3", "CA23", "ca2-3", "CA2+CA3", " CA 2/3 ", "CA3/2", "CA2_3"]
CA123 = ["CA", "CA1/2/3", "CA123", "ca1-3", "CA1-CA3", "CA1/CA2/CA3"]


@pytest.mark.parametrize("name", CA23)
def test_spellings_of_ca2_and_ca3_together(name):
    """Laboratories write merged fields in many ways; channels 3 and 4 are meant."""
    merging = find_merging({1: "DG", 2: "CA1", 3: name, 4: "SUB"}, "1/23")
    assert merging.channels == ((0,), (1,), (2,), (3, 4), (5,))


@pytest.mark.parametrize("name", CA123)
def test_spellings_of_all_ca_fields_together(name):
    """Channels 2 to 4 are meant."""
    merging = find_merging({1: "SUB", 2: name, 3: "DG"}, "123")
    assert merging.channels == ((0,), (5,), (2, 3, 4), (1,))


@pytest.mark.parametrize("name", ["CA4", "CA0", "CAUDATE", "CA1/4", "UNCUS", "SUBX", ""])
def test_names_that_are_no_subfield_are_not_guessed(name):
    """A label that HSF does not know is an error, never silently HEAD or TAIL."""
    with pytest.raises(ConfigError, match="expects DG, CA, SUB"):
        find_merging({1: "DG", 2: "CA", 3: "SUB", 4: name}, "123")


def test_head_allows_any_subfield_and_tail_ca1_or_subiculum():
    """Also where CA1 is part of a merged label, and wherever HEAD and TAIL stand."""
    merging = find_merging({1: "tail", 2: "DG", 3: "CA", 4: "Head", 5: "SUB"}, "123")
    assert merging.allowed == ((0,), (3, 5), (2,), (3,), (2, 3, 5), (5,))
    assert merging.scored == (0, 2, 3, 5)
