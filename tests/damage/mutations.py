"""Damage files by a seed: flipped bits, cuts, swapped parts, and changes of the fields of each format."""

import gzip
import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import torch
import yaml
from numpy.random import Generator

ODD_NUMBERS = [0, -1, 1, 1e-10, 1e10, 1e38, 1e300, float("nan"), float("inf"), -32768, 32767, 2**31]
ODD_VALUES = [None, "", "x", [], {}, [[1]], {"a": 1}, True, *ODD_NUMBERS]


def bytewise(content: bytes, random: Generator) -> bytes:
    """Flip bits, cut, swap, repeat, blank or replace parts of any content."""
    raw = bytearray(content)
    kind = random.integers(8)
    size = len(raw)
    first, second = sorted(random.integers(0, size, 2).tolist())
    if kind == 0:
        for place in random.integers(0, size, random.integers(1, 30)):
            raw[place] ^= 1 << int(random.integers(8))
    elif kind == 1:
        del raw[first:]
    elif kind == 2:
        del raw[first : second + 1]
    elif kind == 3:
        raw[first:first] = raw[first:second]
    elif kind == 4:
        raw[first:second] = bytes(second - first)
    elif kind == 5:
        raw[first:second] = random.bytes(second - first)
    elif kind == 6:
        raw = raw[second:] + raw[:second]
    else:
        raw = bytearray([b"", b"\x00" * 400, b"{}", b"PK\x03\x04", random.bytes(3000)][first % 5])
    return bytes(raw)


# Offset and kind of the fields of a NIfTI-1 header.
_NIFTI = [(40 + 2 * axis, "h") for axis in range(8)] + [(70, "h"), (72, "h"), (123, "B")]
_NIFTI += [(76 + 4 * axis, "f") for axis in range(8)] + [(108, "f"), (112, "f"), (116, "f")]
_NIFTI += [(252, "h"), (254, "h"), (0, "i"), (344, "i")] + [(256 + 4 * i, "f") for i in range(18)]


def nifti(path: Path, content: bytes, random: Generator) -> None:
    """Write a damaged NIfTI file; half of the damage is to fields, half to bytes."""
    raw = bytearray(content)
    if random.random() < 0.6:
        for _ in range(random.integers(1, 3)):
            offset, kind = _NIFTI[random.integers(len(_NIFTI))]
            value = ODD_NUMBERS[random.integers(len(ODD_NUMBERS))]
            if kind != "f":
                limit = {"h": 32767, "B": 255, "i": 2**31 - 1}[kind]
                low = 0 if kind == "B" else -limit
                value = int(np.clip(np.nan_to_num(value, posinf=limit, nan=0), low, limit))
            elif np.isfinite(value):
                value = float(np.clip(value, -3e38, 3e38))
            struct.pack_into(f"<{kind}", raw, offset, value)
        damaged = bytes(raw)
    else:
        damaged = bytewise(content, random)
    packed = gzip.compress(damaged) if path.name.endswith(".gz") else damaged
    if path.name.endswith(".gz") and random.random() < 0.3:
        packed = bytewise(gzip.compress(content), random)
    path.write_bytes(packed)


_TAGS = [
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "SamplesPerPixel",
    "PixelRepresentation",
    "PhotometricInterpretation",
    "PixelSpacing",
    "SliceThickness",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "TriggerTime",
    "InstanceNumber",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "SOPInstanceUID",
    "SOPClassUID",
    "PatientID",
    "SeriesDescription",
    "NumberOfFrames",
    "EchoTime",
    "InversionTime",
    "PixelData",
]
_TEXTS = ["", "x", "1e400", "nan", "-1", "0", "../../x", "\x1b[2J", "9" * 64, "1\\2\\3\\4\\5\\6\\7"]


