"""Arrays in, matplotlib figures out: learning curves, overlays, contact sheets.

What is drawn (which case, which trial) and where the file goes is for the callers to
decide. Nothing here touches pyplot's global state: threads may draw at the same time.
"""

from hsf_tune.figures.canvas import save
from hsf_tune.figures.curves import learning_curve
from hsf_tune.figures.palette import arm_colors, label_color
from hsf_tune.figures.volumes import Cell, contact_sheet, overlay, snapshot

__all__ = [
    "Cell",
    "arm_colors",
    "contact_sheet",
    "label_color",
    "learning_curve",
    "overlay",
    "save",
    "snapshot",
]
