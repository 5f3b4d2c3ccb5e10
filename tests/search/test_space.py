"""Space files: what they may hold, and what is refused before anything trains."""

import math

import pytest
import yaml

from hsf_tune.errors import ConfigError
from hsf_tune.search.space import load_space
from hsf_tune.search.space_file import find_space, list_spaces, read_space
from hsf_tune.strategy import strategy_key

BLOCKS = {"encoder": 4, "decoder": 3, "full": 7}
RATE = {"log": [1e-4, 3e-2]}


def arm(**keys):
    return {key.replace("__", "."): value for key, value in keys.items()}


ENCODER = arm(
    finetuning__mode="encoder",
    finetuning__depth={"int": [1, 4]},
    finetuning__unfreeze_frequency={"choice": [1, 2, 4]},
    models__lr=RATE,
)
DECODER = {**ENCODER, "finetuning.mode": "decoder", "finetuning.depth": {"int": [1, 3]}}
HEAD = arm(finetuning__depth=0, models__lr=RATE, strategies=4, finalists=1)


def space_of(arms, start=None, epochs=20, **keys):
    return {"lightning.max_epochs": epochs, "arms": arms, "start": start or [], **keys}


@pytest.mark.parametrize("name", ["default", "quick", "encoder", "decoder"])
def test_shipped_spaces_can_be_searched(name, make_config):
    """Each arm of a shipped space has strategies, and a first sentence says what it is for."""
    space = load_space(name, make_config(), blocks=BLOCKS)
    assert all(a.size is None or a.size > 0 for a in space.arms)
    assert all(a.start or a.name == "head" for a in space.arms if a.name != "full")
    assert len(list_spaces()[name]) > 20


def test_default_space_starts_with_the_documented_default_where_it_fits(make_config):
    """At frequency 4 the documented default fits the decoder; 7 blocks don't fit 20 epochs."""
    space = load_space("default", make_config(), blocks=BLOCKS)
    firsts = {a.name: a.start[0] if a.start else None for a in space.arms}
    documented = {"finetuning.unfreeze_frequency": 4, "models.lr": 1e-3}
    assert firsts["decoder"] == {"finetuning.depth": 3, **documented}
    assert firsts["encoder"] == {"finetuning.depth": 4, **documented}
    assert firsts["full"] == {
        "finetuning.depth": 7,
        "finetuning.unfreeze_frequency": 2,
        "models.lr": 1e-3,
    }
    assert firsts["head"] is None
    assert space.arms_that_start_with_default() == ("decoder",)
    assert space.default["lightning.max_epochs"] == 20


def test_a_sampler_that_is_not_known_is_refused(make_config):
    """A misspelt sampler is named beside those there are, before anything trains."""
    config = make_config(sampler="tpee")
    with pytest.raises(ConfigError, match=r"search\.sampler is 'tpee'.*tpe.*Did you mean 'tpe'"):
        load_space("default", config, blocks=BLOCKS)


def test_documented_default_runs_as_long_as_documented_where_the_space_is_shorter(make_space):
    """(3 + 1) x 4 = 16 epochs, as its own baseline beside trials of 8 epochs."""
    space = make_space(space_of({"decoder": DECODER}, epochs=8))
    assert space.default["lightning.max_epochs"] == 16
    assert space.arms_that_start_with_default() == ()


def test_documented_default_is_proposed_first_also_where_no_start_point_names_it(make_space):
    """An arm that holds the documented default begins with it."""
    space = make_space(space_of({"decoder": DECODER}))
    assert space.arms_that_start_with_default() == ("decoder",)


REFUSED = {
    "no key 'models.lrr'.* Did you mean 'models.lr'": {"models.lrr": RATE},
    "no key 'lr'.* Did you mean 'models.lr'": {"lr": RATE},
    "models.lr.*2": {"models.lr": {"log": [1e-3, 2]}},
    "log is .* above 0": {"models.lr": {"log": [0, 1e-2]}},
    "no kind of range 'loguniform'": {"models.lr": {"loguniform": [1e-4, 1e-2]}},
    "first number must be below the second": {"models.lr": {"log": [1e-2, 1e-4]}},
    "two numbers": {"models.lr": {"float": [1e-4, 1e-3, 1e-2]}},
    "goes up to 5, but the base model has 4 blocks": {"finetuning.depth": {"int": [1, 5]}},
    "Write numbers, or one arm a mode": {
        "finetuning.mode": {"choice": ["encoder", "decoder"]},
        "finetuning.depth": {"choice": [-1, 1]},
    },
    "starts at -1": {"finetuning.depth": {"int": [-1, 3]}},
    "depth.*1.5|depth.*integer": {"finetuning.depth": {"float": [1, 2]}},
    "lists 2 twice": {"finetuning.unfreeze_frequency": {"choice": [2, 2]}},
    "same length in all arms": {"lightning.max_epochs": 10},
    "can't differ between strategies": {"models.f_maps": {"choice": [8, 16]}},
    "'strategies' is 0|strategies is 0": {"strategies": 0},
    "no strategy that opens all": {
        "finetuning.depth": 4,
        "finetuning.unfreeze_frequency": {"choice": [5, 6]},
    },
}


@pytest.mark.parametrize(("message", "keys"), REFUSED.items(), ids=list(REFUSED))
def test_faulty_arm_is_refused_with_its_name(make_space, message, keys):
    """The error names the arm, what was found and what was expected."""
    with pytest.raises(ConfigError, match=message) as caught:
        make_space(space_of({"encoder": {**ENCODER, **keys}}))
    assert "test.yaml" in str(caught.value)
    assert "encoder" in str(caught.value)


