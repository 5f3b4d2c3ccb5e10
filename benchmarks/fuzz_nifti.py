"""Damage NIfTI files at random and see that the data gate never crashes and never lies.

    python -m benchmarks.fuzz_nifti                    # 2,000 files, some minutes
    python -m benchmarks.fuzz_nifti --files 50000 --seed 7

A damaged file must either be refused with a fault, or be read to the same voxels and the same
affine as nibabel reads; and `predict.py` must segment it or say why not, in 10 s and 2 GB. Not
part of the tests: run it after changing how files are read. The exit code is 1 if any file was
read differently, crashed, or took too long or too much memory.
"""

from __future__ import annotations

import argparse
import gzip
import io
import logging
import random
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import nibabel as nib
import numpy as np

from hsf_tune.cli.commands import run
from hsf_tune.data.rawfile import BadFile, read_raw
from hsf_tune.finetuning.base import DEMO_BASE

SLOWEST_S = 5.0  # to read; twice as long to segment
MOST_BYTES = 2 * 2**30
EXTREMES = (  # zero, minus one, infinity in both byte orders, NaN, and the ends of integers
    b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x7f\x80\x00\x00", b"\x00\x00\x80\x7f",
    b"\x00\x00\xc0\x7f", b"\xff\x7f", b"\x00\x80", b"\xff\xff\xff\x7f",
)  # fmt: skip


def seeds(dice: random.Random) -> list[bytes]:
    """Sound uncompressed files of several kinds, to be damaged."""
    made = []
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        for dtype in ("u1", "<i2", ">i2", "<f4", "<f8"):
            shape = tuple(dice.randint(6, 20) for _ in range(3)) + dice.choice([(), (1,)])
            values = np.random.default_rng(dice.getrandbits(32)).normal(100, 30, shape)
            header = kind.header_class(endianness=">" if dtype.startswith(">") else "<")
            header.set_data_dtype(np.dtype(dtype))
            affine = np.diag([0.7, 0.8, 1.1, 1])
            image = kind(np.abs(values).astype(dtype), affine, header)
            image.header.set_sform(affine, code=dice.choice([0, 1]))
            image.header.set_qform(affine, code=1)
            made.append(image.to_bytes())
    return made


def flip_bits(data: bytes, dice: random.Random, first: int, last: int) -> bytes:
    """1 to 8 bits turned round between two offsets."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 8)):
        changed[dice.randrange(first, min(last, len(data)))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def strange_numbers(data: bytes, dice: random.Random) -> bytes:
    """A field of the header replaced by an extreme number."""
    changed = bytearray(data)
    at = dice.randrange(0, 340)
    strange = dice.choice([*EXTREMES, dice.randbytes(8)])
    changed[at : at + len(strange)] = strange
    return bytes(changed)


def cut(data: bytes, dice: random.Random) -> bytes:
    """The start of the file, of any length."""
    return data[: dice.randrange(len(data))]


def grown(data: bytes, dice: random.Random) -> bytes:
    """Bytes put in or added somewhere."""
    at = dice.choice([len(data), dice.randrange(len(data))])
    return data[:at] + dice.randbytes(dice.randint(1, 400)) + data[at:]


def damage(data: bytes, dice: random.Random) -> tuple[str, str, bytes]:
    """What was done, the file's suffix, and the damaged file."""
    before: dict[str, Callable[[bytes], bytes]] = {
        "header bits, compressed again": lambda d: flip_bits(d, dice, 0, 352),
        "header numbers, compressed again": lambda d: strange_numbers(d, dice),
        "voxel bits, compressed again": lambda d: flip_bits(d, dice, 352, len(d)),
        "cut, compressed again": lambda d: cut(d, dice),
        "grown, compressed again": lambda d: grown(d, dice),
    }
    after: dict[str, Callable[[bytes], bytes]] = {
        "compressed bits": lambda d: flip_bits(d, dice, 0, len(d)),
        "compressed header": lambda d: flip_bits(d, dice, 0, 20),
        "compressed end": lambda d: flip_bits(d, dice, len(d) - 12, len(d)),
        "compressed, cut": lambda d: cut(d, dice),
        "compressed, grown": lambda d: grown(d, dice),
        "untouched": lambda d: d,
    }
    kind = dice.choice([*before, *after])
    if kind in after:
        return kind, ".nii.gz", after[kind](gzip.compress(data, dice.choice([1, 6])))
    changed = before[kind](data)
    if dice.random() < 0.3:
        return kind.replace(", compressed again", ", plain"), ".nii", changed
    return kind, ".nii.gz", gzip.compress(changed, 1)


