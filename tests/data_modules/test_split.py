"""Splits by patient: balanced, without leaks, read from files."""

import json

import pytest

from cmrvlm.errors import CmrvlmError
from data_modules.split import check_leak, read_split, split_by_patient


def test_patients_are_not_divided_and_strata_are_shared_out():
    studies = [f"s{i}" for i in range(80)]
    patients = [f"p{i // 8}" for i in range(80)]
    strata = ["sick" if i // 8 < 5 else "well" for i in range(80)]
    shares = {"test": 0.2, "val": 0.2}
    split = split_by_patient(studies, patients, strata, shares, seed=1)
    assert sorted(s for members in split.values() for s in members) == sorted(studies)
    patients_in = {part: {patients[int(s[1:])] for s in split[part]} for part in split}
    assert not patients_in["train"] & patients_in["test"]
    assert not patients_in["train"] & patients_in["val"]
    assert not patients_in["val"] & patients_in["test"]
    for part in ("test", "val"):
        assert {strata[int(s[1:])] for s in split[part]} == {"sick", "well"}
    assert split == split_by_patient(studies, patients, strata, shares, seed=1)
    assert split != split_by_patient(studies, patients, strata, shares, seed=2)


def test_small_strata_together_give_the_share():
    ids = [f"s{i}" for i in range(32)]
    strata = [str(i % 16) for i in range(32)]
    split = split_by_patient(ids, ids, strata, {"test": 0.25, "val": 0.125}, 0)
    assert (len(split["test"]), len(split["val"])) == (8, 4)


def test_patient_in_two_parts_is_refused():
    with pytest.raises(CmrvlmError, match="P03"):
        check_leak({"train": ["a"], "test": ["b"]}, {"a": "P03", "b": "P03"})
    with pytest.raises(CmrvlmError, match="'x'"):
        check_leak({"train": ["x"]}, {"a": "P03"})
    check_leak({"train": ["a", "b"], "test": ["c"]}, {"a": "P1", "b": "P1", "c": "P2"})


def test_split_file_is_read_or_refused(tmp_path):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": ["007", "7"]}))
    assert read_split(path) == {"train": ["007", "7"], "val": [], "test": []}
    path.write_text(json.dumps({"training": []}))
    with pytest.raises(CmrvlmError, match="training"):
        read_split(path)
    with pytest.raises(CmrvlmError, match="split file"):
        read_split(tmp_path / "none.json")
