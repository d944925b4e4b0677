import json
from dataclasses import fields, replace

import numpy as np
import pytest

from cmrvlm.errors import CmrvlmError
from cmrvlm.study.codec import (
    labels_from_json,
    labels_to_json,
    load_arrays,
    save_files,
    series_from_json,
    series_in_layout,
    series_to_json,
    study_files,
    study_from_files,
)
from cmrvlm.study.files import write_study
from cmrvlm.study.study import Series
from cmrvlm.study.study_json import read_study_json


@pytest.fixture
def study(source):
    """A study whose short-axis series states everything that a series can state."""
    study = source.load(source.study_ids()[3])
    sax = replace(
        study.series["sax"],
        slice_places_mm=(0.0, 10.0, 19.0, 40.0),
        levels=("basal", "mid", None, "apical"),
        drawn=("lv", "scar"),
    )
    return study.with_series({**study.series, "sax": sax})


def through_json(content):
    return json.loads(json.dumps(content))


def test_every_field_of_a_series_comes_back_from_json(study):
    sax = study.series["sax"]
    stored = series_from_json(through_json(series_to_json(sax)))
    assert set(stored) == {field.name for field in fields(Series)} - {"image", "mask", "affine"}
    assert stored == {name: getattr(sax, name) for name in stored}


def test_labels_come_back_from_json(study):
    assert labels_from_json(through_json(labels_to_json(study.labels))) == study.labels


def test_cache_shards_and_exchange_folder_store_series_alike(study, tmp_path):
    write_study(study, tmp_path)
    exchanged = json.loads((tmp_path / "study.json").read_text())
    cached = json.loads(study_files(study)["study.json"])
    for series in cached["series"].values():
        assert series.pop("has_mask")
    # Hashes of the arrays, which lie in other files.
    assert set(cached.pop("sha256")) >= {"sax.npy", "sax_mask.npy"}
    assert cached == exchanged


def test_arrays_come_back_in_half_precision(study, tmp_path):
    save_files(study_files(study), tmp_path)
    for stored in (study_from_files(study_files(study)), load_arrays(tmp_path)):
        assert stored.labels == study.labels
        for name, series in study.series.items():
            twin = stored.series[name]
            np.testing.assert_array_equal(twin.image, series.image.astype(np.float16))
            np.testing.assert_array_equal(twin.mask, series.mask)
            np.testing.assert_array_equal(twin.affine, series.affine)
            assert series_to_json(twin) == series_to_json(series)


def test_grey_values_beyond_half_precision_are_refused(study):
    sax = study.series["sax"]
    bright = study.with_series({"sax": replace(sax, image=sax.image * 1e9)})
    with pytest.raises(CmrvlmError, match=r"'sax\.image'"):
        study_files(bright)


def test_slices_stored_from_apex_to_base_are_reversed(study):
    sax = study.series["sax"]
    data = series_to_json(sax)
    affine = sax.affine.copy()
    affine[:3, 2] *= -1
    stored = series_in_layout(data | {"affine": affine.tolist()}, sax.affine, "sax")
    assert stored["levels"] == sax.levels[::-1]
    assert stored["slice_places_mm"] == (0.0, 21.0, 30.0, 40.0)
    assert series_in_layout(data, sax.affine, "sax")["levels"] == sax.levels


def test_a_folder_without_study_json_states_nothing(tmp_path):
    assert read_study_json(tmp_path) == {}
    assert series_from_json({}) == {
        "frame_times_ms": None,
        "phases": {},
        "levels": (),
        "slice_places_mm": None,
        "drawn": (),
    }
