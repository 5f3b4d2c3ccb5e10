"""Verdict and records -> one HTML page for people, one JSON file for programs."""

from hsf_tune.report.run import Run, read_run
from hsf_tune.report.write import Report, write_report

__all__ = ["Report", "Run", "read_run", "write_report"]
