"""Write DICOM studies with known pixels and the faults that archives have.

A pixel of a cine is 100 + 10 * slice + frame.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)

ROWS, COLUMNS = 24, 32
# An oblique short axis: base to apex goes left, forward and down.
ROW = np.array([0.792067, 0.0, 0.610434])
COLUMN = np.array([0.377686, 0.785613, -0.490067])
TO_APEX = -np.cross(ROW, COLUMN)
GAP_MM, THICKNESS_MM, SPACING_MM = 10.0, 8.0, (1.5, 1.25)


def base_dataset(storage_class=MRImageStorage, **tags):
    """Build a minimal MR image; `tags` are set on it, or deleted where they are None."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = storage_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID = storage_class
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    image.Modality = "MR"
    image.Manufacturer = "SIEMENS"
    image.MagneticFieldStrength = 1.5
    image.PatientID = "P1"
    image.PatientSex = "F"
    image.PatientAge = "047Y"
    image.StudyInstanceUID = "1.2.3"
    image.StudyDate = "20200102"
    image.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    image.Rows = ROWS
    image.Columns = COLUMNS
    image.PixelSpacing = list(SPACING_MM)
    image.SliceThickness = THICKNESS_MM
    image.ImageOrientationPatient = [*ROW, *COLUMN]
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.BitsAllocated = 16
    image.BitsStored = 16
    image.HighBit = 15
    image.PixelRepresentation = 0
    for name, value in tags.items():
        if value is None:
            delattr(image, name)
        else:
            setattr(image, name, value)
    return image


def set_pixels(image, values):
    """Set the pixels of an image, in its stored type."""
    image.PixelData = (
        np.broadcast_to(values, (image.Rows, image.Columns))
        .astype(np.int16 if image.PixelRepresentation else np.uint16)
        .tobytes()
    )


class Archive:
    """Files of one study in a folder.

    Args:
        folder: Folder to write to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, image, name=None):
        """Write a file, by default under a name that tells nothing."""
        self.count += 1
        path = self.folder / (
            name or f"{hash((self.count * 7919) % 1009) % 100000:05d}-{self.count:04d}.dcm"
        )
        image.save_as(path, enforce_file_format=True)
        return path

    def cine(
        self,
        slices=4,
        frames=25,
        *,
        series="1.2.3.1",
        description="cine sax",
        order="slice",
        offset=0,
        position=lambda index: index * GAP_MM,
        skip=(),
        change=lambda image, s, t: None,
        acquisition=1,
        start_s=36000.0,
    ):
        """Write a cine stack; `change` alters each image before its pixels are written."""
        for s in range(slices):
            for t in range(frames):
                if (s, t) in skip or (s, None) in skip:
                    continue
                image = base_dataset()
                image.SeriesInstanceUID, image.SeriesDescription = series, description
                image.ImagePositionPatient = [float(v) for v in TO_APEX * position(s)]
                image.TriggerTime = 30.0 * t
                image.InstanceNumber = 1 + (s * frames + t if order == "slice" else t * slices + s)
                image.AcquisitionNumber = acquisition
                image.AcquisitionTime = clock(start_s + 10 * s)
                image.ContentTime = clock(start_s + 10 * s + 0.03 * t)
                image.stored = offset + 100 + 10 * s + t
                change(image, s, t)
                stored = image.__dict__.pop("stored")
                set_pixels(image, stored)
                self.save(image)
        return self

    def stills(self, slices=4, *, series="1.2.3.9", description="lge psir", value=5000, **tags):
        """Write one image for each slice, parallel to the cine."""
        for s in range(slices):
            image = base_dataset(
                SeriesInstanceUID=series,
                SeriesDescription=description,
                ImagePositionPatient=[float(v) for v in TO_APEX * s * GAP_MM],
                InstanceNumber=s + 1,
                **{"InversionTime": 300.0, **tags},
            )
            set_pixels(image, value + s)
            self.save(image)
        return self

    def scout(self):
        """Write three images of three directions in one series."""
        for number, (row, column) in enumerate(
            (([1, 0, 0], [0, 1, 0]), ([1, 0, 0], [0, 0, -1]), ([0, 1, 0], [0, 0, -1]))
        ):
            image = base_dataset(
                SeriesInstanceUID="1.2.3.8",
                SeriesDescription="localizer",
                InstanceNumber=number + 1,
                ImageOrientationPatient=[float(v) for v in (*row, *column)],
                ImagePositionPatient=[0.0, 0.0, 0.0],
            )
            set_pixels(image, 50)
            self.save(image)
        return self

    def junk(self):
        """Write what file systems and burners leave behind."""
        (self.folder / "._0001.dcm").write_bytes(b"\x00\x05\x16\x07" + b"\0" * 40)
        (self.folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"nope")
        (self.folder / "readme.txt").write_text("hello")
        return self

    def captured(self, **tags):
        """Write a secondary capture, or an MR image with `tags` by which it is left out."""
        image = base_dataset(
            SecondaryCaptureImageStorage if not tags else MRImageStorage,
            SeriesInstanceUID="1.2.3.7",
            SeriesDescription="screen",
            InstanceNumber=1,
            ImagePositionPatient=[0.0, 0.0, 0.0],
            **tags,
        )
        set_pixels(image, 1)
        self.save(image)
        return self


def clock(seconds):
    """Return seconds since midnight as a DICOM time."""
    return f"{int(seconds // 3600):02d}{int(seconds % 3600 // 60):02d}{seconds % 60:09.6f}"


def enhanced(slices=3, phases=5, stacks=2, seed=0):
    """Build a multi-frame file: two stacks with slopes 1 and 2, frames in random order.

    The distance of slices that it states is negative.
    """
    image = base_dataset(
        EnhancedMRImageStorage,
        SeriesInstanceUID="1.2.3.5",
        SeriesDescription="cine sax",
        PixelSpacing=None,
        ImageOrientationPatient=None,
        SliceThickness=None,
        InstanceNumber=1,
    )
    keys = [(k, s, t) for k in range(stacks) for s in range(slices) for t in range(phases)]
    order = [keys[i] for i in np.random.default_rng(seed).permutation(len(keys))]
    image.NumberOfFrames = len(order)
    shared = Dataset()
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness, measures.SpacingBetweenSlices = (
        list(SPACING_MM),
        8.0,
        -10.0,
    )
    orientation = Dataset()
    orientation.ImageOrientationPatient = [float(v) for v in (*ROW, *COLUMN)]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    image.SharedFunctionalGroupsSequence = [shared]
    image.PerFrameFunctionalGroupsSequence = []
    pixels = np.zeros((len(order), ROWS, COLUMNS), dtype=np.uint16)
    for index, (k, s, t) in enumerate(order):
        group, content, plane, scale, trigger = (Dataset() for _ in range(5))
        content.StackID, content.InStackPositionNumber, content.TemporalPositionIndex = (
            str(k + 1),
            s + 1,
            t + 1,
        )
        plane.ImagePositionPatient = [float(v) for v in TO_APEX * s * GAP_MM]
        scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = float(k + 1), 0.0, "US"
        trigger.NominalCardiacTriggerDelayTime = 40.0 * t
        group.FrameContentSequence, group.PlanePositionSequence = [content], [plane]
        group.PixelValueTransformationSequence, group.CardiacSynchronizationSequence = (
            [scale],
            [trigger],
        )
        image.PerFrameFunctionalGroupsSequence.append(group)
        pixels[index] = 100 + 10 * s + t
    image.PixelData = pixels.tobytes()
    return image
