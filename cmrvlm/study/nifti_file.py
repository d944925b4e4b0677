"""One NIfTI file, checked before it is believed: its header against its size, its stream, its units."""

from __future__ import annotations

import gzip
import io
import math
import os
import stat
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from cmrvlm.errors import CmrvlmError

SUFFIXES = (".nii.gz", ".nii")
_GZIP_MAGIC = b"\x1f\x8b"
# Deflate cannot make a file smaller than this share of its content.
_BEST_COMPRESSION = 1032
# No cardiac series has so many voxels along an axis, or in all.
_LONGEST_AXIS = 4096
_MOST_VOXELS = 2**30
# Slope and intercept beyond these are those of a damaged header.
_LARGEST_SCALE = 1e10
_MM_OF_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_SPATIAL_UNIT = 0x07
_REMEDY = "Write the file again, or leave it out."
Header = Any


@dataclass(frozen=True)
class NiftiContent:
    """What a NIfTI file holds.

    Attributes:
        values: Grey values or labels with the axes of the file, (x, y, z, ...).
        header: Its header, with the fields as stored.
        affine: (4, 4), voxel index to RAS in mm; its third column may be that of time.
    """

    values: NDArray[Any]
    header: Header
    affine: NDArray[np.float64]


def read_content(path: Path) -> NiftiContent:
    """Read a NIfTI file whose header and size agree, whole and checked.

    Raises:
        CmrvlmError: It is no regular file, is damaged, claims more than it holds, or has values
            that are no grey values; file and field of the header are named.
    """
    check_regular_file(path)
    with _open(path) as stream:
        block = _read(stream, 540, path)
        header, size = _parse_header(block, path)
        offset = _check_header(header, size, path)
        needed = offset + math.prod(_shape(header)) * header.get_data_dtype().itemsize
        _check_size(path, needed)
        raw = block + _read(stream, needed - len(block), path)
        # The checksum stands at the end of the stream.
        surplus = len(raw) - needed + _skip_to_end(stream, path, limit=needed)
    if surplus < 0:
        raise _header_error(
            path, "dim", f"the header claims {needed} bytes, the file holds {len(raw)}"
        )
    if surplus >= max(needed - offset, 1):
        raise _header_error(path, "dim", "the file holds far more than the header says")
    described = (_shape(header), header.get_data_dtype(), offset, *_scaling(header))
    proxy = ArrayProxy(io.BytesIO(raw), described)
    return NiftiContent(np.asanyarray(proxy), header, _affine_mm(header, path))


def read_header(path: Path) -> tuple[Header, NDArray[np.float64]]:
    """Read the header of a NIfTI file, and its affine (4, 4) in mm as `read_content` does."""
    check_regular_file(path)
    with _open(path) as stream:
        header, size = _parse_header(_read(stream, 540, path), path)
    _check_header(header, size, path)
    return header, _affine_mm(header, path)


def check_regular_file(path: Path) -> None:
    """Refuse what is no regular file; nothing is opened, as a pipe would wait for ever.

    Raises:
        CmrvlmError: It is missing, a link that leads nowhere, a folder, a pipe or a device, or is
            neither .nii nor .nii.gz.
    """
    remedy = "Give the path of a .nii or .nii.gz file."
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        problem = "there is no such file"
        if path.is_symlink():
            problem = "the link leads nowhere"
        elif not isinstance(error, FileNotFoundError):
            problem = f"the file cannot be opened ({error.strerror})"
        raise CmrvlmError(problem, file=path, remedy=remedy) from error
    if stat.S_ISDIR(mode):
        raise CmrvlmError("this is a folder, no file", file=path, remedy=remedy)
    if not stat.S_ISREG(mode):
        raise CmrvlmError("this is a pipe or a device, no file", file=path, remedy=remedy)
    if not path.name.lower().endswith(SUFFIXES):
        raise CmrvlmError("the name is not that of a NIfTI file", file=path, remedy=remedy)


def _open(path: Path) -> io.BufferedIOBase:
    """Open a file for reading, decompressed where its name ends in .gz.

    Raises:
        CmrvlmError: It cannot be opened, or its name and its content disagree on compression.
    """
    try:
        file = path.open("rb")
        is_gzip = file.read(2) == _GZIP_MAGIC
        file.seek(0)
    except OSError as error:
        raise CmrvlmError(
            f"the file cannot be opened ({error.strerror})", file=path, remedy="Check its rights."
        ) from error
    named_gzip = path.name.lower().endswith(".gz")
    if is_gzip != named_gzip:
        file.close()
        state = "is" if is_gzip else "is not"
        raise CmrvlmError(
            f"the file cannot be read as NIfTI: it {state} compressed, unlike its name says",
            file=path,
            remedy="Rename it, or check the file.",
        )
    if not is_gzip:
        return file
    file.close()
    return gzip.open(path, "rb")


def _read(stream: io.BufferedIOBase, count: int, path: Path) -> bytes:
    """Read up to `count` bytes.

    Raises:
        CmrvlmError: The stream is damaged.
    """
    try:
        return stream.read(max(count, 0))
    except (EOFError, OSError, zlib.error) as error:
        raise CmrvlmError(
            f"the file cannot be read as NIfTI ({error})", file=path, remedy=_REMEDY
        ) from error


def _skip_to_end(stream: io.BufferedIOBase, path: Path, limit: int) -> int:
    """Read a stream to its end, or for `limit` bytes, and return how many bytes there were."""
    count = 0
    while chunk := _read(stream, 1 << 20, path):
        count += len(chunk)
        if count > limit:
            break
    return count


