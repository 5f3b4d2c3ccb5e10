"""`tune.py --resume`: what may be different from the run that was begun, and what is refused.

The search itself is replaced by a note of what it was called with; everything before it is real.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

from hsf_tune.cli import search
from hsf_tune.cli.commands import run as run_command
from hsf_tune.config import config_from_dict
from hsf_tune.data.splits import Splits
from hsf_tune.finetuning import base
from hsf_tune.model.arunet import Architecture, ARUNet
from hsf_tune.model.weights import save
from hsf_tune.records import Proposed, Records, StageBegan, TrialEnded, TrialStarted
from hsf_tune.run_folder import RunFolder
from hsf_tune.search.space import load_space

# a store marks its folder as in use for as long as the process lives
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
BLOCKS = {"encoder": 4, "decoder": 3, "full": 7}
SPACE = """# Two arms.
lightning.max_epochs: 4
search.strategies_per_arm: 3
search.n_startup_trials: 1
arms:
  encoder:
    finetuning.mode: encoder
    finetuning.depth: {int: [1, 2]}
    finetuning.unfreeze_frequency: 1
    models.lr: {log: [1.0e-3, 1.0e-1]}
  head:
    finetuning.depth: 0
    models.lr: {log: [1.0e-3, 1.0e-1]}
    strategies: 2
"""


@pytest.fixture
def place(tmp_path, monkeypatch, dataset_folder, plain_config):
    """A user's working directory: images, a dataset file that names them, and a space."""
    shutil.copytree(dataset_folder / "balls", tmp_path / "data" / "balls")
    datasets = {**plain_config["datasets"], "main_path": "data"}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(datasets))
    (tmp_path / "space.yaml").write_text(SPACE)
    monkeypatch.setenv("HSF_TUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def words(study_words):
    return [*study_words, "tracking.enabled=False"]


@pytest.fixture
def searching(monkeypatch, capsys):
    """Run the command up to its search; exit code, what it printed, and the search's arguments."""
    calls = []

    def run_search(config, space, splits, folder, records, **_):
        calls.append((config, space, splits))
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "run_search", run_search)

    def run(*words):
        calls.clear()
        with pytest.raises(SystemExit) as end:
            run_command("tune", [str(word) for word in words])
        out, err = capsys.readouterr()
        return end.value.code, out + err, calls[0] if calls else None

    return run


@pytest.fixture
def begun(place, words, searching):
    """A search that was stopped in its first trial, and what it had been called with."""
    _, _, call = searching("--space", "space.yaml", "--name", "first", *words)
    folder = place / "outputs" / "first"
    started = TrialStarted("explore-head-001-f1", "explore", "head", {}, 1, 42, 4, [], [])
    Records(folder).append(started)
    return folder, call


def files_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_resume_goes_on_with_the_same_configuration_space_and_splits(begun, searching):
    folder, (config, space, splits) = begun
    before = files_of(folder)
    code, text, call = searching("--resume", "first")
    assert code == 130
    assert call[1:] == (space, splits)
    assert call[0].to_dict() == {**config.to_dict(), "name": "first", "output": "outputs"}
    assert "in the space space" in text
    after = files_of(folder)
    assert all(after[name] == before[name] for name in ("config.yaml", "space.yaml"))


def test_the_command_that_began_the_run_may_be_repeated_with_resume(begun, words, searching):
    """So that a job script says the same each time."""
    _, text, call = searching("--space", "space.yaml", "--resume", "first", *words)
    assert call is not None, text
    assert call[1:] == begun[1][1:]


def test_splits_are_read_back_and_not_drawn_again(begun, searching, monkeypatch):
    monkeypatch.setattr(search, "make_splits", lambda *_: pytest.fail("drawn anew"))
    _, _, call = searching("--resume", "first")
    assert isinstance(call[2], Splits)
    assert call[2].explore[0].train


