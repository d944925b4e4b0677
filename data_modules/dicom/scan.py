"""Scan the files of a folder for single MR images and read what their headers say of each.

Files without an MR image are left out, with the reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import data_element_generator, read_file_meta_info
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    MRImageStorage,
    UncompressedTransferSyntaxes,
)
from pydicom.valuerep import VR

from cmrvlm.errors import CmrvlmError
from data_modules.dicom.image import Image, image_of
from data_modules.dicom.tags import Tags, words_of
from data_modules.parallel import map_in_processes

_LEGACY_ENHANCED_MR_STORAGE = "1.2.840.10008.5.1.4.1.1.4.4"
_MULTI_FRAME_CLASSES = (EnhancedMRImageStorage, _LEGACY_ENHANCED_MR_STORAGE)
MR_CLASSES = (MRImageStorage, *_MULTI_FRAME_CLASSES)
# Class of a DICOMDIR, the index of a medium.
_DIRECTORY_STORAGE = "1.2.840.10008.1.3.10"
_ARCHIVE_BEGINNINGS = (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!")
# Values of ImageType of a picture of a screen.
_CAPTURE = re.compile(r"\bSAVE\b|SCREEN|CAPTURE")
# Reasons of files whose header was not read, or not as a whole.
_NOT_READ = (
    "AppleDouble",
    "no regular file",
    "empty file",
    "archive",
    "deflated file",
    "no DICOM file",
    "DICOMDIR",
    "header cannot be read",
)
# Compressed pixels need no room in the file; no series of the heart is as large unpacked.
_MOST_PIXEL_BYTES = 2**31
# Values that decoding pixels asks for.
_PIXEL_FIELDS = (
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PhotometricInterpretation",
    "PixelRepresentation",
    "PlanarConfiguration",
)
# Groups of the pixels, of digital signatures and of padding, which end a file.
_LAST_GROUPS = (0x7FE0, 0xFFFA, 0xFFFC)
_UNDEFINED_LENGTH = 0xFFFFFFFF
# Longest value that is read with its tag.
_SHORT = 1024
# Files that a worker reads before it hands its results over.
_FILES_AT_ONCE = 64


@dataclass(frozen=True)
class LeftOut:
    """A file that is no part of any series.

    Attributes:
        file_number: Number of the file among the sorted files of the folder; names of files can
            carry those of patients.
        reason: Reason why the file is left out.
        study: Identifier of the study of an MR image, empty for all else.
    """

    file_number: int
    reason: str
    study: str = ""


def scan(paths: Sequence[Path], workers: int = 1) -> Iterator[list[Image] | LeftOut]:
    """Read the headers of files, of which none is changed.

    Args:
        paths: The files.
        workers: Processes that read.

    Yields:
        For each file, in their order, its images or the reason why it is left out.
    """
    if len(paths) <= _FILES_AT_ONCE:
        workers = 1
    starts = range(0, len(paths), _FILES_AT_ONCE)
    for scanned in map_in_processes(_scan_files, starts, paths, workers, "workers"):
        yield from scanned


def _scan_files(start: int, paths: Sequence[Path]) -> list[list[Image] | LeftOut]:
    """Return for some files, from a number on, their images or the reasons why they are left out."""
    some = paths[start : start + _FILES_AT_ONCE]
    return [_scan_file(path, start + index) for index, path in enumerate(some)]


def _scan_file(path: Path, file_number: int) -> list[Image] | LeftOut:
    """Return the images of a file, or the reason why it is left out."""
    images = read_file(path, file_number)
    if isinstance(images, str):
        return LeftOut(file_number, images, _study_of(path, reason=images))
    return images


def _study_of(path: Path, reason: str) -> str:
    """Return the identifier of the study of an MR image that is left out, empty for all else."""
    if reason.startswith(_NOT_READ):
        return ""
    names = ["SOPClassUID", "StudyInstanceUID"]
    header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=names)
    if header.get("SOPClassUID") not in MR_CLASSES:
        return ""
    try:
        return str(header.get("StudyInstanceUID") or "").strip(" \0")
    # pydicom reads values when they are asked for, and raises these on bad ones.
    except (ValueError, TypeError, OverflowError, LookupError):
        return ""


def files_of(folder: Path) -> list[Path]:
    """Return all files of a folder tree, sorted; linked folders are followed, each once.

    What is no regular file, such as a link to nothing or a folder that may not be read, is among
    them, so that it is named.
    """
    paths: list[Path] = []

    def name_unreadable(error: OSError) -> None:
        paths.append(Path(error.filename))

    visited: set[str] = set()
    for parent, folders, names in os.walk(folder, onerror=name_unreadable, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders.sort()
        paths += [Path(parent, name) for name in names]
    return sorted(paths)


def read_file(path: Path, file_number: int) -> list[Image] | str:
    """Read the header of a file.

    Args:
        path: The file.
        file_number: Number by which messages name the file.

    Returns:
        Images of the file, or the reason why it has none. No reason quotes a value of the header.
    """
    # These hold no image, although they bear the name of one.
    if path.name.startswith("._"):
        return "AppleDouble file of macOS"
    try:
        # Opening a pipe would wait for ever.
        if not path.is_file():
            return "no regular file"
        return _read_regular_file(path, file_number)
    except CmrvlmError as error:
        return f"{error.field}: {error.problem}"
    # One odd file among a million must not end the intake: whatever pydicom makes of it is a
    # reason to leave the file out.
    except Exception as error:  # noqa: BLE001
        return f"header cannot be read ({type(error).__name__})"


def _read_regular_file(path: Path, file_number: int) -> list[Image] | str:
    """Return the images of a file, or the reason why it has none."""
    if path.stat().st_size == 0:
        return "empty file"
    with path.open("rb") as file:
        if file.read(4).startswith(_ARCHIVE_BEGINNINGS):
            return "archive, which has to be unpacked first"
        file.seek(0)
        try:
            # pydicom would unpack all of such a file at once, and a small one can hold gigabytes.
            meta = read_file_meta_info(path)
            if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
                return "deflated file, which has to be unpacked first"
            header = pydicom.dcmread(file, stop_before_pixels=True)
        except InvalidDicomError:
            return "no DICOM file"
        pixel_bytes = path.stat().st_size - file.tell()
        reason = _reason_to_leave_out(header, pixel_bytes)
        if reason:
            return reason
        if not _is_whole_to_its_end(file, header):
            return "damaged in its pixels or after them"
    if header.SOPClassUID in _MULTI_FRAME_CLASSES:
        return _images_of_frames(header, path, file_number)
    return [image_of(header, Tags((header,)), path, file_number, frame=None)]


def _reason_to_leave_out(header: Dataset, pixel_bytes: int) -> str | None:
    """Return why a file holds no image that can be used, or None if it does.

    Args:
        header: Header of the file.
        pixel_bytes: Size of what follows the header.
    """
    storage_class = header.get("SOPClassUID")
    media_class = header.file_meta.get("MediaStorageSOPClassUID", "")
    if storage_class is None or media_class == _DIRECTORY_STORAGE:
        return "DICOMDIR or no image"
    if storage_class not in MR_CLASSES:
        return f"no MR image ({getattr(storage_class, 'name', 'unknown class')})"
    if str(header.get("BurnedInAnnotation", "")).upper() == "YES":
        return "burnt-in annotation"
    # SECONDARY alone is said of every image that is computed from others, such as a filtered one.
    if _CAPTURE.search(" ".join(words_of(header.get("ImageType")))):
        return "secondary capture"
    if int(header.get("SamplesPerPixel") or 1) != 1:
        return "colour image"
    return _reason_unreadable(header, pixel_bytes)


def _reason_unreadable(header: Dataset, pixel_bytes: int) -> str | None:
    """Return why the pixels of a file cannot be read, or None if they can."""
    # Values are converted when they are asked for: one that cannot be is to cost its file alone.
    for field in _PIXEL_FIELDS:
        header.get(field)
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        return None
    if syntax in UncompressedTransferSyntaxes:
        if pixel_bytes < _expected_pixel_bytes(header):
            return "truncated file"
        return None
    if _expected_pixel_bytes(header) > _MOST_PIXEL_BYTES:
        return "pixels that would fill the memory"
    decoder = get_decoder(syntax)
    if decoder.is_available:
        return None
    missing = "; ".join(decoder.missing_dependencies)
    return f"no decoder for {syntax.name}: {missing}"


def _is_whole_to_its_end(file: BinaryIO, header: Dataset) -> bool:
    """Return whether nothing but what may follow pixels follows them, up to the end of the file.

    Bytes that were lost or added within the pixels move all that follows: what is read as pixels is
    then not what was written, and what is read after them is nothing that DICOM knows.

    Args:
        file: The file, at the beginning of its pixels.
        header: Header of the file.
    """
    is_implicit, is_little_endian = header.original_encoding
    # Values stay in the file: lengths that damage has made up must not be reserved in memory.
    last = list(
        data_element_generator(file, bool(is_implicit), bool(is_little_endian), defer_size=_SHORT)
    )
    size = file.seek(0, os.SEEK_END)
    end = size
    for element in last:
        if not isinstance(element, RawDataElement) or element.length == _UNDEFINED_LENGTH:
            end = size
            continue
        is_known = element.tag.group in _LAST_GROUPS or element.tag.is_private
        if is_known and element.VR in (None, *VR):
            end = element.value_tell + element.length
    file.seek(end)
    rest = file.read()
    # Some systems fill the last block of a file with zeros; all of DICOM has an even size.
    return end <= size and len(rest) % 2 == 0 and not any(rest)


def _expected_pixel_bytes(header: Dataset) -> int:
    """Return the size of the uncompressed pixels that a header announces."""
    bits = int(header.get("BitsAllocated") or 16)
    frames = int(header.get("NumberOfFrames") or 1)
    rows = int(header.get("Rows") or 0)
    columns = int(header.get("Columns") or 0)
    return rows * columns * bits // 8 * frames


def _images_of_frames(header: Dataset, path: Path, file_number: int) -> list[Image] | str:
    """Return an image for each frame of a multi-frame file, or the reason why it has none."""
    shared = header.get("SharedFunctionalGroupsSequence", [Dataset()])[0]
    frame_groups = header.get("PerFrameFunctionalGroupsSequence")
    if not frame_groups:
        return "multi-frame file without functional groups"
    images = []
    for frame, group in enumerate(frame_groups):
        # What is said of the frame goes before what is said of all frames.
        tags = Tags((*_macros(group), *_macros(shared), header))
        images.append(image_of(header, tags, path, file_number, frame))
    return images


def _macros(group: Dataset) -> list[Dataset]:
    """Return the data sets in a functional group."""
    sequences = [element for element in group if element.VR == "SQ"]
    return [element.value[0] for element in sequences if len(element.value)]


def without_copies(scanned: Iterable[list[Image] | LeftOut]) -> Iterator[list[Image] | LeftOut]:
    """Yield what was scanned, with a reason in place of each file that is a copy of an earlier one.

    A copy has the identifier of the other and lies at its place and time: tools that remove
    identifiers may give one to all files.
    """
    known: set[tuple[object, ...]] = set()
    for images in scanned:
        if isinstance(images, LeftOut) or not images:
            yield images
            continue
        first = images[0]
        position = None if first.position_mm is None else tuple(first.position_mm)
        times = tuple(sorted(first.times.items()))
        key = (first.instance, first.study, first.series, position, times)
        if first.instance and key in known:
            yield LeftOut(first.file_number, "copy of another file")
        else:
            known.add(key)
            yield images
