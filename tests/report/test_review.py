"""Labels to look at again, from real images and kept predictions."""

import base64
import json
import shutil
from dataclasses import replace

import pytest
from plotly.offline import get_plotlyjs

from hsf_tune.report import read_run, write_report
from hsf_tune.report.review import review


def is_png(source):
    return base64.b64decode(source.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def found(run_with_images):
    return review(read_run(run_with_images))


def test_the_place_where_all_finalists_contradict_the_label_is_found(found):
    """48 voxels of 0.5 x 0.5 x 0.8 mm are 9.6 mm3; the axial slices hold most of it each."""
    (place,) = found.places
    assert place.case == "demo--sub-03--left"
    assert (place.agreed, place.manual) == ("CA3", "background")
    assert place.volume_mm3 == pytest.approx(48 * 0.5 * 0.5 * 0.8)
    assert (place.axis, place.index) == (2, 18)


def test_places_and_the_best_and_worst_case_are_drawn(found):
    """PNG files, with captions that name the case."""
    assert "sub-03--left, axial slice 18: all finalists see CA3" in found.place_pictures[0].caption
    best, worst = found.case_pictures
    assert best.caption.startswith("Best case of encoder, depth ")
    assert worst.caption.startswith("Worst case of encoder, depth ")
    assert ": demo--sub-" in best.caption
    assert ": demo--sub-" in worst.caption
    for picture in (*found.place_pictures, best, worst):
        assert is_png(picture.source)


def test_the_middling_case_is_shown_before_and_after(found):
    """Before is the unchanged base, which is worse; both PNG, with the labels' colours."""
    before, after = found.middle.pictures
    assert before.caption.startswith("Unchanged base: Dice 0.")
    assert after.caption.startswith("Finetuned: Dice 0.")
    assert before.caption[-4:] < after.caption[-4:]
    assert is_png(before.source)
    assert is_png(after.source)
    assert before.source != after.source
    assert list(found.middle.colors) == ["DG", "CA1", "CA2", "CA3", "SUB"]


def test_the_pictures_are_inside_the_page(run_with_images):
    """A page that is mailed to a colleague keeps them."""
    html = write_report(run_with_images).html.read_text().replace(get_plotlyjs(), "")
    assert html.count('src="data:image/png;base64,') == 1 + 2 + 2  # place, extremes, middling


def test_images_that_are_gone_are_said_not_raised(run_with_images, tmp_path):
    """A report can be made on another machine."""
    run = read_run(run_with_images)
    elsewhere = run.config.with_values({"datasets.main_path": str(tmp_path)})
    assert "can't be read here" in review(replace(run, config=elsewhere)).missing


def test_images_that_changed_since_are_not_shown(run_with_images):
    """Their labels would be laid over other anatomy."""
    run = read_run(run_with_images)
    changed = replace(run, dataset={**run.dataset, "key": "0f" * 32})
    assert "images have changed" in review(changed).missing


def test_without_kept_predictions_the_page_says_so(finished_run):
    """Older runs, or cleaned ones."""
    assert "No predictions" in review(read_run(finished_run)).missing


@pytest.fixture
def copied(run_with_images, tmp_path):
    """A copy of the run, to be damaged."""
    shutil.copytree(run_with_images, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04cut", b"\x80\x04garbage"])
def test_predictions_that_cannot_be_read_are_named_and_the_report_goes_without(copied, content):
    """A damaged file costs the pictures, not the report."""
    path = next(copied.glob("checkpoints/*/predictions.npz"))
    path.write_bytes(content)
    told = review(read_run(copied))
    assert not told.places
    assert f"{path} can't be read" in told.missing


def test_images_that_changed_since_the_run_are_not_shown_beside_it(copied):
    """They would seem to contradict predictions that were made on others."""
    dataset = json.loads((copied / "dataset.json").read_text())
    (copied / "dataset.json").write_text(json.dumps({**dataset, "key": "0" * 32}))
    assert "images have changed since the run" in review(read_run(copied)).missing
