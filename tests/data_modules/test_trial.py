"""A trial of a few steps runs on whatever studies there are, with a validation where it can."""

import pytest

from cmrvlm.runs.wiring import build_data
from data_modules.split import PARTS, split_by_patient
from data_modules.trial import shares_with_validation
from tests.conftest import composed

SETS = {
    "acdc": (["data.root={data}/acdc/training"], 25),
    "emidec": (["data.root={data}/emidec"], 3),
}


@pytest.mark.parametrize("count", [2, 3, 5, 25, 100])
@pytest.mark.parametrize("strata", [1, 2, 5])
@pytest.mark.parametrize("shares", [{}, {"val": 0.0, "test": 0.2}, {"val": 0.1, "test": 0.1}])
def test_one_of_several_patients_validates(count, strata, shares):
    ids = [f"s{index}" for index in range(count)]
    groups = [str(index % min(strata, count)) for index in range(count)]
    held_out = shares_with_validation(shares, dict(zip(ids, ids, strict=True)))
    split = split_by_patient(ids, ids, groups, held_out, seed=0)
    assert len(split["train"]) >= 1
    assert len(split["val"]) >= 1
    assert held_out["val"] >= shares.get("val", 0.0)
    assert sum(len(split[part]) for part in PARTS) == count


def test_one_patient_is_trained_on():
    assert shares_with_validation({"val": 0.0}, {"a": "p", "b": "p"}) == {"val": 0.0}


def trial_of(cache, tmp_path, *overrides):
    config = composed(
        "+experiment=stage3",
        "+debug=fast",
        *overrides,
        f"paths.cache={cache}",
        f"out={tmp_path}",
        f"run_dir={tmp_path}",
    )
    data = build_data(config)
    data.prepare_data()
    return data


@pytest.mark.parametrize("name", SETS)
def test_the_fast_run_validates_on_public_sets(real_data, cache, tmp_path, name):
    needs, count = SETS[name]
    needs = [text.format(data=real_data) for text in needs]
    data = trial_of(cache, tmp_path, f"data={name}", *needs)
    assert sum(len(members) for members in data.split.values()) == count
    assert len(data.split["val"]) >= 1
    assert 1 <= data.batch_size <= min(4, len(data.split["train"]))


@pytest.mark.parametrize("rows", [1, 2, 3, 6])
def test_the_fast_run_takes_a_manifest_of_few_rows(real_data, cache, tmp_path, rows):
    case = real_data / "emidec" / "Case_P100"
    image, mask = (case / part / "Case_P100.nii.gz" for part in ("Images", "Contours"))
    lines = [f"r{row},{image},{mask}" for row in range(rows)]
    table = tmp_path / "studies.csv"
    table.write_text("\n".join(["study_id,lge,lge_mask", *lines]) + "\n")
    codes = "{1: lv, 2: myo, 3: scar, 4: no_reflow}"
    label_map = f"data.source.label_map={codes}"
    data = trial_of(cache, tmp_path, "data=manifest", f"data.path={table}", label_map)
    assert len(data.split["val"]) == (rows > 1)
    assert 1 <= data.batch_size <= len(data.split["train"])
