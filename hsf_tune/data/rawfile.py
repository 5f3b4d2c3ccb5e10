"""Read a NIfTI file that nobody vouches for, or say everything that is wrong with it.

The header is judged before a voxel is read, so that a file can claim no more memory than
it can fill; a compressed file is read to its very end, because the usual readers fill a
cut one with zeros without a word. What comes out is nibabel's reading of the same bytes.
What the voxels mean (image or labels, aligned or not) is decided in `checks`.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel import nifti1, nifti2
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from hsf_tune.data.cases import Fault

LARGEST_VOXELS = 2**26  # 400 x 400 x 419; twice a whole head at 0.8 mm, and no crop
GZIP_AT_BEST = 1032  # bytes out of one, the limit of the deflate format
TRAILING_BYTES = 2**24  # that may follow the voxels, and are read only for the checksum
HEADERS = {348: nifti1.header_dtype, 540: nifti2.header_dtype}
SCALARS = {2: "u1", 256: "i1", 4: "i2", 512: "u2", 8: "i4", 768: "u4", 1024: "i8", 1280: "u8",
           16: "f4", 64: "f8", 1536: "f16"}  # fmt: skip
OTHERS = {1: "one bit a voxel", 32: "complex numbers", 1792: "complex numbers",
          2048: "complex numbers", 128: "colours (RGB)", 2304: "colours (RGBA)"}  # fmt: skip


@dataclass(frozen=True)
class RawImage:
    """A scalar 3D volume as its file holds it.

    Attributes:
        values: (X, Y, Z) in the file's own axis order, scaled (`scl_slope`) as nibabel does.
        affine: (4, 4) voxel to mm, RAS+: the sform where it is set, else the qform, else
            nibabel's guess from the voxel sizes.
        sform, qform: (4, 4), or None where the header's code says that there is none.
        header_spacing_mm: `pixdim`, which some programs believe rather than the affine.
        unit: what the header calls a length: "mm", "m", "micron" or "unknown".
        header: nibabel's, for what is written beside the file.
    """

    path: Path
    values: NDArray[Any]
    affine: NDArray[np.float64]
    sform: NDArray[np.float64] | None
    qform: NDArray[np.float64] | None
    header_spacing_mm: tuple[float, float, float]
    unit: str
    header: Any = field(repr=False)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel sides along the file's axes, from the affine."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def placed(self) -> bool:
        """Whether the header says where the volume lies and which way it is turned."""
        return self.sform is not None or self.qform is not None


class BadFile(Exception):
    """What is wrong with one file; `faults` holds at least one."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


def read_raw(path: Path) -> RawImage:
    """Read a `.nii` or `.nii.gz` file from end to end.

    Raises:
        BadFile: anything keeps the file from being a complete scalar 3D volume with a
            place in space. No other exception leaves this function.
    """
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BadFile(Fault(str(path), "is no ordinary file", "an image", _COPY))
            return _read(path, file, os.fstat(file.fileno()).st_size)
    except BadFile:
        raise
    except PermissionError:
        todo = "Ask its owner for the right to read it (chmod a+r)."
        raise BadFile(Fault(str(path), "may not be read by you", "a readable file", todo)) from None
    except Exception as error:  # whatever a damaged file sets off is a fault of the file
        reason = f"can't be read ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        raise BadFile(Fault(str(path), reason, "a complete NIfTI file", _COPY)) from error


def claimed_voxels(path: Path) -> int:
    """What the header claims, at little cost; 0 where `read_raw` will refuse the file."""
    try:
        with path.open("rb") as file:
            opened = _open(path, file, os.fstat(file.fileno()).st_size)
            return math.prod(_shape(opened.header))
    except Exception:  # `read_raw` says what is wrong
        return 0


_COPY = "Copy or export it again, or take it out of the dataset."
_EXPORT = "Export it again as one scalar 3D NIfTI volume."


class _Opened(NamedTuple):
    """A file whose header has been read and found good, and no more than that."""

    stream: IO[bytes]
    zipped: bool
    start: bytes
    header: Any
    length: int  # bytes from the start to the last voxel


def _read(path: Path, file: IO[bytes], size_bytes: int) -> RawImage:
    opened = _open(path, file, size_bytes)
    rest = _fill(path, opened.stream, opened.length - len(opened.start))
    if opened.zipped:
        _read_out(path, opened.stream)
    return _parsed(path, opened.start + rest, opened.header)


