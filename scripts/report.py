"""Write a run's report again.   python scripts/report.py outputs/NAME [outputs/OTHER ...]"""

import argparse
import sys
from pathlib import Path

from hsf_tune.errors import HsfTuneError
from hsf_tune.finetuning.strategy import describe
from hsf_tune.report import write_report

parser = argparse.ArgumentParser(description="Write report.html and report.json of a run again.")
parser.add_argument("folder", type=Path, help="the run's folder, for example outputs/NAME")
parser.add_argument("others", type=Path, nargs="*", help="runs to compare it with")

if __name__ == "__main__":
    options = parser.parse_args()
    try:
        report = write_report(options.folder, options.others)
    except HsfTuneError as error:
        sys.exit(f"Error: {error}")
    print(report.verdict.sentence)
    advice = report.verdict.recommendation
    print(
        f"Recommended: {describe(advice.strategy) if advice.strategy else 'nothing yet'}. {advice.reason}"
    )
    print(f"Report: {report.html}")
