"""Figures: what they show is where the arrays say, and files are whole."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.image import imread

from hsf_tune.figures import (
    arm_colors,
    contact_sheet,
    label_color,
    learning_curve,
    overlay,
    save,
)

NAMES = {1: "DG", 2: "CA1"}


def curve(n_epochs, **changes):
    values = [0.5 + 0.01 * e for e in range(n_epochs)]
    given = {"train_loss": values, "val_loss": values, "val_dice": values, "openings": {}}
    return learning_curve(range(n_epochs), **{**given, **changes})


def texts(figure):
    return [t.get_text() for axes in figure.axes for t in axes.texts]


@pytest.fixture
def case():
    """An anisotropic volume, brightest at its right, front, upper corner; two labels."""
    image = np.zeros((10, 20, 6), dtype=np.float32)
    image[-1, -1, -1] = 9.0
    labels = np.zeros(image.shape, dtype=np.uint8)
    labels[4:, 8:, 2:] = 1
    labels[7:, 8:, 2:] = 2
    return image, labels, (0.5, 1.0, 2.0)


class TestLearningCurve:
    def test_each_opening_is_drawn_at_its_epoch_and_named(self):
        """Both panels mark the epoch at which a block starts to train."""
        figure = curve(12, openings={"decoders.2": 4, "decoders.1": 8})
        for axes in figure.axes:
            marks = [line.get_xdata()[0] for line in axes.lines if line.get_label() == "_opening"]
            assert marks == [4, 8]
        assert sum("decoders.1 opens" in text for text in texts(figure)) == 2

    def test_openings_that_a_stopped_trial_never_reached_are_left_out(self):
        """A trial pruned after epoch 5 shows no opening at epoch 8."""
        figure = curve(6, openings={"decoders.2": 4, "decoders.1": 8})
        assert not any("decoders.1" in text for text in texts(figure))

    def test_the_last_epochs_dice_is_written_and_the_best_is_in_the_legend(self):
        """What ranks is the last value; the best epoch is told apart from it."""
        figure = curve(3, val_dice=[0.1, 0.8123, 0.7001], best_epoch=1)
        legend = [t.get_text() for t in figure.axes[1].get_legend().get_texts()]
        assert "0.700" in texts(figure)
        assert "best: 0.812 (epoch 1)" in legend

    @pytest.mark.parametrize("n_epochs", [0, 1, 2])
    def test_the_shortest_trials_can_be_drawn(self, n_epochs, tmp_path):
        """The unchanged base has no epoch; its figure says so instead of failing."""
        figure = curve(n_epochs)
        save(figure, tmp_path / "curve.png")
        assert ("no epoch was recorded" in texts(figure)) == (n_epochs == 0)

    def test_missing_values_are_gaps(self):
        """An epoch whose loss is not known leaves a hole, not a zero."""
        figure = curve(3, train_loss=[0.4, math.nan, 0.2])
        drawn = next(line for line in figure.axes[0].lines if line.get_label() == "training")
        assert np.isnan(drawn.get_ydata()[1])

    def test_a_series_of_another_length_is_refused_by_name(self):
        """The message says which series and how long."""
        with pytest.raises(ValueError, match="val_dice has 2 values for 3 epochs"):
            curve(3, val_dice=[0.1, 0.2])


class TestOverlay:
    def test_planes_pass_through_the_references_centre_of_mass(self, case):
        """The fills have as many voxels as the volume's slices 6, 13, 3 (mean 6.5, 13.5, 3.5)."""
        image, labels, spacing = case
        shifted = np.roll(labels, 3, axis=1)
        figure = overlay(image, shifted, labels, spacing, NAMES)
        fills = [im.get_array() for im in figure.axes[1].images if im.get_array().ndim == 3]
        drawn = [int((picture[..., 3] > 0).sum()) for picture in fills]
        expected = [shifted[6].astype(bool), shifted[:, 13] > 0, shifted[:, :, 3] > 0]
        assert drawn == [int(plane.sum()) for plane in expected]

    def test_right_front_and_up_are_right_and_up_in_the_picture(self, case):
        """The bright voxel at the R, A, S corner lies at the upper right of each plane shown."""
        image, labels, spacing = case
        image[:] = 0
        image[8:, 16:, 4:] = 9.0
        labels[:] = 0
        labels[-1, -1, -1] = 1  # the planes through this corner
        figure = overlay(image, labels, labels, spacing, NAMES)
        for picture in figure.axes[0].images:
            grey = picture.get_array()
            assert grey[-1, -1] == 1.0
            assert grey[0].max() == 0.0
            assert grey[:, 0].max() == 0.0

    def test_voxels_are_drawn_in_millimetres(self, case):
        """With spacing 0.5 x 1 x 2 mm, widths and heights are those of the patient."""
        image, labels, spacing = case
        labels[0, 0, 0] = labels[-1, -1, -1] = 1  # nothing is cut away round the labels
        axes = overlay(image, labels, labels, spacing, NAMES).axes[0]
        sizes = [(e[1] - e[0], e[3] - e[2]) for e in (im.get_extent() for im in axes.images)]
        assert sizes == [(20.0, 12.0), (5.0, 12.0), (5.0, 20.0)]
        assert axes.get_aspect() == 1.0

    def test_orientation_letters_stand_at_their_edges(self, case):
        """Each plane carries both ends of both of its axes."""
        image, labels, spacing = case
        letters = [
            t.get_text() for t in overlay(image, labels, labels, spacing, NAMES).axes[0].texts
        ]
        for plane in ("PAIS", "LRIS", "LRPA"):
            assert set(plane) <= set(letters)
        places = {
            t.get_text(): t.get_position()
            for t in overlay(image, labels, labels, spacing, NAMES).axes[0].texts
        }
        assert places["L"][0] < places["R"][0]
        assert places["P"][1] < places["A"][1]

    def test_a_prediction_without_any_label_can_be_drawn(self, case, tmp_path):
        """A network that predicts background only still gets its picture."""
        image, labels, spacing = case
        nothing = np.zeros_like(labels)
        save(overlay(image, nothing, labels, spacing, NAMES), tmp_path / "a.png")
        save(overlay(image, nothing, nothing, spacing, NAMES), tmp_path / "b.png")

    def test_volumes_of_different_shape_are_refused(self, case):
        """Both shapes are named."""
        image, labels, spacing = case
        with pytest.raises(ValueError, match=r"prediction \(9, 20, 6\)"):
            overlay(image, labels[1:], labels, spacing, NAMES)


