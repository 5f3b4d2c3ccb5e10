"""The wheel: what travels in it, and that a search runs where there is nothing else."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from hsf_tune import __version__

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "hsf_tune", "conf",
           "search_spaces", "benchmarks", "scripts", "tune.py", "finetune.py")  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, as building leaves files behind."""
    place = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source, copy = ROOT / name, place / "source" / name
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(source, copy)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", place, place / "source"], check=True, timeout=200)
    return next(place.glob("*.whl"))


@pytest.fixture
def place(tmp_path):
    """An empty folder and an empty HOME, and an environment of a user's bare shell."""
    (tmp_path / "home").mkdir()
    (tmp_path / "study").mkdir()
    path = os.pathsep.join(["/usr/local/bin", "/usr/bin", "/bin"])
    kept = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL_", "HTTP", "http"))}
    return tmp_path / "study", {**kept, "PATH": path, "HOME": str(tmp_path / "home")}


def test_product_travels_whole_and_alone(wheel):
    """Every module, every YAML of conf/ and search_spaces/, and neither bench nor tests."""
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    product = {str(path.relative_to(ROOT)) for path in ROOT.glob("hsf_tune/**/*") if path.is_file()}
    yaml = {
        f"hsf_tune/{path.relative_to(ROOT)}"
        for folder in ("conf", "search_spaces")
        for path in ROOT.glob(f"{folder}/**/*.yaml")
    }
    assert held == {name for name in product if "__pycache__" not in name} | yaml


def test_configuration_is_found_in_the_wheel(wheel, tmp_path, place):
    """Unpacked, without a clone: its spaces are listed and its groups composed."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "from hsf_tune.cli import compose\n"
        "from hsf_tune.cli.commands import main\n"
        "config, _ = compose.compose_config(compose.parse_overrides(['models=demo']))\n"
        "print(compose.CONF, config.datasets.base)\n"
        "main(['tune', '--list-spaces'])\n"
    )
    cwd, environment = place
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=100,
        env={**environment, "PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    where, *spaces = done.stdout.splitlines()
    assert where == f"{tmp_path}/site/hsf_tune/conf demo"
    assert {line.split()[0] for line in spaces} == {p.stem for p in ROOT.glob("search_spaces/*")}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("libraries", ["of this environment", "installed anew"])
def test_search_runs_from_an_installed_wheel(wheel, tmp_path, place, libraries):
    """In a new environment, an empty folder and an empty HOME; what it prints works there."""
    cwd, environment = place
    programs = tmp_path / "new" / "bin"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "new"], check=True)
    install = [programs / "python", "-m", "pip", "install", "--quiet", wheel]
    if libraries == "of this environment":
        install.append("--no-deps")
        (site,) = (tmp_path / "new").glob("lib/python*/site-packages")
        (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    else:
        install += ["-c", ROOT / "constraints.txt"]
    subprocess.run(install, check=True, env=environment)

    def typed(*words):
        done = subprocess.run(
            [str(word) for word in words], cwd=cwd, env=environment, text=True, timeout=1500,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        print(done.stdout)
        return done.stdout

    assert typed(programs / "hsf-tune", "--version") == f"hsf-tune {__version__}\n"
    said = " ".join(typed(programs / "hsf-tune", "tune", "--space", "quick").split())
    (run,) = (cwd / "outputs").iterdir()
    assert (run / "report.html").stat().st_size > 10_000
    assert f"Repeat it: {programs}/hsf-tune finetune strategy=outputs/{run.name}/" in said
    assert f"{programs}/hsf-tune export outputs/{run.name}" in (run / "report.html").read_text()
    if libraries == "installed anew":
        assert f"Compare the trials with: {programs}/mlflow ui" in said
        typed(programs / "mlflow", "--version")
    assert "verdict" in (run / "report.json").read_text()
    assert run.name in typed(programs / "hsf-tune", "report", f"outputs/{run.name}")
