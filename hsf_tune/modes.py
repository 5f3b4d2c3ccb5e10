"""The parts of a network that can be tuned: one row a mode.

A mode is an order in which blocks open. A block is named as the network names its modules; a
name with `*` stands for all modules that it matches, so that a mode of normalisation layers
alone would be one more row here and one arm in a search space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple


class Halves(NamedTuple):
    """Names of a network's blocks, the encoders from the input on, the decoders from the deepest."""

    encoders: tuple[str, ...]
    decoders: tuple[str, ...]


@dataclass(frozen=True)
class Mode:
    """One way to go through a network.

    Attributes:
        opening_order: a network's halves -> its blocks in the order in which they open. The final
            convolution is no block: it always trains.
        phrase: what is tuned, in a sentence.
        color: of its arm in all figures.
    """

    opening_order: Callable[[Halves], tuple[str, ...]]
    phrase: str
    color: str


MODES = {
    "encoder": Mode(lambda halves: halves.encoders, "the encoder", "#0072B2"),
    "decoder": Mode(lambda halves: halves.decoders[::-1], "the decoder", "#D55E00"),
    "full": Mode(
        lambda halves: (*halves.decoders[::-1], *halves.encoders[::-1]),
        "the whole network",
        "#009E73",
    ),
}
if TYPE_CHECKING:
    ModeName = str
else:
    ModeName = Literal[tuple(MODES)]  # what a configuration may say, for pydantic


def n_blocks(halves: Halves) -> dict[str, int]:
    """Mode -> number of blocks that it can open."""
    return {name: len(mode.opening_order(halves)) for name, mode in MODES.items()}
