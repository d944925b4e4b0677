import numpy as np
import pytest

from cmrvlm.instructions.read_outs import (
    READ_OUTS,
    SURVIVAL_EDGES_MONTHS,
    hazard_vector,
    measurements_of,
    risk_of,
    study_targets,
)
from cmrvlm.study.measurements import MEASUREMENTS, READ_OUT
from cmrvlm.study.study import StudyLabels
from cmrvlm.study.vocabulary import FINDINGS


def test_unknown_labels_are_nan_and_not_normal():
    for name, vector in study_targets(StudyLabels()).items():
        assert vector.shape == (READ_OUTS[name].size,)
        assert np.isnan(vector).all()
    partly = study_targets(StudyLabels(findings={"lvef": True, "thrombus": None, "lv_lge": False}))[
        "findings"
    ]
    codes = list(FINDINGS)
    assert partly[codes.index("lvef")] == 1
    assert partly[codes.index("lv_lge")] == 0
    assert np.isnan(partly).sum() == len(codes) - 2


@pytest.mark.parametrize(
    ("months", "event", "expected"),
    [
        (6, True, [1, None, None, None, None]),
        (6, False, [None] * 5),
        (30, True, [0, 0, 1, None, None]),
        (24, False, [0, 0, None, None, None]),
        (24, True, [0, 0, 1, None, None]),
        (70, True, [0] * 5),
        (60, False, [0] * 5),
    ],
)
def test_hazards_know_what_was_survived(months, event, expected):
    vector = hazard_vector(months, event)
    assert [None if np.isnan(v) else v for v in vector] == expected
    assert len(SURVIVAL_EDGES_MONTHS) == len(expected)


def test_risk_is_one_minus_survival():
    assert risk_of(np.array([0.5, 0.5], np.float32)) == pytest.approx(0.75)
    assert risk_of(np.zeros(5, np.float32)) == 0


def test_measurements_survive_standardisation(study):
    known = study.labels.measurements
    back = measurements_of(study_targets(study.labels)["measurements"])
    assert set(back) == set(MEASUREMENTS)
    for name in READ_OUT:
        assert back[name] == pytest.approx(known[name], rel=1e-4)
    for side in ("lv", "rv"):
        assert back[f"{side}esv_ml"] == pytest.approx(known[f"{side}esv_ml"], rel=1e-3)


def test_phantom_scales_are_sensible(source):
    """Standardised values of the phantoms lie around 0 with a spread near 1, so that no measurement drowns another."""
    rows = np.stack(
        [study_targets(source.load(s).labels)["measurements"] for s in source.study_ids()]
    )
    assert np.abs(np.median(rows, axis=0)).max() < 1
    assert rows.std(axis=0).min() > 0.3
    assert rows.std(axis=0).max() < 2.5