def dicom(folder: Path, random: Generator) -> None:
    """Damage some files of a folder of DICOM files."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    for path in random.choice(files, random.integers(1, 5), replace=False):
        path = Path(path)
        if random.random() < 0.4:
            path.write_bytes(bytewise(path.read_bytes(), random))
            continue
        data = pydicom.dcmread(path)
        name = _TAGS[random.integers(len(_TAGS))]
        tag = pydicom.datadict.tag_for_keyword(name)
        if tag not in data or random.random() < 0.2:
            data.pop(tag, None)
        elif name in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"):
            data[tag].value = int(random.choice([0, 1, 7, 12, 32, 65535]))
        elif name == "PixelData":
            data.PixelData = data.PixelData[: random.integers(0, len(data.PixelData)) // 2 * 2]
        else:
            text = _TEXTS[random.integers(len(_TEXTS))]
            # Raw, for pydicom would refuse to write most of them.
            raw = pydicom.dataelem.RawDataElement(
                data[tag].tag, data[tag].VR, len(text), text.encode(), 0, False, True
            )
            data._dict[data[tag].tag] = raw
        try:
            data.save_as(path, enforce_file_format=True)
        except (ValueError, TypeError, AttributeError, OverflowError, struct.error):
            path.write_bytes(bytewise(path.read_bytes(), random))


def table(path: Path, text: str, random: Generator) -> None:
    """Write a damaged table."""
    odd = ['"', "\x00", "\u2028", ";", "\t", "[/red]", "=cmd|x", "x" * 400, "\r", "nan", "\ufeff"]
    kind = random.integers(5)
    if kind < 2:
        place = int(random.integers(len(text)))
        text = text[:place] + odd[random.integers(len(odd))] + text[place:]
        path.write_bytes(text.encode())
    elif kind == 2:
        path.write_bytes(text.encode(["utf-16", "cp437", "gb18030"][random.integers(3)], "replace"))
    else:
        path.write_bytes(bytewise(text.encode(), random))


def _change_tree(tree: object, random: Generator) -> object:
    """Return plain data with one value replaced, or one key removed."""
    if isinstance(tree, dict) and tree and random.random() < 0.85:
        key = list(tree)[random.integers(len(tree))]
        if random.random() < 0.15:
            return {name: value for name, value in tree.items() if name != key}
        return tree | {key: _change_tree(tree[key], random)}
    if isinstance(tree, list) and tree and random.random() < 0.7:
        place = int(random.integers(len(tree)))
        return [*tree[:place], _change_tree(tree[place], random), *tree[place + 1 :]]
    return ODD_VALUES[random.integers(len(ODD_VALUES))]


def run_folder(run: Path, random: Generator) -> None:
    """Damage one file of a run folder."""
    names = ["config.yaml", "labels.json", "preprocessing.json", "model.safetensors"]
    names += ["tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json", "fingerprints.json"]
    path = run / names[random.integers(len(names))]
    content = path.read_bytes()
    if random.random() < 0.4 or path.suffix == ".safetensors":
        path.write_bytes(bytewise(content, random))
    elif path.suffix == ".yaml":
        path.write_text(yaml.safe_dump(_change_tree(yaml.safe_load(content), random)))
    else:
        path.write_text(json.dumps(_change_tree(json.loads(content), random)))


def checkpoint(path: Path, random: Generator) -> bool:
    """Damage a checkpoint: its bytes, a member of its archive, or a value in it.

    Returns:
        Whether its own checksums tell that it was damaged; those of the others fit what they hold.
    """
    content = path.read_bytes()
    kind = random.integers(3)
    if kind == 0:
        path.write_bytes(bytewise(content, random))
    elif kind == 1:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        chosen = list(members)[random.integers(len(members))]
        members[chosen] = bytewise(members[chosen] or b"x", random)
        with zipfile.ZipFile(path, "w") as archive:
            for name, member in members.items():
                archive.writestr(name, member)
    else:
        tree = torch.load(path, weights_only=True)
        torch.save(_change_tree(tree, random), path)
    return bool(kind == 0)
