"""The page's first screen: which half to tune, what to use, and what that gains.

It reads the summary, so that the page and `report.json` never differ. Words are those of
a reader who knows MRI and not this program.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hsf_tune.installed import typed
from hsf_tune.records import BASE, DEFAULT
from hsf_tune.strategy import DEPTH, FREQUENCY, LR, MAX_EPOCHS, MODE, strategy_key
from hsf_tune.verdict.sentences import name_of

ANSWERS = {
    "equivalent": "Either: no difference that matters",
    "undecided": "These data can't tell",
    "not_comparable": "Not comparable yet",
    "not_confirmed": "Not known yet",
    "single_arm": "Only one part was searched",
}


class Level(NamedTuple):
    """Dice of one strategy, and whether it was measured on new folds."""

    dice: float | None
    ci95: list[float] | None
    confirmed: bool
    subjects: int


class Gain(NamedTuple):
    """What the recommended strategy gains over a baseline; `limits` (95 %) where it was tested."""

    over: str
    before: float
    after: float
    mean: float
    limits: list[float] | None

    @property
    def remark(self) -> str:
        """What the interval allows."""
        if self.limits is None or self.limits[0] > 0:
            return ""
        return "may be nothing" if self.limits[1] >= 0 else "a loss"


def first_screen(summary: Mapping[str, Any], strategy_file: Path) -> dict[str, Any]:
    """What the three rows say."""
    verdict, recommended = summary["verdict"], summary["recommendation"]
    answer = name_of(verdict["arm"]) if verdict["arm"] else ANSWERS[verdict["status"]]
    both = {"encoder", "decoder"} <= summary["arms"].keys()
    return {
        "question": "Encoder or decoder?" if both else "Which part of the network?",
        "answer": answer[0].upper() + answer[1:],
        "use": in_words(recommended),
        "level": level_of_recommended(summary),
        "command": typed("finetune", f"strategy={strategy_file}")
        if recommended["strategy"]
        else "",
        "gains": list(gains(summary)),
        "is_default": _group(summary) == DEFAULT,
    }


def in_words(recommended: Mapping[str, Any]) -> str:
    """The recommended strategy, as one would tell a colleague."""
    strategy = recommended["strategy"]
    if not strategy:
        unchanged = recommended["arm"] == BASE
        return (
            "Don't finetune: the base model as it is" if unchanged else "Nothing to recommend yet"
        )
    named = {MODE, DEPTH, FREQUENCY, LR, MAX_EPOCHS}
    parts = [
        _blocks(strategy),
        f"learning rate {strategy[LR]:.2g}" if LR in strategy else "",
        f"{strategy[MAX_EPOCHS]} epochs" if MAX_EPOCHS in strategy else "",
        *(
            f"{key.rsplit('.', 1)[-1]} {value}"
            for key, value in strategy.items()
            if key not in named
        ),
    ]
    return ", ".join(part for part in parts if part)


def _blocks(strategy: Mapping[str, Any]) -> str:
    depth, frequency = strategy.get(DEPTH, 0), strategy.get(FREQUENCY, 0)
    if not depth:
        return "Tune the final convolution alone"
    blocks = "1 block" if depth == 1 else f"{depth} blocks"
    pace = "every epoch" if frequency == 1 else f"every {frequency} epochs"
    when = f"one more {pace}" if frequency else "all from the start"
    if depth == 1 and frequency:
        when = f"opened after {frequency} epoch{'s' if frequency > 1 else ''}"
    return f"Tune {name_of(str(strategy.get(MODE)))}: {blocks}, {when}"


def level_of_recommended(summary: Mapping[str, Any]) -> Level:
    """Its confirmed Dice, else the exploration's."""
    own, group = summary["recommendation"], _group(summary)
    if own["confirmed_dice_mean"] is not None:
        return Level(
            own["confirmed_dice_mean"], own["confirmed_dice_ci95"], True, own["n_subjects"]
        )
    fields = {**summary["arms"], **summary["baselines"]}.get(group) or {}
    explored = "best_explored_dice" if group in summary["arms"] else "explored_dice"
    return Level(fields.get(explored), None, False, 0)


def gains(summary: Mapping[str, Any]) -> Iterator[Gain]:
    """Against the unchanged base and the documented default, whichever were confirmed."""
    group, level = _group(summary), level_of_recommended(summary)
    if level.dice is None or not level.confirmed:
        return
    for baseline, text in ((BASE, "the unchanged base"), (DEFAULT, "the documented default")):
        fields = summary["baselines"].get(baseline)
        before = fields and fields["confirmed_dice_mean"]
        if before is None or baseline == group:
            continue
        tested = (d for d in summary["differences"] if d["between"] == [group, baseline])
        test = next((d for d in tested if d["claim"] == "strategy"), None)
        plain = {"mean": level.dice - before, "ci95": None}
        mean, limits = ((test or plain)[field] for field in ("mean", "ci95"))
        yield Gain(text, before, level.dice, mean, limits)


def _group(summary: Mapping[str, Any]) -> str | None:
    """The arm whose best strategy is recommended, or the baseline that is."""
    strategy, arm = summary["recommendation"]["strategy"], summary["recommendation"]["arm"]
    if not strategy:
        return BASE if arm == BASE else None
    key = strategy_key(strategy)
    best = {name: a["best_strategy"] for name, a in summary["arms"].items() if a["best_strategy"]}
    same = [name for name, other in best.items() if strategy_key(other) == key]
    return arm if arm in same else next(iter(same), DEFAULT)