def test_more_strategies_are_taken_noted_and_remembered(begun, searching):
    folder, _ = begun
    _, text, call = searching("--resume", "first", "--strategies-per-arm", "20")
    assert call[0].search.strategies_per_arm == 20
    assert "search.strategies_per_arm was 3 and is 20 now" in text
    _, text, call = searching("--resume", "first")
    assert call[0].search.strategies_per_arm == 20
    assert "and is 20 now" not in text
    assert "was 3 and is 20 now" in Records(folder).notes[-1].text
    assert "--space space.yaml" in (folder / "config.yaml").read_text().splitlines()[1]


def test_where_and_how_fast_trials_run_may_change(begun, searching):
    flags = ["--time-budget", "2h", "--max-concurrent", "3", "--cpus-per-trial", "2"]
    flags += ["--gpus-per-trial", "0.5", "--address", "10.0.0.1:6379"]
    _, text, call = searching("--resume", "first", *flags, "tracking.uri=sqlite:///other.db")
    assert call is not None, text
    search = call[0].search
    assert (search.time_budget_s, search.max_concurrent, search.cpus_per_trial) == (7200, 3, 2)
    assert (search.gpus_per_trial, search.address) == (0.5, "10.0.0.1:6379")
    assert call[0].tracking.uri == "sqlite:///other.db"
    search = searching("--resume", "first")[2][0].search
    assert (search.time_budget_s, search.address) == (None, None), "of one process only"
    assert (search.max_concurrent, search.gpus_per_trial) == (3, 0.5)


def test_what_this_machines_gpu_allows_is_not_written_down(place, words, searching, monkeypatch):
    """A resume on another machine measures anew."""
    fit = lambda _, config, __: config.with_values({"search.gpus_per_trial": 0.25})  # noqa: E731
    monkeypatch.setattr(search, "fitted_to_gpu", fit)
    _, _, call = searching("--space", "space.yaml", "--name", "own", *words)
    assert call[0].search.gpus_per_trial == 0.25
    written = yaml.safe_load((place / "outputs" / "own" / "config.yaml").read_text())
    assert written["search"]["gpus_per_trial"] is None


@pytest.mark.parametrize(
    ("given", "difference"),
    [
        (["models.lr=0.5"], "models.lr was 0.001 and is 0.5 now"),
        (["augmentation.flip.p=0"], "augmentation.flip.p was 0.5 and is 0.0 now"),
        (["--seed", "7"], "seed was 42 and is 7 now"),
        (["--no-confirm"], "search.confirm was true and is false now"),
        (["--strategies-per-arm", "2"], "was 3 and is 2 now (it can only be raised)"),
        (["lightning.max_epochs=9"], "lightning.max_epochs was 4 and is 9 now"),
        (["--space", "quick"], 'search space: name was "space" and is "quick" now'),
    ],
)
def test_what_would_make_trials_incomparable_is_refused_with_the_difference(
    begun, searching, given, difference
):
    folder, _ = begun
    before = files_of(folder)
    code, text, call = searching("--resume", "first", *given)
    assert (code, call) == (1, None)
    assert difference in text
    assert "Traceback" not in text
    assert files_of(folder) == before


@pytest.mark.parametrize(
    ("file", "old", "new", "difference"),
    [
        ("config.yaml", "  f_maps: 64", "  f_maps: 32", "models.f_maps was 64 and is 32 now"),
        ("space.yaml", "    - 0.1\n", "    - 0.2\n", "arms.encoder.models.lr was"),
        ("space.yaml", "    strategies: 2\n", "", "arms.head.strategies was 2 and is not set now"),
    ],
)
def test_an_edited_file_of_the_run_is_found_out(begun, searching, file, old, new, difference):
    folder, _ = begun
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))
    code, text, call = searching("--resume", "first")
    assert (code, call) == (1, None)
    assert difference in text


def test_a_changed_image_is_named(begun, place, searching):
    path = place / "data/balls/sub-02/left_mri.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + 1, image.affine), path)
    code, text, call = searching("--resume", "first")
    assert (code, call) == (1, None)
    assert f"{path} has changed" in text
    assert "left_seg" not in text, "the label map of that case is as it was"


