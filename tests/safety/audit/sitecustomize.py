"""Note what this process opens, removes and calls: one file of lines for each process.

Python imports this at its start where its folder is on PYTHONPATH. What libraries open without
Python (safetensors, ONNX Runtime, Ray's own programs) is not seen.
"""

import json
import os
import sys

_PATHS = {
    "open": 1, "os.remove": 1, "os.rename": 2, "os.rmdir": 1, "os.truncate": 1, "os.link": 2,
    "os.symlink": 2, "os.chmod": 1, "shutil.rmtree": 1, "shutil.move": 2, "sqlite3.connect": 1,
    "ctypes.dlopen": 1,
}  # fmt: skip
_FOLDER = os.environ.get("AUDIT_LOG")
_files = {}


def _log():
    pid = os.getpid()
    if pid not in _files:  # also after a fork
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        _files[pid] = os.open(os.path.join(_FOLDER, f"{pid}.jsonl"), flags)
    return _files[pid]


def _note(event, values):
    line = json.dumps([event, *values]) + "\n"
    if line not in _seen:
        _seen.add(line)
        os.write(_log(), line.encode())


_seen = set()
_busy = set()


def _heard(event, arguments):
    number = _PATHS.get(event)
    if event != "socket.connect" and number is None:
        return
    if os.getpid() in _busy:
        return  # the log's own
    _busy.add(os.getpid())
    try:
        if event == "socket.connect":
            _note(event, [repr(arguments[1])])
            return
        paths = [p for p in arguments[:number] if isinstance(p, str | bytes | os.PathLike)]
        _note(event, [os.path.abspath(os.fsdecode(path)) for path in paths])
    except OSError:
        pass  # the working directory is gone
    finally:
        _busy.discard(os.getpid())


if _FOLDER:
    sys.addaudithook(_heard)