def test_faults_of_the_space_itself_are_refused(make_space):
    """No arms, no length, a reserved name."""
    with pytest.raises(ConfigError, match="no `arms:`"):
        make_space({"lightning.max_epochs": 20})
    with pytest.raises(ConfigError, match="max_epochs is auto"):
        make_space({"arms": {"encoder": ENCODER}})
    with pytest.raises(ConfigError, match="can't name an arm"):
        make_space(space_of({"base": ENCODER}))


def test_override_of_a_searched_key_makes_it_a_constant(make_space):
    """With models.lr=2e-3 fixed, no arm varies it and start points take it over."""
    start = [{"finetuning.depth": -1, "finetuning.unfreeze_frequency": 2, "models.lr": 1e-3}]
    space = make_space(
        space_of({"encoder": ENCODER, "decoder": DECODER}, start), fixed={"models.lr": 2e-3}
    )
    for one in space.arms:
        assert "models.lr" not in one.domains
        assert one.constants["models.lr"] == 2e-3
        assert space.terms.strategy(one, one.start[-1])["models.lr"] == 2e-3


def test_override_that_contradicts_an_arm_is_refused(make_space):
    """finetuning.mode=encoder can't hold for the decoder arm."""
    with pytest.raises(ConfigError, match=r"'decoder'.*finetuning.mode=encoder was asked"):
        make_space(
            space_of({"encoder": ENCODER, "decoder": DECODER}),
            fixed={"finetuning.mode": "encoder"},
        )


def test_override_that_makes_two_arms_the_same_is_refused(make_space):
    """At depth 0 encoder and decoder both train the final convolution only."""
    with pytest.raises(ConfigError, match="'encoder' and 'decoder' hold the same strategies once"):
        make_space(
            space_of({"encoder": ENCODER, "decoder": DECODER}), fixed={"finetuning.depth": 0}
        )


def test_override_of_a_setting_for_all_arms_goes_before_the_space(make_space):
    """lightning.max_epochs=24 on the command line replaces the space's 20."""
    space = make_space(space_of({"encoder": ENCODER}), fixed={"lightning.max_epochs": 24})
    assert space.config.lightning.max_epochs == 24


def test_suggestion_whose_openings_do_not_fit_is_no_strategy(make_space):
    """(4 + 1) x 4 = 20 epochs fit into 20, not into 19."""
    suggested = {"finetuning.depth": 4, "finetuning.unfreeze_frequency": 4, "models.lr": 1e-3}
    for epochs, fits in ((20, True), (19, False)):
        space = make_space(space_of({"encoder": ENCODER}, epochs=epochs))
        assert (space.terms.strategy(space.arms[0], suggested) is not None) == fits


def test_all_strategies_hold_the_same_keys(make_space):
    """A key that one arm varies is part of every arm's strategies, as the configuration says."""
    flip = {**ENCODER, "augmentation.flip.p": {"choice": [0.0, 0.5]}}
    space = make_space(space_of({"encoder": flip, "head": HEAD}))
    assert space.terms.strategy(space.arm("head"), {"models.lr": 1e-3}) == {
        "augmentation.flip.p": 0.5,
        "finetuning.depth": 0,
        "lightning.max_epochs": 20,
        "models.lr": 1e-3,
    }


def test_size_counts_strategies_that_differ(make_space):
    """Depths 0 to 2 and frequencies 1, 2: depth 0 counts once, and 2 x 3 epochs don't fit 5."""
    keys = {
        "finetuning.mode": "encoder",
        "finetuning.depth": {"int": [0, 2]},
        "finetuning.unfreeze_frequency": {"choice": [1, 2]},
    }
    space = make_space(space_of({"encoder": keys}, epochs=5))
    assert space.arms[0].size == 1 + 2 + 1


def test_written_space_reads_back_the_same(make_space, make_config, tmp_path):
    """`space.yaml` of a run's folder is itself a space file, overrides included."""
    keys = {**ENCODER, "augmentation.blur.std_mm": {"choice": [[0.0, 0.5], [0.0, 1.0]]}}
    start = [{"finetuning.depth": -1, "finetuning.unfreeze_frequency": 2, "models.lr": 1e-3}]
    space = make_space(space_of({"encoder": keys, "head": HEAD}, start), fixed={"models.lr": 2e-3})
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(space.to_dict(), sort_keys=False))
    again = load_space(str(path), make_config(), blocks=BLOCKS)
    assert again == space
    assert strategy_key(again.default) == strategy_key(space.default)


def test_numbers_are_read_as_yaml_1_2_does(tmp_path):
    """1e-3 is a float, and `no` and `on` are words."""
    path = tmp_path / "s.yaml"
    path.write_text("a: 1e-3\nb: -2E5\nc: 1.5e+2\nd: 12\ne: no\nf: true\ng: .5\nh: 1e3x\n")
    read = read_space(path)
    assert (read["a"], read["b"], read["c"], read["g"]) == (1e-3, -2e5, 150.0, 0.5)
    assert (read["d"], read["e"], read["f"], read["h"]) == (12, "no", True, "1e3x")
    assert isinstance(read["a"], float)
    assert not math.isnan(read["b"])


def test_key_written_twice_is_refused(tmp_path):
    """The second would silently replace the first."""
    path = tmp_path / "s.yaml"
    path.write_text("arms:\n  a: {}\n  a: {}\n")
    with pytest.raises(ConfigError, match=r"line 3.*the key a is here a second time"):
        read_space(path)


def test_unknown_space_is_answered_with_those_there_are():
    """A misspelt name gets a guess and the list."""
    with pytest.raises(ConfigError, match=r"Did you mean 'default'.*quick"):
        find_space("defualt")
    with pytest.raises(ConfigError, match="no such file"):
        find_space("nowhere/space.yaml")