def test_new_and_missing_subjects_are_named(begun, place, searching):
    data = place / "data/balls"
    (data / "sub-02").rename(data / "sub-09")
    code, text, call = searching("--resume", "first")
    assert (code, call) == (1, None)
    assert "sub-02/left_mri.nii.gz is no longer found" in text
    assert "sub-09/right_mri.nii.gz is new" in text


def test_images_that_moved_unchanged_are_the_same_images(begun, place, searching):
    (place / "data").rename(place / "elsewhere")
    code, text, call = searching("--resume", "first", "datasets.main_path=elsewhere")
    assert code == 130, text
    assert call[0].datasets.main_path == str(place / "elsewhere")


def test_another_base_model_under_the_same_path_is_refused(begun, place, words, searching):
    own = place / "own.safetensors"
    torch.manual_seed(1)
    save(own, ARUNet(Architecture(f_maps=2, out_channels=3)), {"name": "one"})
    words = [*words[:1], f"models.checkpoint={own}", *words[2:]]
    searching("--space", "space.yaml", "--name", "second", *words)
    Records(place / "outputs/second").append(StageBegan(text="exploration"))
    save(own, ARUNet(Architecture(f_maps=2, out_channels=3)), {"name": "two"})
    base._load_once.cache_clear()
    code, text, call = searching("--resume", "second")
    assert (code, call) == (1, None)
    assert "the base model was one (sha256" in text
    assert "and is two (sha256" in text


def test_a_run_in_use_by_another_process_is_left_alone(begun, searching):
    folder, _ = begun
    before = files_of(folder)
    program = (
        "import sys; from filelock import FileLock\n"
        "with FileLock(sys.argv[1]):\n    print('held', flush=True); sys.stdin.read()\n"
    )
    words = [sys.executable, "-c", program, str(folder / ".lock")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        code, text, call = searching("--resume", "first", "--strategies-per-arm", "20")
        other.stdin.close()
    assert (code, call) == (1, None)
    assert "another run of that name is going on" in text
    assert files_of(folder) == before


def test_a_flag_goes_before_what_the_space_sets(place, words, searching):
    flags = ["--strategies-per-arm", "2", "--name", "own"]
    _, _, call = searching("--space", "space.yaml", *flags, *words)
    assert call[0].search.strategies_per_arm == 2


def test_a_run_stopped_before_its_first_trial_may_be_started_again(place, words, searching):
    for epochs in (3, 2):
        setting = f"lightning.max_epochs={epochs}"
        code, text, call = searching("--space", "space.yaml", "--name", "own", setting, *words)
        assert code == 130, text
    assert call[0].lightning.max_epochs == 2


def test_a_run_takes_no_name_under_which_somebody_keeps_files(place, words, searching):
    """In its own folder or in that of `search.state_dir`; they are as they were."""
    (place / "mine").mkdir()
    (place / "mine" / "optuna.db").write_text("mine")
    for more in (["--output", "."], ["search.state_dir=."]):
        code, text, call = searching("--space", "space.yaml", "--name", "mine", *more, *words)
        assert (code, call) == (1, None)
        assert "would replace" in text
        assert (place / "mine" / "optuna.db").read_text() == "mine"


def test_what_a_run_stopped_before_its_first_trial_proposed_is_forgotten(place, words, searching):
    """Or the space it is started again with would train strategies of another."""
    start = ["--space", "space.yaml", "--name", "own", *words]
    searching(*start)
    folder = place / "outputs" / "own"
    Records(folder).append(Proposed("gone", 1, {}, {}))
    (folder / "optuna.db").write_text("studies of the old space")
    searching(*start)
    assert not Records(folder).noted(Proposed)
    assert not (folder / "optuna.db").exists()


SPACES = {
    "tuples, choices and small numbers": (
        """
lightning.max_epochs: 6
augmentation.blur.std_mm: [0.0, 0.25]
models.lr: {log: [1e-5, 3e-2]}
arms:
  both:
    finetuning.mode: {choice: [encoder, decoder]}
    finetuning.depth: {choice: [1, 2]}
    finetuning.unfreeze_frequency: {choice: [1, 2]}
    start:
      - {finetuning.mode: decoder, finetuning.depth: 2, models.lr: 1e-5}
  full:
    finetuning.mode: full
    finetuning.depth: 4
    finetuning.unfreeze_frequency: 1
""",
        {},
    ),
    "what the user set": (
        """
name: given
lightning.max_epochs: 8
search.folds: 2
search.keep: [2]
arms:
  encoder:
    finetuning.mode: encoder
    finetuning.depth: {choice: [-1, 1]}
    models.lr: {float: [0.001, 0.002]}
    finetuning.unfreeze_frequency: {int: [1, 2]}
    finalists: 2
  head:
    finetuning.depth: 0
    models.lr: {float: [0.001, 0.002]}
start:
  - {finetuning.depth: -1, finetuning.unfreeze_frequency: 1, models.lr: 0.001}
""",
        {"finetuning.unfreeze_frequency": 1, "search.folds": 2},
    ),
}


@pytest.mark.parametrize("space", ["default", "quick", "encoder", "decoder", *SPACES])
def test_a_space_that_was_written_down_reads_back_as_the_same_space(plain_config, tmp_path, space):
    config, fixed = config_from_dict(plain_config), {}
    if space in SPACES:
        text, fixed = SPACES[space]
        path = tmp_path / "own.yaml"
        path.write_text(text)
        space = str(path)
    first = load_space(space, config, blocks=BLOCKS, fixed=fixed)
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(first.to_dict(), sort_keys=False, allow_unicode=True))
    again = load_space(str(path), first.config, blocks=BLOCKS)
    assert again == first
    assert [list(arm.domains) for arm in again.arms] == [list(arm.domains) for arm in first.arms]


