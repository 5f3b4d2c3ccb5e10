"""Run random command lines in a small world and list what was touched that should not be.

    python tests/safety/run_lines.py FOLDER --seed 1 --lines 20 --slow 0

Each line runs in a process of its own, forked from this one once all is imported, and in the
world as those before it left it. The exit code is 1 where a line touched something, did not
end, or ended with a traceback.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import re
import runpy
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from command_lines import SCRIPTS, Line, draw_line, first_line
from world import Stamp, World, hand_over, lay

ROOT = Path(__file__).parents[2]
LONGEST_S = 240
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1", "https_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1",
    "GIT_PYTHON_REFRESH": "quiet",
}  # fmt: skip
IMPORTED = (
    "torch", "hsf_tune.cli.search", "hsf_tune.cli.training", "hsf_tune.cli.export", "hsf_tune.cli.check",
    "hsf_tune.cli.predict", "hsf_tune.cli.fetch", "hsf_tune.report", "hsf_tune.tracking",
    "pytorch_lightning", "optuna", "matplotlib.figure", "mlflow.tracking", "monai.losses",
    "sklearn.metrics", "tensorboardX", "PIL.PngImagePlugin", "omegaconf", "pytest",
)  # fmt: skip
# what commands write beside what a line names: runs, the drawn demo, models, MLflow's own
IN_WORK = ("outputs", "demo_data", "models", "mlflow.db", "mlruns", "mlartifacts", "own.db")
IN_HOME = (".cache", ".config", ".ray", ".local")
ANYWHERE = re.compile(r"hsf_tune-cases/|_(pred|uncertainty)\.nii\.gz$|prediction_scores\.csv$")


def main() -> int:
    """Run the lines; 1 if any did what it may not do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="empty or new; its path should be short")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lines", type=int, default=20)
    parser.add_argument(
        "--slow", type=float, default=0.0, help="share of lines that may search or track"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="also the last line that each printed"
    )
    given = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    for name in IMPORTED:
        importlib.import_module(name)
    world = lay(given.folder)
    kept = world.guarded()
    dice = random.Random(given.seed)
    codes: Counter[object] = Counter()
    faults = 0
    for number in range(given.lines):
        slow = dice.random() < given.slow
        line = draw_line(dice, world, slow=slow) if number else first_line(world)
        before, began_s = world.files(), time.monotonic()
        code, said = run(line, world)
        seconds = time.monotonic() - began_s
        found = faults_of(line, world, before, kept, code, said)
        codes[code] += 1
        if number == 0:
            hand_over(world)
        faults += bool(found)
        print(f"{number:3d}  exit {code}  {seconds:5.1f} s  {line}", flush=True)
        for fault in found:
            print(f"     FAULT {fault}", flush=True)
        kept = {path: stamp for path, stamp in kept.items() if str(path) not in " ".join(found)}
        if given.verbose:
            print(f"     > {' '.join(said.splitlines()[-1:])[:300]}", flush=True)
        if found:
            print("     | " + "\n     | ".join(said.splitlines()[-25:]), flush=True)
    print(f"{given.lines} lines, {len(kept)} files guarded, exit codes {dict(codes)}")
    print(f"{faults} lines with faults", flush=True)
    return int(faults > 0)


def faults_of(
    line: Line, world: World, before: dict[Path, Stamp], kept: dict[Path, Stamp], code: int | None,
    said: str,
) -> list[str]:  # fmt: skip
    """What a line did that it may not do."""
    found = [] if code is not None else [f"did not end in {LONGEST_S} s"]
    if "Traceback (most recent call last)" in said:
        found.append("a traceback")
    now = world.files()
    for path, stamp in kept.items():
        if now.get(path) != stamp:
            found.append(f"{'changed' if path in now else 'gone'}: {path}")
    places = _places(line, world)
    for path in now.keys() - before.keys():
        inside = any(path.is_relative_to(place) for place in places)
        if not inside and not ANYWHERE.search(str(path)):
            found.append(f"new: {path}")
    return found


def _places(line: Line, world: World) -> list[Path]:
    cwd = world.root / line.cwd
    home = Path(line.environment.get("HOME", world.home))
    named = [(cwd / place).resolve() for place in line.places]
    return [
        *named,
        *(cwd / name for name in IN_WORK),
        *(home / name for name in IN_HOME),
        cwd / "mlflow.db-journal",
        world.tmp,
        world.work / "outputs",
    ]


def run(line: Line, world: World) -> tuple[int | None, str]:
    """Exit code, None where it did not end, and what was printed."""
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            _become(line, world, output.fileno())
        code = _wait(child)
        output.seek(0)
        return code, output.read().decode(errors="replace")


def _become(line: Line, world: World, output: int) -> None:
    """The child: the command as its script runs it. Does not return."""
    code = 1
    try:
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(world.root / line.cwd)
        usual = {"HOME": str(world.home), "TMPDIR": str(world.tmp)}
        os.environ.update({**usual, **line.environment})
        tempfile.tempdir = None  # it was read from the environment at the first use
        script = ROOT / SCRIPTS[line.command]
        sys.argv = [str(script), *line.words]
        runpy.run_path(str(script), run_name="__main__")
        code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(child: int) -> int | None:
    until = time.monotonic() + LONGEST_S
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


if __name__ == "__main__":
    sys.exit(main())
