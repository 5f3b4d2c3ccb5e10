"""Passwords of addresses stay in the process that was given them."""

import pytest
import yaml

from hsf_tune.config import TrackingConfig, config_from_dict
from hsf_tune.credentials import complete, redacted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://ann:s3cret@host:5000/x", "http://host:5000/x"),
        ("https://s3cret@host", "https://host"),
        ("postgresql+psycopg2://ann:s3cr@et@db/mlflow", "postgresql+psycopg2://db/mlflow"),
        ("http://host?user=a&password=s3cret&x=1", "http://host?user=a&password=***&x=1"),
        ("tracking.uri='http://a:s3cret@h' seed=1", "tracking.uri='http://h' seed=1"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("mail ann@host, http://host/a@b", "mail ann@host, http://host/a@b"),
    ],
)
def test_a_password_is_taken_out_of_any_text_and_nothing_else_is(text, shown):
    """User and password in front of a host, and secrets among a query's values."""
    assert redacted(text) == shown


def test_a_configuration_holds_no_password_but_mlflow_gets_it(plain_config):
    """Neither the object nor what it is written to, whatever it went through before."""
    given = "http://ann:s3cret@127.0.0.1:1/"
    config = config_from_dict({**plain_config, "tracking": {"uri": given}})
    config = config.with_values({"seed": 3})
    assert config.tracking.uri == "http://127.0.0.1:1/"
    assert "s3cret" not in yaml.safe_dump(config.to_dict()) + repr(config)
    assert complete(config.tracking.uri) == given
    assert TrackingConfig(uri=given).uri == "http://127.0.0.1:1/"