def test_a_run_that_was_killed_at_its_first_trial_begins_anew_with_another_seed(
    place, words, searching
):
    """What it left would be taken for another trial's; nothing of it was recorded."""
    new = ["--space", "space.yaml", "--name", "first", *words]
    searching(*new)
    files = RunFolder(place / "outputs" / "first")
    left = files.trial("explore-encoder-001-f1")
    left.path.mkdir(parents=True)
    left.mark.write_text('{"trial": "explore-encoder-001-f1", "fingerprint": "of seed 42"}')
    _, text, call = searching(*new, "--seed", "7")
    assert call is not None, text
    assert call[0].seed == 7
    assert not left.path.exists()


def test_failed_trials_are_tried_again_with_a_flag(begun, searching):
    """Else they count as failed for ever; without --resume there is nothing to try again."""
    folder, _ = begun
    Records(folder).append(TrialEnded("explore-head-001-f1", "failed", reason="files away"))
    searching("--resume", "first")
    assert Records(folder).trials["explore-head-001-f1"].ended.status == "failed"
    _, text, call = searching("--resume", "first", "--retry-failed")
    assert call is not None, text
    assert "tried again: explore-head-001-f1" in text
    assert Records(folder).trials["explore-head-001-f1"].ended is None
    _, text, _ = searching("--resume", "first", "--retry-failed")
    assert "no trial has failed" in text
    code, text, call = searching("--space", "space.yaml", "--retry-failed")
    assert (code, call) == (1, None)
    assert "--resume NAME" in text


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.yaml", ""),
        ("config.yaml", "[1, 2]"),
        ("dataset.json", "{}"),
        ("dataset.json", '{"key": "0", "base": {}, "cases": [], "splits": {}}'),
        ("dataset.json", '{"key": "0", "base": [], "cases": 1, "splits": "x"}'),
        ("dataset.json", ""),
        ("trials.jsonl", '{"event": "trial_exploded"}\n'),
    ],
)
def test_a_run_whose_file_holds_something_else_is_refused_by_name(begun, searching, file, content):
    """One sentence, no traceback, and nothing is written."""
    folder, _ = begun
    (folder / file).write_text(content)
    before = files_of(folder)
    code, text, call = searching("--resume", "first")
    assert (code, call) == (1, None)
    assert file in text
    assert "Traceback" not in text
    assert files_of(folder) == before