def _open(path: Path, file: IO[bytes], size_bytes: int) -> _Opened:
    if size_bytes == 0:
        raise BadFile(Fault(str(path), "is empty (0 bytes)", "a NIfTI image", _COPY))
    zipped = path.name.lower().endswith(".gz")
    if zipped != (file.read(2) == b"\x1f\x8b"):
        found = "is not compressed, although its name ends in .gz" if zipped else "is compressed"
        todo = "Rename it to end in .nii." if zipped else "Rename it to end in .nii.gz."
        if zipped and size_bytes < min(HEADERS):
            found, todo = "is not a compressed file, and too short for an image", _COPY
        raise BadFile(Fault(str(path), found, "a name that fits the content", todo))
    file.seek(0)
    stream: IO[bytes] = gzip.GzipFile(fileobj=file) if zipped else file  # type: ignore[assignment]
    most = size_bytes * GZIP_AT_BEST if zipped else size_bytes
    start = _fill(path, stream, min(HEADERS))
    kind = _kind(path, start)
    start += _fill(path, stream, kind.itemsize - len(start))
    header = np.frombuffer(start, kind, count=1)[0]
    length = _judge(path, header, most, size_bytes)
    return _Opened(stream, zipped, start, header, length)


def _fill(path: Path, stream: IO[bytes], wanted: int) -> bytes:
    """Exactly so many bytes, or a fault that says how many are missing."""
    pieces, held = [], 0
    try:
        while held < wanted:
            piece = stream.read(min(wanted - held, 2**22))
            if not piece:
                break
            pieces.append(piece)
            held += len(piece)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadFile(_damaged(path, error, wanted)) from error
    if held < wanted:
        found = f"is cut short: {wanted - held:,} of the next {wanted:,} bytes are missing"
        raise BadFile(Fault(str(path), found, "a complete file", _COPY))
    return b"".join(pieces)


def _read_out(path: Path, stream: IO[bytes]) -> None:
    """To the end of a compressed file, where its length and checksum stand."""
    seen = 0
    try:
        while piece := stream.read(2**20):
            seen += len(piece)
            if seen > TRAILING_BYTES:
                found = f"goes on for more than {seen:,} bytes after its last voxel"
                raise BadFile(Fault(str(path), found, "an image and no more", _COPY))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadFile(_damaged(path, error, 0)) from error


def _damaged(path: Path, error: Exception, wanted: int) -> Fault:
    if isinstance(error, EOFError):
        after = " in the middle of its voxels" if wanted else " before its checksum"
        return Fault(str(path), f"is cut short: the compressed data ends{after}", "a complete file",
                     _COPY)  # fmt: skip
    found = f"is damaged: it can't be uncompressed ({error})"
    return Fault(str(path), found, "an intact .nii.gz file", _COPY)


def _kind(path: Path, start: bytes) -> np.dtype[Any]:
    """The header's layout: NIfTI-1 or -2, in either byte order."""
    for order in "<>":
        length = int(np.frombuffer(start, f"{order}i4", count=1)[0])
        if length in HEADERS:
            return HEADERS[length].newbyteorder(order)
    found = "does not begin like a NIfTI file"
    raise BadFile(Fault(str(path), found, "a NIfTI-1 or NIfTI-2 image", _EXPORT))


def _judge(path: Path, header: Any, most: int, size_bytes: int) -> int:
    """All that a header can be faulted for; else the bytes from the start to the last voxel."""
    faults = list(_shape_faults(path, header)) + list(_other_faults(path, header))
    if faults:
        raise BadFile(*faults)
    item = np.dtype(SCALARS[int(header["datatype"])]).itemsize
    shape = _shape(header)
    offset = int(header["vox_offset"]) or (352 if header["sizeof_hdr"] == 348 else 544)
    length = offset + math.prod(shape) * item
    if length > most:
        found = (
            f"is cut short: it claims {_times(shape)} voxels, {length:,} bytes, but the file's"
            f" {size_bytes:,} bytes can't hold them"
        )
        raise BadFile(Fault(str(path), found, "a complete file", _COPY))
    return length


def _shape(header: Any) -> tuple[int, ...]:
    n = int(header["dim"][0])
    return tuple(int(d) for d in header["dim"][1 : n + 1])


