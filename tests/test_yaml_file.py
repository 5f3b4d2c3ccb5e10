"""YAML from somebody else: small files that stand for large ones, and what else harms."""

from __future__ import annotations

import time

import pytest

from hsf_tune.cli.compose import compose_config, parse_overrides
from hsf_tune.errors import ConfigError
from hsf_tune.finetuning.strategy import load_strategy
from hsf_tune.search.space_file import read_space
from hsf_tune.yaml_file import load_yaml


def _dataset(path):
    compose_config(parse_overrides([f"datasets={path}"]))


READERS = {"dataset": _dataset, "space": read_space, "strategy": load_strategy, "any": load_yaml}
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]\n" for i in range(1, 15)
)
HOSTILE = {
    "aliases of aliases": (BOMB, "stands for more than 100,000 values"),
    "an alias of itself": ("a: &a [*a]", "refers to itself"),
    "a mapping of itself": ("a: &a {b: *a}", "refers to itself"),
    "nested lists": ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
    "nested mappings": ("a: " + "{b: " * 5000 + "}" * 5000, "nested too deeply"),
    "much text": ("a: " + "x" * 2_000_000, "larger than 1,048,576 bytes"),
    "a key twice": ("arms: 1\narms: 2", "the key arms is here a second time"),
    "an object": ("a: !!python/object/apply:os.getcwd []", "YAML"),
    "bytes": (b"\xff\xfe\x00", "not UTF-8|YAML"),
    "control characters": ("a: \x00", "YAML"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("content", "words"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_is_refused_at_once_and_by_name(reader, content, words, tmp_path):
    """Whoever reads it; before anything is built from it."""
    path = tmp_path / "given.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=rf"given\.yaml.*({words})"):
        READERS[reader](path)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("content", ["a: 2026-99-99", "- 1", "word", ""])
@pytest.mark.parametrize("reader", ["dataset", "space", "strategy"])
def test_what_is_yaml_but_no_settings_is_refused_by_name(reader, content, tmp_path):
    """A date that is none, a list, a word, nothing."""
    path = tmp_path / "given.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError):
        READERS[reader](path)


@pytest.mark.parametrize("reader", READERS)
def test_a_folder_is_no_yaml(reader, tmp_path):
    """Named by mistake; not a traceback."""
    (tmp_path / "given.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"given\.yaml"):
        READERS[reader](tmp_path / "given.yaml")


def test_aliases_that_repeat_a_little_are_read(tmp_path):
    """They are what aliases are for."""
    path = tmp_path / "a.yaml"
    path.write_text("one: &one {mri: a, label: b}\ntwo: *one\nthree: {<<: *one, label: c}\n")
    assert load_yaml(path)["three"] == {"mri": "a", "label": "c"}


def test_numbers_and_words_are_read_as_yaml_1_2_does_and_nothing_is_filled_in(tmp_path):
    """1e-3 is a float, `no` a word, and a variable of the environment only its name."""
    path = tmp_path / "a.yaml"
    path.write_text("a: 1e-3\nb: no\nf: ${oc.env:HOME}\n")
    assert load_yaml(path) == {"a": 1e-3, "b": "no", "f": "${oc.env:HOME}"}
