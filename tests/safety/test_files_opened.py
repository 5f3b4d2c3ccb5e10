"""What a command opens, removes and calls is on a list: the system's, and what the user named."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SAFETY = ROOT / "tests" / "safety"
SYSTEM = (  # the interpreter's and the system's own
    sys.prefix, sys.base_prefix, str(Path(sys.prefix).resolve()), str(Path(sys.executable).resolve().parents[1]),
    "/proc", "/sys", "/dev", "/usr", "/lib", "/lib64", "/bin",
    "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types", "/etc/passwd", "/etc/nsswitch.conf",
    "/etc/os-release", "/etc/resolv.conf", "/etc/hosts", "/etc/fonts", "/etc/ssl", "/etc/timezone",
    "/etc/host.conf", "/etc/group", "/etc/gai.conf", "/etc/debian_version", "/etc/lsb-release",
    "/etc/httpd/conf/mime.types", "/etc/httpd/mime.types", "/etc/apache", "/etc/apache2",
)  # fmt: skip
OURS = ("hsf_tune", "conf", "search_spaces", "scripts", "tune.py", "finetune.py", "tests/safety/audit",
        "hsf_tune.egg-info", ".venv")  # fmt: skip
LIBRARIES = (  # places of known libraries in the user's home: Matplotlib, Fontconfig, PyTorch, Ray
    ".cache/matplotlib", ".config/matplotlib", ".matplotlib", ".cache/fontconfig", ".fonts",
    ".local/share/fonts", ".cache/torch", ".triton", ".cache/hsf_tune/hsf_tune-cases", ".netrc",
    "_netrc", ".mime.types", ".config/ray", ".ray",
)  # fmt: skip


@pytest.fixture
def world():
    """Of a short name, for Ray's sockets."""
    root = Path(tempfile.mkdtemp(prefix="w", dir="/tmp"))
    subprocess.run([sys.executable, SAFETY / "world.py", root], check=True, env=environment(root))
    yield root
    shutil.rmtree(root)


def environment(root, log=None):
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("HSF_", "RAY_", "MLFLOW_", "MPL"))
    }
    heard = {"AUDIT_LOG": str(log)} if log else {}
    return {
        **kept,
        **heard,
        "PYTHONPATH": f"{ROOT}:{SAFETY / 'audit'}",
        "HOME": str(root / "home"),
        "TMPDIR": str(root / "tmp"),
        "OMP_NUM_THREADS": "1",
        "https_proxy": "http://127.0.0.1:9",
    }


def opened(root, script, *words, code=0):
    """(event, path or address) of all that a command and its children did, and its output."""
    log = root / f"log-{script.replace('/', '-')}"
    log.mkdir()
    done = subprocess.run(
        [sys.executable, ROOT / script, *map(str, words)],
        cwd=root / "work", env=environment(root, log), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    rows = [json.loads(line) for path in log.iterdir() for line in path.read_text().splitlines()]
    return {(row[0], place) for row in rows for place in row[1:]}


def beyond(events, *named):
    """What is on no list; a search's own addresses are those of this machine."""
    allowed = [*SYSTEM, *(str(ROOT / part) for part in OURS), *map(str, named)]
    left = []
    for event, place in sorted(events):
        if event == "socket.connect":
            here = place.startswith(("('127.0.0.1'", "('::1'", "b'", "'/", "('localhost'"))
            if not here:
                left.append((event, place))
        elif place.endswith(".__path_hook__"):
            continue  # no file: how an editable installation is looked up
        elif not any(place == part or place.startswith(f"{part}/") for part in allowed):
            left.append((event, place))
    return left


def lists(root, run):
    home = [root / "home" / part for part in LIBRARIES]
    return [*home, root / "tmp", root / "study" / "balls", root / "study" / "base.safetensors",
            root / "work" / "outputs" / run, root / "work" / "mlflow.db"]  # fmt: skip


def test_a_report_of_a_foreign_run_opens_nothing_outside_of_it(world):
    """Its configuration and records name keys, a store, a server; none is opened or called."""
    events = opened(world, "scripts/report.py", "outputs/theirs")
    written = {place for _, place in events if place.startswith(str(world / "work/outputs/theirs"))}
    assert written, "nothing was heard"
    assert beyond(events, *lists(world, "theirs")) == []
    assert not [event for event, _ in events if event == "socket.connect"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_search_and_its_export_open_what_is_named_and_nothing_else(world):
    """On Ray with a store of MLflow; then the run's folder is changed as a stranger might."""
    study = [
        f"datasets={world}/study/study.yaml", f"models.checkpoint={world}/study/base.safetensors",
        "finetuning.out_channels=3", "models.use_forgiving_loss=False", "lightning.accelerator=cpu",
        "lightning.steps_per_epoch=1",
    ]  # fmt: skip
    events = opened(world, "tune.py", "--space", "space.yaml", "--name", "mine", *study)
    own = [world / "work/space.yaml", world / "study/study.yaml", world / "study/base.safetensors"]
    assert beyond(events, *own, *lists(world, "mine")) == []
    run = world / "work" / "outputs" / "mine"
    plain = yaml.safe_load((run / "config.yaml").read_text())
    plain["store"] = {"path": str(world / "elsewhere"), "limit_gb": 1e-9}
    plain["tracking"]["uri"] = "http://127.0.0.1:9"
    plain["datasets"]["output_path"] = str(world / "elsewhere")
    (run / "config.yaml").write_text(yaml.safe_dump(plain))
    records = run / "trials.jsonl"
    key = str(world / "home/.ssh/id_key")
    records.write_text(
        re.sub(r'"figures": \[[^]]*\]', f'"figures": ["{key}"]', records.read_text())
    )
    events = opened(world, "scripts/export.py", "outputs/mine")
    assert beyond(events, world / "work/models", *lists(world, "mine")) == []
    assert not [event for event, _ in events if event == "socket.connect"]