class TestContactSheet:
    def test_every_case_gets_its_panel_with_its_title(self, case):
        """Five cases make five titled panels, the rest of the grid stays empty."""
        image, labels, spacing = case
        figure = contact_sheet([(f"case {i}", image, labels, spacing) for i in range(5)])
        titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
        assert titles == [f"case {i}" for i in range(5)]

    def test_volumes_are_let_go_while_the_sheet_is_made(self, case):
        """A generator of many cases never has more than two volumes alive."""
        image, labels, spacing = case
        alive: list[weakref.ref] = []
        counts = []

        def cells():
            for i in range(8):
                volume = image.copy()
                alive.append(weakref.ref(volume))
                counts.append(sum(ref() is not None for ref in alive))
                yield f"case {i}", volume, labels, spacing

        contact_sheet(cells())
        assert max(counts) <= 2

    def test_no_case_is_refused(self):
        """An empty sheet is a defect of the caller."""
        with pytest.raises(ValueError, match="at least one case"):
            contact_sheet([])


class TestColours:
    def test_arms_that_we_ship_keep_their_colour_and_others_get_free_ones(self):
        """Adding an arm changes no other arm's colour."""
        few, more = (
            arm_colors(["encoder", "head"]),
            arm_colors(["mine", "encoder", "head", "yours"]),
        )
        assert {arm: more[arm] for arm in few} == few
        assert len(set(more.values())) == 4

    @pytest.mark.parametrize("kind", ["protanopia", "deuteranopia"])
    def test_first_labels_are_told_apart_by_colour_blind_readers(self, kind):
        """Simulated as Machado et al. 2009 (severity 1), all pairs differ by 10 in CIELAB."""
        matrix = {
            "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                           [-0.003882, -0.048116, 1.051998]],
            "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                             [-0.011820, 0.042940, 0.968881]],
        }[kind]  # fmt: skip
        seen = [
            cielab(np.clip(np.array(matrix) @ linear(label_color(i)), 0, 1)) for i in range(1, 8)
        ]
        closest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))
        assert closest > 10


def linear(color):
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def cielab(rgb):
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.array(to_xyz) @ rgb / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


class TestSave:
    def test_titles_may_hold_any_character(self, tmp_path):
        """Dollar signs and underscores of a file name are not read as a formula."""
        path = save(curve(2, title=r"sub_$01 \frac{ $ a_b"), tmp_path / "new" / "curve.png")
        assert imread(path).shape[1] == 1210

    def test_the_prediction_fill_reaches_the_file(self, case, tmp_path):
        """The label's colour, mixed with grey, is found in the picture."""
        image, labels, spacing = case
        shown = imread(save(overlay(image, labels, labels, spacing, {}), tmp_path / "o.png"))
        found = {to_hex(color) for color in np.unique(shown[:, :, :3].reshape(-1, 3), axis=0)}
        assert to_hex(0.55 * np.array(to_rgb(label_color(1)))) in found

    def test_a_failed_write_leaves_the_old_file_and_nothing_else(self, tmp_path, monkeypatch):
        """Whoever reads the figure meanwhile never sees a part of it."""
        path = save(curve(2), tmp_path / "curve.png")
        before = path.read_bytes()
        figure = curve(3)

        def full_disk(target, **_):
            target.write_bytes(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(figure, "savefig", full_disk)
        with pytest.raises(OSError, match="No space"):
            save(figure, path)
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["curve.png"]

    def test_threads_draw_side_by_side_without_pyplot(self, case, tmp_path):
        """Same input, same bytes, from four threads; pyplot is not even imported."""
        image, labels, spacing = case

        def draw(i):
            figure = overlay(image, labels, labels, spacing, NAMES)
            return save(figure, tmp_path / f"{i}.png").read_bytes()

        with ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(draw, range(4)))) == 1
        code = "import sys, hsf_tune.figures; print('matplotlib.pyplot' in sys.modules)"
        out = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert out.stdout.strip() == "False"
