"""Draw command lines as a hurried, careless or unlucky user types them."""

from __future__ import annotations

import random
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field

from world import World

SCRIPTS = {
    "tune": "tune.py",
    "finetune": "finetune.py",
    **{
        name: f"scripts/{name}.py"
        for name in ("check", "export", "fetch", "predict", "report", "sync_mlflow")
    },
}
WEIGHTS = {
    "tune": 8, "finetune": 5, "check": 3, "export": 3, "fetch": 2, "predict": 3, "report": 4,
    "sync_mlflow": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A command line.

    Attributes:
        places: folders that it names for what it writes; new files may lie below them.
    """

    command: str
    words: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    places: tuple[str, ...] = ()
    cwd: str = "work"

    def __str__(self) -> str:
        set_ = [f"{key}={shlex.quote(value)}" for key, value in self.environment.items()]
        return " ".join([f"cd {self.cwd};", *set_, SCRIPTS[self.command], shlex.join(self.words)])


def first_line(world: World) -> Line:
    """A finetuning, so that there is a run of one's own."""
    study = Draw(random.Random(0), world).study()
    return Line("finetune", (*study, "tracking.enabled=False", "--name", "mine"))


def draw_line(dice: random.Random, world: World, *, slow: bool) -> Line:
    """One more; only a `slow` one trains with Ray, or has MLflow make a database."""
    draw = Draw(dice, world, slow)
    command = dice.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    words = [str(word) for word in DRAWN[command](draw)]
    if command == "tune" and not slow and "--dry-run" not in words:
        words.append("--dry-run")
    environment, places = draw.environment()
    return Line(
        command,
        tuple(words),
        environment,
        (*draw.places, *places),
        dice.choices(["work", "study"], [5, 1])[0],
    )


class Draw:
    """Pieces of command lines; `places` collects what they name to write to."""

    def __init__(self, dice: random.Random, world: World, slow: bool = False) -> None:
        self.dice, self.world, self.slow = dice, world, slow
        self.places: list[str] = []

    def some(self, chance: float) -> bool:
        return self.dice.random() < chance

    def place(self) -> str:
        """A folder, with a user's files in it as often as not."""
        world = self.world
        chosen = self.dice.choice(
            [
                "outputs", "models", ".", "project", "new", "deep/er", "cases", "checkpoints",
                *map(str, (world.study, world.study / "balls", world.study / "cases", world.home,
                           world.elsewhere, world.elsewhere / "data", world.tmp, world.cache)),
            ]
        )  # fmt: skip
        self.places.append(chosen)
        return chosen

    def name(self) -> str:
        if self.some(0.8):
            return self.dice.choice(
                [
                    "mine", "new", "again", "theirs", "handed", "unfinished", "events", "ids",
                    "links", "weights", "other", "project", "balls", "cases", "checkpoints", "data",
                ]
            )  # fmt: skip
        return self.dice.choice(
            [".", "..", "", "a/b", "../project", "../../elsewhere/data", "../../study/balls",
             "x" * 300, "[/b]", str(self.world.study)]
        )  # fmt: skip

    def run(self) -> str:
        name = self.dice.choice(
            ["mine", "mine", "theirs", "handed", "handed", "unfinished", "events", "ids", "links",
             "records", "weights"]
        )  # fmt: skip
        return str(self.world.work / "outputs" / (name if self.some(0.85) else self.name()))

    def given(self, *names: str) -> str:
        return str(self.world.elsewhere / "given" / f"{self.dice.choice(names)}.yaml")

    def study(self) -> list[str]:
        """The study, small: what a line of any use has."""
        return [
            f"datasets={self.world.study}/study.yaml",
            f"models.checkpoint={self.world.study}/base.safetensors",
            "finetuning.out_channels=3",
            "models.use_forgiving_loss=False",
            "lightning.accelerator=cpu",
            "lightning.max_epochs=1",
            "lightning.steps_per_epoch=1",
            "finetuning.depth=0",
        ]

    def settings(self) -> list[str]:
        """The study, or a file of somebody else's, and settings that name places."""
        words = self.study()
        if self.some(0.3):
            words[0] = "datasets=" + self.given(
                "store", "tracking", "address", "state", "output", "models", "env", "path", "label"
            )
        if self.some(0.15):
            run = self.dice.choice(["mine", "mine", "handed", "links", "other"])
            words[0:1] = [f"strategy={self.world.work}/outputs/{run}/best_strategy.yaml"]
        if self.some(0.4):
            words += [f"store.path={self.place()}", "store.limit_gb=1e-9"]
        if self.some(0.2):
            words.append(f"search.state_dir={self.place()}")
        if self.some(0.2):
            words.append(f"datasets.output_path={self.place()}")
        if self.some(0.1):
            words.append(f"datasets.main_path={self.dice.choice(['.', 'nowhere', '/', ''])}")
        if not self.slow or self.some(0.5):
            words.append("tracking.enabled=False")
        elif self.some(0.3):
            words.append("tracking.uri=sqlite:///own.db")
        return words

    def flags(self) -> list[str]:
        words = []
        if self.some(0.5):
            words += ["--output", self.place()]
        if self.some(0.7):
            words += ["--name", self.name()]
        if self.some(0.1):
            words += ["--config-dir", str(self.dice.choice([self.world.study, "."]))]
        if self.some(0.1):
            words += ["--seed", self.dice.choice(["1", "x", "-1"])]
        return words

    def environment(self) -> tuple[dict[str, str], list[str]]:
        """Variables, and the places that they name."""
        world, chosen = self.world, {}
        places = (world.cache, world.study, world.study / "balls", world.elsewhere, world.home,
                  world.work, world.work / "project")  # fmt: skip
        if self.some(0.7):
            chosen["HSF_TUNE_CACHE"] = self.dice.choice([*map(str, places), ".", ""])
        if self.some(0.2):
            chosen["HOME"] = self.dice.choice([str(world.study), str(world.elsewhere)])
        if self.some(0.2):
            chosen["TMPDIR"] = self.dice.choice([str(world.study), str(world.elsewhere)])
        if self.some(0.1):
            chosen["XDG_CACHE_HOME"] = str(world.study)
        return chosen, [place for place in chosen.values() if place]


def _tune(draw: Draw) -> list[str]:
    if draw.some(0.3):
        name = draw.name()
        more = draw.settings() if draw.some(0.2) else ["tracking.enabled=False"]
        retry = ["--retry-failed"] if draw.some(0.3) else []
        return ["--resume", name, *more, *retry, *(["--output", draw.place()] * draw.some(0.2))]
    words = draw.settings()
    own = str(draw.world.work / "space.yaml")
    space = (
        own if draw.slow or draw.some(0.6) else draw.dice.choice(["quick", "default", "no such"])
    )
    if space != own:
        words.remove("finetuning.depth=0")
    return ["--space", space, *words, *draw.flags(), *(["--dry-run"] * draw.some(0.5))]


def _finetune(draw: Draw) -> list[str]:
    return [*draw.settings(), *draw.flags(), "--threads", "1"]


def _check(draw: Draw) -> list[str]:
    output = ["--output", draw.place()] if draw.some(0.6) else []
    return [*draw.settings(), *output, *(["--no-sheets"] * draw.some(0.5)), "--workers", "1"]


def _export(draw: Draw) -> list[str]:
    words = [draw.run(), "--threads", "1"]
    words += ["--as", "bag"] if draw.some(0.3) else []
    words += ["--to", draw.place()] if draw.some(0.6) else []
    words += ["--name", draw.name()] if draw.some(0.3) else []
    return words + ([] if draw.slow else ["--no-tracking"])


def _fetch(draw: Draw) -> list[str]:
    sum_ = f"sha256:{'0' * 64}"
    sources = ["demo", "none", "hsf", "all", "https://127.0.0.1:9/mine.ckpt", str(draw.world.study)]
    return [draw.dice.choice(sources), *(["--checksum", sum_] * draw.some(0.7))]


def _predict(draw: Draw) -> list[str]:
    study, home = draw.world.study, draw.world.home
    secret = home / ".ssh" / "id_key"
    subject = study / "balls" / f"sub-0{draw.dice.randint(1, 4)}"
    model = draw.dice.choice([draw.run(), study / "base.safetensors", study / "models", secret])
    image = draw.dice.choice([subject / "left_mri.nii.gz", subject / "right_mri.nii.gz", secret])
    words = [model, image, "--threads", "1"]
    words += ["--to", draw.place()] if draw.some(0.5) else []
    words += ["--reference", subject / "left_seg.nii.gz"] if draw.some(0.4) else []
    words += ["--overwrite"] if draw.some(0.4) else []
    return words + (["--uncertainty"] if draw.some(0.3) else [])


def _report(draw: Draw) -> list[str]:
    return [draw.run(), *([draw.run()] if draw.some(0.3) else [])]


def _sync(draw: Draw) -> list[str]:
    away = ["--tracking-uri", "http://127.0.0.1:9"]
    own = draw.dice.choice([[], ["--tracking-uri", "sqlite:///own.db"]])
    return [draw.run(), *(own if draw.slow else away)]


DRAWN: dict[str, Callable[[Draw], list[object]]] = {
    "tune": _tune, "finetune": _finetune, "check": _check, "export": _export, "fetch": _fetch,
    "predict": _predict, "report": _report, "sync_mlflow": _sync,
}  # fmt: skip