def _parse_header(block: bytes, path: Path) -> tuple[Header, int]:
    """Return the NIfTI-1 or NIfTI-2 header at the beginning of a file, and its size in bytes.

    Raises:
        CmrvlmError: There is none.
    """
    for kind, magic, at in ((nib.Nifti1Header, b"n+1\0", 344), (nib.Nifti2Header, b"n+2\0", 4)):
        size = kind.sizeof_hdr
        if len(block) < size or block[at : at + 4] != magic:
            continue
        for order in ("<", ">"):
            if struct.unpack(f"{order}i", block[:4])[0] == size:
                return kind(block[:size], endianness=order, check=False), size
    raise CmrvlmError("the file cannot be read as NIfTI (no header)", file=path, remedy=_REMEDY)


def _header_error(path: Path, field: str, problem: str) -> CmrvlmError:
    """Return an error about a field of the header."""
    return CmrvlmError(problem, file=path, field=field, remedy=_REMEDY)


def _check_header(header: Header, size: int, path: Path) -> int:
    """Refuse a header that describes no image, and return the offset of its voxels in bytes.

    Args:
        header: The header.
        size: Its size in bytes.
        path: Its file.

    Raises:
        CmrvlmError: A field is impossible.
    """
    _check_type(header, path)
    _check_dimensions(header, path)
    for field in ("scl_slope", "scl_inter"):
        scale = float(header[field])
        if not abs(scale) <= _LARGEST_SCALE:
            raise _header_error(path, field, f"it is {scale:g}")
    slope = float(header["scl_slope"])
    if 0 < abs(slope) < 1 / _LARGEST_SCALE:
        raise _header_error(path, "scl_slope", f"it is {slope:g}")
    offset = float(header["vox_offset"])
    # Before the voxels stand the header and four bytes that say whether extensions follow.
    if not size + 4 <= offset <= _MOST_VOXELS:
        raise _header_error(path, "vox_offset", f"the voxels cannot begin at byte {offset:g}")
    return int(offset)


def _check_type(header: Header, path: Path) -> None:
    """Refuse values that are no grey values, and bits that do not fit them.

    Raises:
        CmrvlmError: The type is unknown, complex or a colour, or has other bits.
    """
    code = int(header["datatype"])
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise _header_error(path, "datatype", f"the type of voxels {code} is unknown") from error
    if dtype.kind not in "iuf":
        raise CmrvlmError(
            f"the voxels are {dtype}, grey values are needed",
            file=path,
            field="datatype",
            remedy="Convert the file.",
        )
    bits = int(header["bitpix"])
    if bits != dtype.itemsize * 8:
        raise _header_error(path, "bitpix", f"{bits} bits for voxels of type {dtype}")


def _shape(header: Header) -> tuple[int, ...]:
    """Return the voxels along each axis of the file."""
    axes = int(header["dim"][0])
    return tuple(int(length) for length in header["dim"][1 : axes + 1])


def _scaling(header: Header) -> tuple[float, float]:
    """Return slope and intercept; a slope of 0 says that values are not scaled."""
    slope = float(header["scl_slope"])
    return (slope, float(header["scl_inter"])) if slope else (1.0, 0.0)


def _check_dimensions(header: Header, path: Path) -> None:
    """Refuse numbers of axes and voxels that no series has.

    Raises:
        CmrvlmError: A dimension is impossible, or the image is one voxel.
    """
    axes = int(header["dim"][0])
    if not 1 <= axes <= 7:
        raise _header_error(path, "dim", f"the image has {axes} axes")
    shape = _shape(header)
    if min(shape) < 1 or max(shape) > _LONGEST_AXIS or math.prod(shape) > _MOST_VOXELS:
        raise _header_error(path, "dim", f"the image has {' x '.join(map(str, shape))} voxels")
    if math.prod(shape[:3]) == 1:
        raise _header_error(path, "dim", "one voxel is no image")


def _check_size(path: Path, needed: int) -> None:
    """Refuse a header that claims more bytes than its file can hold, before memory is taken.

    Raises:
        CmrvlmError: It does.
    """
    size = path.stat().st_size
    most = size * _BEST_COMPRESSION if path.name.lower().endswith(".gz") else size
    if needed > most:
        raise _header_error(
            path, "dim", f"the header claims {needed} bytes, the file can hold {most} at most"
        )


def _affine_mm(header: Header, path: Path) -> NDArray[np.float64]:
    """Return the affine (4, 4) of a header in mm.

    Raises:
        CmrvlmError: It holds a number that is not finite, or the quaternion is none.
    """
    for field in ("srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d"):
        if not np.isfinite(header[field]).all():
            raise _header_error(path, field, "it holds numbers that are not finite")
    if not np.isfinite(header["pixdim"][:4]).all():
        raise _header_error(path, "pixdim", "it holds numbers that are not finite")
    try:
        affine = np.array(header.get_best_affine(), dtype=np.float64)
    except (ValueError, HeaderDataError) as error:
        raise _header_error(path, "quatern", f"this is no rotation ({error})") from error
    if not np.isfinite(affine).all():
        raise _header_error(path, "srow", "the affine holds numbers that are not finite")
    affine[:3] *= mm_of_unit(header)
    return affine


def mm_of_unit(header: Header) -> float:
    """Return the length in mm of the unit of a header; mm where it states none."""
    return _MM_OF_UNIT.get(int(header["xyzt_units"]) & _SPATIAL_UNIT, 1.0)


def spacing_of_header_mm(header: Header) -> NDArray[np.float64]:
    """Return the distances (3,) between voxels along the axes of the file in mm, as `pixdim` has them."""
    return np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64)) * mm_of_unit(header)
