"""Weighted statistics against other libraries, and against the plain statistic of resampled answers."""

import numpy as np
import pytest
from scipy.stats import entropy, pearsonr
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from sksurv.metrics import brier_score, concordance_index_censored
from torch import from_numpy
from torchmetrics.functional.classification import binary_calibration_error

from cmrvlm.metrics.agreement import (
    IntraclassCorrelation,
    LimitOfAgreement,
    Pearson,
    agreement_scores,
)
from cmrvlm.metrics.classification import macro_f1
from cmrvlm.metrics.statistic import (
    Auroc,
    AveragePrecision,
    CalibrationError,
    Distribution,
    Mean,
    MeanOf,
    Ratio,
)
from cmrvlm.metrics.survival import Concordance, brier_at, censoring_survival

N = 60


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def ranked(rng):
    truth = rng.random(N) < 0.3
    return truth, np.round(truth * 0.3 + rng.random(N), 1)  # with ties


def test_areas_equal_scikit_learn(ranked):
    truth, scores = ranked
    assert Auroc(truth, scores).value == pytest.approx(roc_auc_score(truth, scores))
    assert AveragePrecision(truth, scores).value == pytest.approx(
        average_precision_score(truth, scores)
    )


def test_macro_f1_equals_scikit_learn(rng):
    classes = ["a", "b", "c", "d"]
    truth, said = (list(rng.choice(classes[:3], N)) for _ in range(2))
    one = macro_f1(truth, said, classes)
    assert one.value == pytest.approx(f1_score(truth, said, labels=classes[:3], average="macro"))
    assert one.undefined == 1


def test_entropy_equals_scipy(rng):
    said = list(rng.choice(["a", "b", "c"], N, p=[0.6, 0.3, 0.1]))
    counts = [said.count(name) for name in "abc"]
    assert Distribution(said, "entropy").value == pytest.approx(entropy(counts, base=2))
    assert Distribution(said, "top_share").value == pytest.approx(max(counts) / N)
    assert Distribution(["a"] * 5, "entropy").value == 0
    assert Distribution([None, None], "entropy").value is None


def test_agreement_equals_scipy_and_the_textbook(rng):
    truth = rng.normal(60, 12, N)
    said = truth * 0.9 + rng.normal(3, 4, N)
    scores = agreement_scores(list(said), list(truth), "lvef_percent")
    gap = said - truth
    assert scores["lvef_bias_percent"].value == pytest.approx(gap.mean())
    assert scores["lvef_mae_percent"].value == pytest.approx(np.abs(gap).mean())
    assert scores["lvef_upper_limit_percent"].value == pytest.approx(
        gap.mean() + 1.96 * gap.std(ddof=1)
    )
    assert scores["lvef_lower_limit_percent"].value == pytest.approx(
        gap.mean() - 1.96 * gap.std(ddof=1)
    )
    assert scores["lvef_pearson"].value == pytest.approx(pearsonr(said, truth)[0])


def test_icc_equals_the_analysis_of_variance(rng):
    """ICC(2,1) from the mean squares of a two-way table, computed step by step."""
    x = rng.normal(60, 12, N)
    table = np.stack([x, x + rng.normal(4, 5, N)], axis=1)
    grand, k = table.mean(), 2
    rows = k * ((table.mean(axis=1) - grand) ** 2).sum() / (N - 1)
    columns = N * ((table.mean(axis=0) - grand) ** 2).sum() / (k - 1)
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + grand
    error = (rest**2).sum() / ((N - 1) * (k - 1))
    expected = (rows - error) / (rows + (k - 1) * error + k * (columns - error) / N)
    icc = IntraclassCorrelation(list(table[:, 0]), list(table[:, 1]))
    assert icc.value == pytest.approx(expected)
    assert IntraclassCorrelation(list(x), list(x)).value == pytest.approx(1.0)


def test_missing_pairs_are_undefined_and_counted():
    scores = agreement_scores([None, 50.0, 61.0], [55.0, 50.0, None], "lvef_percent")
    assert (scores["lvef_mae_percent"].n, scores["lvef_mae_percent"].undefined) == (1, 2)
    assert scores["lvef_mae_percent"].value == 0
    assert scores["lvef_pearson"].value is None


def test_calibration_of_a_fair_and_of_a_boastful_model():
    truth = [True] * 8 + [False] * 2
    assert CalibrationError(truth, [0.8] * 10).value == pytest.approx(0.0)
    assert CalibrationError(truth, [0.95] * 10).value == pytest.approx(0.15)
    assert CalibrationError(truth, [None] * 10).value is None