def judge(path: Path) -> str:
    """ "refused", "same", or what went wrong."""
    start = time.perf_counter()
    try:
        raw = read_raw(path)
    except BadFile as bad:
        slow = time.perf_counter() - start > SLOWEST_S
        return "WRONG: took too long" if slow or not bad.faults else "refused"
    except Exception as error:
        return f"WRONG: crashed with {type(error).__name__}: {error}"
    try:
        image = nib.load(path)
        values, affine = np.asanyarray(image.dataobj), image.affine
    except Exception as error:
        return f"WRONG: read what nibabel refuses ({type(error).__name__}: {error})"
    same = np.array_equal(values.reshape(raw.values.shape), raw.values, equal_nan=True)
    if not (same and np.array_equal(affine, raw.affine)):
        return "WRONG: read otherwise than nibabel"
    return "WRONG: took too long" if time.perf_counter() - start > 2 * SLOWEST_S else "same"


def segment(path: Path, read: str) -> str:
    """What `judge` said, or what went wrong where the file is to be segmented."""
    start, said = time.perf_counter(), io.StringIO()
    words = [str(DEMO_BASE), str(path), "--to", str(path.parent / "to"), "--overwrite"]
    try:
        with redirect_stdout(said), redirect_stderr(said):
            run("predict", [*words, "--threads", "1"])
    except SystemExit as end:
        if time.perf_counter() - start > 2 * SLOWEST_S:
            return "WRONG: took too long to segment"
        if end.code not in (0, 1) or (end.code == 0 and read == "refused"):
            return f"WRONG: segmenting a {read} file ended with {end.code}"
        return f"{read}, segmented" if end.code == 0 else read
    except BaseException as error:
        return f"WRONG: segmenting crashed with {type(error).__name__}: {error}"
    return "WRONG: segmenting did not end the process"


def more_memory(n_bytes: int) -> None:
    """Let this process take so much beyond what it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + n_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the files that went wrong")
    args = parser.parse_args()
    dice = random.Random(args.seed)
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    more_memory(MOST_BYTES)
    sound, counts = seeds(dice), Counter[tuple[str, str]]()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.files):
            kind, suffix, data = damage(dice.choice(sound), dice)
            path = Path(folder) / f"fuzzed{suffix}"
            path.write_bytes(data)
            result = judge(path)
            if not result.startswith("WRONG"):
                result = segment(path, result)
            counts[kind, result] += 1
            if result.startswith("WRONG") and args.keep:
                args.keep.mkdir(parents=True, exist_ok=True)
                (args.keep / f"{number}{suffix}").write_bytes(data)
    return report(counts, args.files)


def report(counts: Counter[tuple[str, str]], n: int) -> int:
    """Print what became of each kind of damage; 1 if anything went wrong."""
    out = io.StringIO()
    for (kind, result), count in sorted(counts.items()):
        print(f"{count:7}  {kind:38} {result}", file=out)
    wrong = sum(count for (_, result), count in counts.items() if result.startswith("WRONG"))
    refused = sum(count for (_, result), count in counts.items() if result == "refused")
    segmented = sum(count for (_, result), count in counts.items() if "segmented" in result)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(out.getvalue(), end="")
    print(f"{segmented} segmented, {peak:.2f} GB at most")
    print(f"{n} files: {refused} refused, {n - refused - wrong} read as nibabel, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
