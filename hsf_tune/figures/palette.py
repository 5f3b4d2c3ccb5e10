"""The colours that all figures share, told apart by colour-blind readers too.

Okabe and Ito 2008, "Color Universal Design", without black; then Tol 2021, "muted".
Labels with neighbouring numbers are mostly neighbours in space and get colours that
differ much; yellow, which pales on white, comes late.
"""

from __future__ import annotations

from collections.abc import Sequence

from hsf_tune.modes import MODES

PALETTE = (
    "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#F0E442",
    "#44AA99", "#882255", "#DDCC77", "#332288", "#999933",
)  # fmt: skip
ARM_COLORS = {**{name: mode.color for name, mode in MODES.items()}, "head": "#CC79A7"}
INK, MUTED, FAINT = "#222222", "#767676", "#DDDDDD"


def label_color(label: int) -> str:
    """The colour of a label index from 1 on, the same in every figure; repeats after 12."""
    return PALETTE[(label - 1) % len(PALETTE)]


def arm_colors(arms: Sequence[str]) -> dict[str, str]:
    """A colour for each arm: fixed for the four that we ship, free ones for the others."""
    free = [color for color in PALETTE if color not in ARM_COLORS.values()]
    others = [arm for arm in arms if arm not in ARM_COLORS]
    chosen = {arm: free[i % len(free)] for i, arm in enumerate(others)}
    return {arm: ARM_COLORS.get(arm) or chosen[arm] for arm in arms}
