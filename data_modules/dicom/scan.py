"""Scan the files of a folder for single MR images and read what their headers say of each.

Files without an MR image are left out, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage, UncompressedTransferSyntaxes

from data_modules.dicom.image import Image, Tags, image_of

MR_CLASSES = (MRImageStorage, EnhancedMRImageStorage)
# Class of a DICOMDIR, the index of a medium.
_DIRECTORY_STORAGE = "1.2.840.10008.1.3.10"


@dataclass(frozen=True)
class LeftOut:
    """A file that is no part of any series.

    Attributes:
        file_number: Number of the file among the sorted files of the folder; names of files can
            carry those of patients.
        reason: Reason why the file is left out.
    """

    file_number: int
    reason: str


def scan(paths: Iterable[Path]) -> Iterator[list[Image] | LeftOut]:
    """Read the headers of files, of which none is changed.

    Yields:
        Images of each file, or the reason why it is left out.
    """
    for file_number, path in enumerate(paths):
        images = read_file(path, file_number)
        if isinstance(images, str):
            yield LeftOut(file_number, reason=images)
        else:
            yield images


def files_of(folder: Path) -> list[Path]:
    """Return all files of a folder tree, sorted."""
    paths = folder.rglob("*")
    return sorted(path for path in paths if path.is_file())


def read_file(path: Path, file_number: int) -> list[Image] | str:
    """Read the header of a file.

    Args:
        path: The file.
        file_number: Number by which messages name the file.

    Returns:
        Images of the file, or the reason why it has none.
    """
    # These hold no image, although they bear the name of one.
    if path.name.startswith("._"):
        return "AppleDouble file of macOS"
    if path.stat().st_size == 0:
        return "empty file"
    try:
        with path.open("rb") as file:
            header = pydicom.dcmread(file, stop_before_pixels=True)
            pixel_bytes = path.stat().st_size - file.tell()
    except InvalidDicomError:
        return "no DICOM file"
    except (OSError, ValueError, KeyError, EOFError, AttributeError) as error:
        return f"header cannot be read ({type(error).__name__})"
    reason = _reason_to_leave_out(header, pixel_bytes)
    if reason:
        return reason
    if header.SOPClassUID == EnhancedMRImageStorage:
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
        return f"no MR image ({getattr(storage_class, 'name', storage_class)})"
    if str(header.get("BurnedInAnnotation", "")).upper() == "YES":
        return "burnt-in annotation"
    image_type = [str(value).upper() for value in header.get("ImageType", ())]
    if {"SECONDARY", "SAVE"} & set(image_type) or "SCREEN SAVE" in " ".join(image_type):
        return "secondary capture"
    return _reason_unreadable(header, pixel_bytes)


def _reason_unreadable(header: Dataset, pixel_bytes: int) -> str | None:
    """Return why the pixels of a file cannot be read, or None if they can."""
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        return None
    if syntax in UncompressedTransferSyntaxes:
        if pixel_bytes < _expected_pixel_bytes(header):
            return "truncated file"
        return None
    decoder = get_decoder(syntax)
    if decoder.is_available:
        return None
    missing = "; ".join(decoder.missing_dependencies)
    return f"no decoder for {syntax.name}: {missing}"


def _expected_pixel_bytes(header: Dataset) -> int:
    """Return the size of the uncompressed pixels that a header announces."""
    bits = int(header.get("BitsAllocated", 16))
    frames = int(header.get("NumberOfFrames", 1) or 1)
    rows = int(header.get("Rows", 0))
    columns = int(header.get("Columns", 0))
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