def test_calibration_error_equals_torchmetrics(rng):
    scores = rng.random(N)
    truth = rng.random(N) < scores**2
    expected = binary_calibration_error(from_numpy(scores), from_numpy(truth.astype(int)), 10)
    assert CalibrationError(truth, scores).value == pytest.approx(float(expected), rel=1e-6)


def survival(rng):
    months = rng.exponential(40, N) + 1
    events = rng.random(N) < 0.6
    risks = np.clip(0.9 - months / 120 + rng.normal(0, 0.2, N), 0.01, 0.99).round(2)
    return months, events, risks


def test_survival_scores_equal_scikit_survival(rng):
    months, events, risks = survival(rng)
    theirs = concordance_index_censored(events, months, risks)[0]
    assert Concordance(months, events, list(risks)).value == pytest.approx(theirs, abs=1e-9)
    both = np.array(list(zip(events, months, strict=True)), dtype=[("e", bool), ("t", float)])
    for horizon in (20.5, 40.5):
        _, expected = brier_score(both, both, (1 - risks)[:, None], [horizon])
        assert brier_at(months, events, list(risks), horizon).value == pytest.approx(
            expected[0], rel=1e-6
        )


def test_concordance_by_hand():
    """Times 1 (event), 2 (censored), 3 (event), 4 (event): comparable are 1 with all later ones, and 3 with 4."""
    one = Concordance([1, 2, 3, 4], [True, False, True, True], [0.9, 0.1, 0.4, 0.4])
    assert one.value == pytest.approx((3 + 0.5) / 4)
    assert Concordance([1, 2], [False, False], [0.1, 0.2]).value is None
    assert Concordance([1, 2], [True, False], [None, 0.2]).value is None


def test_without_censoring_brier_is_the_mean_squared_error(rng):
    months, risks = rng.uniform(1, 60, N), rng.random(N)
    expected = np.mean((risks - (months <= 30)) ** 2)
    assert brier_at(months, [True] * N, list(risks), 30).value == pytest.approx(expected)
    assert (censoring_survival(months, np.ones(N), months) == 1).all()


def statistics(rng):
    truth = rng.random(N) < 0.4
    scores = np.round(truth * 0.4 + rng.random(N), 1)
    values = rng.normal(50, 10, N)
    said = values + rng.normal(0, 5, N)
    months, events, risks = survival(rng)
    words = list(rng.choice(["a", "b", "c"], N))

    def made(rows):
        def pick(array):
            return [array[row] for row in rows]

        return {
            "mean": Mean([None if row % 7 == 0 else values[row] for row in rows]),
            "ratio": Ratio(pick(values), pick(said)),
            "auroc": Auroc(pick(truth), pick(scores)),
            "precision": AveragePrecision(pick(truth), pick(scores)),
            "calibration": CalibrationError(pick(truth), pick(np.clip(scores, 0, 1))),
            "entropy": Distribution(pick(words), "entropy"),
            "pearson": Pearson(pick(said), pick(values)),
            "icc": IntraclassCorrelation(pick(said), pick(values)),
            "upper": LimitOfAgreement(pick(said), pick(values), 1.96),
            "mean of": MeanOf([Auroc(pick(truth), pick(scores)), Auroc(pick(truth), pick(said))]),
            "concordance": Concordance(pick(months), pick(events), pick(risks)),
        }

    return made


@pytest.mark.parametrize("name", list(statistics(np.random.default_rng(0))(range(N))))
def test_weights_are_resampling(rng, name):
    """Weighting answers by how often they were drawn gives what the drawn answers give, for all resamples at once."""
    made = statistics(rng)
    draws = rng.integers(0, N, (8, N))
    weights = np.stack([np.bincount(draw, minlength=N) for draw in draws]).astype(float)
    together = made(range(N))[name](weights)
    for value, draw in zip(together, draws, strict=True):
        assert value == pytest.approx(made(draw)[name].value)


def test_nothing_is_undefined_and_not_zero():
    for one in (
        Mean([]),
        Mean([None]),
        Ratio([], []),
        Auroc([], []),
        Auroc([True], [0.4]),
        MeanOf([]),
        AveragePrecision([False], [0.4]),
        Distribution([], "entropy"),
    ):
        assert one.value is None