def _shape_faults(path: Path, header: Any) -> Iterator[Fault]:
    n = int(header["dim"][0])
    if not 1 <= n <= 7:
        found = f"claims {n} dimensions"
        yield Fault(str(path), found, "three; its header is damaged", _COPY)
        return
    shape = _shape(header)
    if any(d < 1 for d in shape):
        empty = "is empty: it" if 0 in shape and min(shape) == 0 else "has a damaged header: it"
        found = f"{empty} claims {_times(shape)} voxels"
        yield Fault(str(path), found, "at least one voxel along each axis", _COPY)
    elif math.prod(shape) > LARGEST_VOXELS:
        found = f"claims {_times(shape)} voxels, {math.prod(shape):.2g} in all"
        todo = (
            "Crop it to the hippocampus; if it is a crop, its header is damaged: export it again."
        )
        yield Fault(str(path), found, f"at most {LARGEST_VOXELS:,}", todo)
    elif len(shape) < 3 or any(d != 1 for d in shape[3:]):
        found = f"is no 3D volume but {_times(shape)} voxels"
        todo = "Export the one volume that the labels were drawn on."
        yield Fault(str(path), found, "x*y*z, or x*y*z*1", todo)


def _other_faults(path: Path, header: Any) -> Iterator[Fault]:
    code = int(header["datatype"])
    if code not in SCALARS or (code == 1536 and np.dtype("f16").itemsize != 16):
        found = f"holds {OTHERS.get(code, f'values of an unknown type (datatype {code})')}"
        yield Fault(str(path), found, "one number a voxel", _EXPORT)
    offset = float(header["vox_offset"])
    least = int(header["sizeof_hdr"]) + 4
    if offset != 0 and not least <= offset <= TRAILING_BYTES:
        found = f"has its voxels start at byte {offset:g}"
        yield Fault(str(path), found, f"{least} or somewhat more", _COPY)
    magic = bytes(header["magic"])[:3]
    if magic not in (b"n+1", b"n+2"):
        found = f"is marked {magic!r}, a header whose voxels lie in another file"
        yield Fault(str(path), found, "one .nii or .nii.gz file", "Convert the pair to one file.")
    sides = [float(side) for side in header["pixdim"][1:4]]
    if not all(math.isfinite(side) and side > 0 for side in sides):
        found = f"has voxel sizes of {' x '.join(f'{side:g}' for side in sides)} mm (pixdim)"
        todo = "Correct the header (fslchpixdim, or nibabel's set_zooms), or export it again."
        yield Fault(str(path), found, "three positive sizes", todo)


def _parsed(path: Path, content: bytes, header: Any) -> RawImage:
    """nibabel's reading of bytes that passed."""
    kind = nib.Nifti2Image if int(header["sizeof_hdr"]) == 540 else nib.Nifti1Image
    image = kind.from_stream(io.BytesIO(content))
    affine = np.asarray(image.affine, dtype=np.float64)
    _require_invertible(path, affine)
    values = np.asanyarray(image.dataobj).reshape(_shape(header)[:3])
    x, y, z = (float(side) for side in header["pixdim"][1:4])
    return RawImage(
        path=path,
        values=values,
        affine=affine,
        sform=image.header.get_sform(coded=True)[0],
        qform=_qform(image.header),
        header_spacing_mm=(x, y, z),
        unit=_unit(int(header["xyzt_units"])),
        header=image.header,
    )


def _qform(header: Any) -> NDArray[np.float64] | None:
    """None also where the quaternion is none; the affine is then the sform's."""
    try:
        return header.get_qform(coded=True)[0]
    except (ValueError, HeaderDataError):
        return None


def _unit(code: int) -> str:
    return {1: "m", 2: "mm", 3: "micron"}.get(code & 7, "unknown")


def _require_invertible(path: Path, affine: NDArray[np.float64]) -> None:
    todo = "Correct the header's sform or qform, or export the image again."
    expected = "an affine that gives each voxel its own place"
    if not np.isfinite(affine).all():
        raise BadFile(Fault(str(path), "has an affine with NaN or infinity", expected, todo))
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    if not (sides > 1e-6).all() or not (sides < 1e6).all():
        found = f"has voxel sizes of {' x '.join(f'{side:g}' for side in sides)} mm (affine)"
        raise BadFile(Fault(str(path), found, "three positive sizes", todo))
    if abs(np.linalg.det(affine[:3, :3] / sides)) < 1e-3:
        found = "has a singular affine: its axes lie in one plane"
        raise BadFile(Fault(str(path), found, expected, todo))


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)
