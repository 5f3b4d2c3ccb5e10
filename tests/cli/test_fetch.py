"""`scripts/fetch.py`: what it prints where the models are there, and where there is no network."""

from __future__ import annotations

import hashlib

import pytest

from hsf_tune.cli.commands import run as run_command
from hsf_tune.model.published import PUBLISHED, Published, fetch

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty cache, and a proxy that refuses every connection."""
    monkeypatch.setenv("HSF_TUNE_CACHE", str(tmp_path))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def known(offline, monkeypatch):
    """Two published models, of which the first is in the cache."""
    for name in list(PUBLISHED):
        monkeypatch.delitem(PUBLISHED, name)
    for name in ("hsf", "bag_0"):
        url = f"https://models.invalid/{name}.ckpt"
        monkeypatch.setitem(PUBLISHED, name, Published(url, f"sha256:{SHA256}", {1: "DG"}))
    (offline / f"{SHA256[:16]}-hsf.ckpt").write_bytes(CONTENT)
    return offline


@pytest.fixture
def fetching(capsys):
    """Run the command; its exit code and all that it printed."""

    def run(*words):
        with pytest.raises(SystemExit) as end:
            run_command("fetch", [str(word) for word in words])
        out, err = capsys.readouterr()
        return end.value.code, out + err

    return run


def test_what_is_in_the_cache_is_verified_and_named_without_a_network(known, fetching):
    code, text = fetching()
    assert code == 0
    assert f"hsf: {known}/{SHA256[:16]}-hsf.ckpt" in text
    assert "checksum verified" in text


def test_without_a_network_the_error_says_where_to_put_the_file_by_hand(known, fetching):
    code, text = fetching("all")
    assert code == 1
    assert "hsf: " in text, "what is there is still listed"
    assert "Could not download the base model from https://models.invalid/bag_0.ckpt" in text
    assert f"put it at {known}/{SHA256[:16]}-bag_0.ckpt" in text
    assert f"sha256:{SHA256}" in text
    assert "Traceback" not in text


def test_a_damaged_copy_is_not_taken_for_the_model(known, fetching):
    (known / f"{SHA256[:16]}-hsf.ckpt").write_bytes(b"other")
    code, text = fetching("hsf")
    assert code == 1
    assert "Could not download" in text


def test_an_address_is_found_by_a_run_under_the_same_checksum(offline, fetching):
    """A run asks for the file by address and models.checksum; the cache answers it."""
    url = "https://models.invalid/own.ckpt"
    (offline / f"{SHA256[:16]}-own.ckpt").write_bytes(CONTENT)
    code, _ = fetching(url, "--checksum", f"sha256:{SHA256}")
    assert code == 0
    assert fetch(url, SHA256).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hfs"], "Did you mean 'hsf'"),
        (["https://models.invalid/own.ckpt"], "needs --checksum"),
        (["http://models.invalid/own.ckpt", "--checksum", "0" * 16], "is no https address"),
        (["hsf", "bag_1", "--checksum", "0" * 16], "belongs to one file"),
    ],
)
def test_a_mistake_gets_one_clear_error(offline, fetching, words, message):
    code, text = fetching(*words)
    assert code == 1
    assert message in text


def test_the_demos_base_needs_no_fetching(offline, fetching):
    code, text = fetching("demo")
    assert code == 0
    assert "nothing to fetch" in text
