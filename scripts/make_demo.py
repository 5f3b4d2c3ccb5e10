"""Write the demo's files where its configuration expects them: make_demo.py [FOLDER].

A search writes what it needs by itself; this is for looking at the files beforehand.
"""

import sys
from pathlib import Path

from hsf_tune.data.demo.tasks import TASKS, ensure_demo

if __name__ == "__main__":
    main_path = Path(sys.argv[1] if len(sys.argv) > 1 else "demo_data")
    paths = {name: TASKS[name].path for name in ("contrast", "guideline")}
    ensure_demo(main_path, paths)
    print("\n".join(str(main_path / path) for path in paths.values()))
