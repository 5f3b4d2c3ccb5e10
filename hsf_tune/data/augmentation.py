"""Change training images at random: TorchIO's transforms, in the reference's order.

Labels are index maps throughout and are resampled by nearest neighbour, so that every
voxel has exactly one class afterwards. What is random is fixed by one seed for each
draw; which seed that is, `module.py` decides.
"""

from __future__ import annotations

import numpy as np
import torch
import torchio as tio
from torch import Tensor

from hsf_tune.config import AugmentationConfig
from hsf_tune.data.elastic import RandomElastic


def make_augmentation(config: AugmentationConfig) -> tio.Compose:
    """The transforms that have a chance to act: flip, motion, blur, noise, gamma, affine,
    elastic deformation.

    A flip, once drawn, always happens: TorchIO's `flip_probability` is 1, so that `p`
    means what it says.
    """
    c = config
    transforms = [
        tio.RandomFlip(axes=0, flip_probability=1, p=c.flip.p),  # axis 0 of RAS+: left-right
        tio.RandomMotion(
            degrees=c.motion.degrees,
            translation=c.motion.translation_mm,
            num_transforms=c.motion.num_transforms,
            p=c.motion.p,
        ),
        tio.RandomBlur(std=c.blur.std_mm, p=c.blur.p),
        tio.RandomNoise(mean=0, std=c.noise.std, p=c.noise.p),
        tio.RandomGamma(log_gamma=c.gamma.log_gamma, p=c.gamma.p),
        tio.RandomAffine(
            scales=c.affine.scales,
            degrees=c.affine.degrees,
            translation=c.affine.translation_mm,
            isotropic=c.affine.isotropic,
            p=c.affine.p,
        ),
        RandomElastic(
            num_control_points=c.elastic.control_points,
            max_displacement=c.elastic.max_displacement_mm,
            locked_borders=0,
            p=c.elastic.p,
        ),
    ]
    return tio.Compose([t for t in transforms if t.probability > 0])


def augment(
    transform: tio.Transform,
    image: Tensor,
    labels: Tensor,
    spacing_mm: tuple[float, float, float],
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Draw one change of a case; a pure function of its arguments.

    The global random state is the same afterwards as before.

    Args:
        image: (1, X, Y, Z) float32, RAS+, without padding; not changed.
        labels: (X, Y, Z) uint8 indices; not changed.
        seed: the same seed gives the same result, whatever was drawn before.

    Returns:
        Image and labels of the same shapes and types.
    """
    affine = np.diag([*spacing_mm, 1.0])
    subject = tio.Subject(
        image=tio.ScalarImage(tensor=image.clone(), affine=affine),
        labels=tio.LabelMap(tensor=labels[None].clone(), affine=affine),
    )
    with torch.random.fork_rng(devices=[]):  # TorchIO draws from torch's CPU generator alone
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed GPUs too
        changed = transform(subject)
    return changed["image"].data.float(), changed["labels"].data[0].to(torch.uint8)
