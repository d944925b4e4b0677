"""Writes DICOM studies with known pixels and the faults that archives have: pixel = 100 + 10 * slice + frame."""

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


def base_dataset(kind=MRImageStorage, **tags):
    """A minimal MR image."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = kind
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    one.SOPClassUID, one.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    one.Modality, one.Manufacturer, one.MagneticFieldStrength = "MR", "SIEMENS", 1.5
    one.PatientID, one.StudyInstanceUID, one.StudyDate = "P1", "1.2.3", "20200102"
    one.PatientSex, one.PatientAge = "F", "047Y"
    one.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    one.Rows, one.Columns, one.PixelSpacing = ROWS, COLUMNS, list(SPACING_MM)
    one.SliceThickness, one.ImageOrientationPatient = THICKNESS_MM, [*ROW, *COLUMN]
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
    for name, value in tags.items():
        if value is None:
            delattr(one, name)
        else:
            setattr(one, name, value)
    return one


def set_pixels(one, values):
    """Pixels of the stored type."""
    one.PixelData = (
        np.broadcast_to(values, (one.Rows, one.Columns))
        .astype(np.int16 if one.PixelRepresentation else np.uint16)
        .tobytes()
    )


class Archive:
    """Files of one study in a folder.

    Args:
        folder: Where to write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, one, name=None):
        """Write a file; names say nothing unless given."""
        self.count += 1
        path = self.folder / (
            name or f"{hash((self.count * 7919) % 1009) % 100000:05d}-{self.count:04d}.dcm"
        )
        one.save_as(path, enforce_file_format=True)
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
        change=lambda one, s, t: None,
        acquisition=1,
        start_s=36000.0,
    ):
        """A cine stack; `change` alters each image before its pixels are written."""
        for s in range(slices):
            for t in range(frames):
                if (s, t) in skip or (s, None) in skip:
                    continue
                one = base_dataset()
                one.SeriesInstanceUID, one.SeriesDescription = series, description
                one.ImagePositionPatient = [float(v) for v in TO_APEX * position(s)]
                one.TriggerTime = 30.0 * t
                one.InstanceNumber = 1 + (s * frames + t if order == "slice" else t * slices + s)
                one.AcquisitionNumber = acquisition
                one.AcquisitionTime = clock(start_s + 10 * s)
                one.ContentTime = clock(start_s + 10 * s + 0.03 * t)
                one.stored = offset + 100 + 10 * s + t
                change(one, s, t)
                stored = one.__dict__.pop("stored")
                set_pixels(one, stored)
                self.save(one)
        return self

    def stills(self, slices=4, *, series="1.2.3.9", description="lge psir", value=5000, **tags):
        """One image for each slice, parallel to the cine."""
        for s in range(slices):
            one = base_dataset(
                SeriesInstanceUID=series,
                SeriesDescription=description,
                InversionTime=300.0,
                ImagePositionPatient=[float(v) for v in TO_APEX * s * GAP_MM],
                InstanceNumber=s + 1,
                **tags,
            )
            set_pixels(one, value + s)
            self.save(one)
        return self

    def scout(self):
        """Three images of three directions in one series."""
        for number, (row, column) in enumerate(
            (([1, 0, 0], [0, 1, 0]), ([1, 0, 0], [0, 0, -1]), ([0, 1, 0], [0, 0, -1]))
        ):
            one = base_dataset(
                SeriesInstanceUID="1.2.3.8",
                SeriesDescription="localizer",
                InstanceNumber=number + 1,
                ImageOrientationPatient=[float(v) for v in (*row, *column)],
                ImagePositionPatient=[0.0, 0.0, 0.0],
            )
            set_pixels(one, 50)
            self.save(one)
        return self

    def junk(self):
        """What file systems and burners leave behind."""
        (self.folder / "._0001.dcm").write_bytes(b"\x00\x05\x16\x07" + b"\0" * 40)
        (self.folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"nope")
        (self.folder / "readme.txt").write_text("hello")
        return self

    def captured(self, **tags):
        """A secondary capture, or with `tags` an image that says something else of itself."""
        one = base_dataset(
            SecondaryCaptureImageStorage if not tags else MRImageStorage,
            SeriesInstanceUID="1.2.3.7",
            SeriesDescription="screen",
            InstanceNumber=1,
            ImagePositionPatient=[0.0, 0.0, 0.0],
            **tags,
        )
        set_pixels(one, 1)
        self.save(one)
        return self


def clock(seconds):
    """DICOM time of seconds since midnight."""
    return f"{int(seconds // 3600):02d}{int(seconds % 3600 // 60):02d}{seconds % 60:09.6f}"


def enhanced(slices=3, phases=5, stacks=2, seed=0):
    """One multi-frame file: stacks with slopes 1 and 2, frames in random order, a negative distance of slices."""
    one = base_dataset(
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
    one.NumberOfFrames = len(order)
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
    one.SharedFunctionalGroupsSequence = [shared]
    one.PerFrameFunctionalGroupsSequence = []
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
        one.PerFrameFunctionalGroupsSequence.append(group)
        pixels[index] = 100 + 10 * s + t
    one.PixelData = pixels.tobytes()
    return one
