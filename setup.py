"""What pyproject.toml can't say: two folders of the repository become folders of the package."""

from setuptools import find_packages, setup

FOLDERS = {"hsf_tune.conf": "conf", "hsf_tune.search_spaces": "search_spaces"}

setup(packages=[*find_packages(include=["hsf_tune*"]), *FOLDERS], package_dir=FOLDERS)
