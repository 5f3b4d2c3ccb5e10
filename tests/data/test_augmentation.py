from __future__ import annotations

import numpy as np
import pytest
import torch
import torchio as tio

from hsf_tune.config import AugmentationConfig, config_from_dict
from hsf_tune.data.augmentation import augment, make_augmentation
from hsf_tune.data.elastic import RandomElastic

SPACING = (0.5, 0.5, 0.5)
NAMES = ["flip", "motion", "blur", "noise", "gamma", "affine", "elastic"]
SPATIAL = {"flip", "affine", "elastic"}


def case(size=(24, 40, 24)):
    """A z-normalised image with a bright box in it, and the box as label 3."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(size, dtype=torch.uint8)
    x, y, z = size
    labels[x // 4 : x // 2, y // 4 : y // 2, z // 4 : z // 2] = 3
    image = torch.randn(1, *size, generator=generator) * 0.1 + labels
    return (image - image.mean()) / image.std(), labels


def only(name, p=1.0):
    """The default configuration with one transform left, and that one certain."""
    plain = {"datasets": {"main_path": ".", "datasets": {"a": DATASET}}}
    plain["augmentation"] = {n: {"p": p if n == name else 0.0} for n in NAMES}
    return config_from_dict(plain).augmentation


DATASET = {
    "path": "a",
    "ca_type": "1/2/3",
    "patterns": {"t2": {"mri": "*", "label": "*"}},
    "labels": {1: 1},
    "labels_names": {1: "DG"},
}


def test_the_defaults_are_the_references_transforms_in_its_order():
    transforms = make_augmentation(AugmentationConfig()).transforms
    assert [type(t) for t in transforms] == [
        tio.RandomFlip,
        tio.RandomMotion,
        tio.RandomBlur,
        tio.RandomNoise,
        tio.RandomGamma,
        tio.RandomAffine,
        RandomElastic,
    ]
    assert [t.probability for t in transforms] == [0.5, 0.1, 0.1, 0.1, 0.1, 0.2, 0.1]
    _, motion, blur, noise, gamma, affine, elastic = transforms
    assert motion.degrees_range == motion.translation_range == (-5, 5)
    assert motion.num_transforms == 3
    assert blur.std_ranges == (0, 0.5) * 3
    assert (noise.mean_range, noise.std_range) == ((0, 0), (0, 0.5))
    assert gamma.log_gamma_range == (-0.4, 0.4)
    assert affine.scales == (0.7, 1.3) * 3
    assert (affine.degrees, affine.translation) == ((-30, 30) * 3, (-5, 5) * 3)
    assert not affine.isotropic
    assert elastic.num_control_points == (4, 4, 4)
    assert elastic.max_displacement == (4, 4, 4)
    assert elastic.num_locked_borders == 0


def test_a_flip_fires_as_often_as_its_p_says_and_swaps_left_and_right():
    """TorchIO's own default would flip half as often."""
    transform = make_augmentation(only("flip", p=0.5))
    image, labels = case((8, 8, 8))
    flips = 0
    for seed in range(400):
        changed, moved = augment(transform, image, labels, SPACING, seed)
        flipped = bool((changed != image).any())
        flips += flipped
        assert torch.equal(moved, labels.flip(0) if flipped else labels)
    assert 160 < flips < 240  # four standard deviations about 200


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(24, 40, 24), (5, 9, 7)])
def test_every_voxel_has_one_class_after_each_transform(name, size):
    """No class is lost or made up; small crops work; shapes and types stay."""
    image, labels = case(size)
    kept = image.clone(), labels.clone()
    for seed in range(5):
        changed, moved = augment(make_augmentation(only(name)), image, labels, SPACING, seed)
        assert (changed.shape, changed.dtype) == (image.shape, torch.float32)
        assert (moved.shape, moved.dtype) == (labels.shape, torch.uint8)
        assert set(moved.unique().tolist()) <= {0, 3}
        assert torch.isfinite(changed).all()
        assert not torch.equal(changed, image)
        if name not in SPATIAL:
            assert torch.equal(moved, labels)
    assert torch.equal(image, kept[0])
    assert torch.equal(labels, kept[1])


@pytest.mark.parametrize("name", sorted(SPATIAL))
def test_image_and_labels_move_together(name):
    """The bright box and its label stay on top of each other."""
    image, labels = case()
    for seed in range(5):
        changed, moved = augment(make_augmentation(only(name)), image, labels, SPACING, seed)
        if moved.any():
            inside, outside = changed[0][moved == 3], changed[0][moved == 0]
            assert inside.median() > outside.quantile(0.9)


@pytest.mark.parametrize("name", [*NAMES, "all"])
def test_a_draw_depends_on_its_seed_alone(name):
    """Not on what was drawn before; and the global random state is left as it was."""
    config = AugmentationConfig() if name == "all" else only(name)
    transform, (image, labels) = make_augmentation(config), case((16, 16, 16))
    torch.manual_seed(1)
    first = [augment(transform, image, labels, SPACING, seed) for seed in range(8)]
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    state = torch.get_rng_state()
    again = [augment(transform, image, labels, SPACING, seed) for seed in reversed(range(8))]
    assert torch.equal(torch.get_rng_state(), state)
    for (a, b), (c, d) in zip(first, reversed(again), strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)
    assert not torch.equal(first[0][0], first[1][0]) or name in ("flip", "all")


def test_a_transform_of_probability_0_is_left_out():
    transform = make_augmentation(only("noise", p=0.0))
    assert list(transform.transforms) == []
    image, labels = case((8, 8, 8))
    assert torch.equal(augment(transform, image, labels, SPACING, 0)[0], image)
