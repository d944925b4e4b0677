"""Each statistic beside an independent one, over random inputs with ties, weights and gaps."""

import numpy as np
import pytest
from scipy.stats import entropy, pearsonr
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    mean_absolute_error,
    roc_auc_score,
)
from sksurv.metrics import brier_score, concordance_index_censored

from cmrvlm.metrics.agreement import IntraclassCorrelation, LimitOfAgreement, Pearson
from cmrvlm.metrics.classification import multi_label_macro_f1
from cmrvlm.metrics.statistic import (
    Auroc,
    AveragePrecision,
    CalibrationError,
    Distribution,
    Mean,
    Ratio,
)
from cmrvlm.metrics.survival import Concordance, brier_at

SEEDS = range(12)


class Drawn:
    """Random answers: some scores tie, some are missing, and each answer counts 0 to 3 times."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.rng = rng
        self.n = int(rng.integers(30, 120))
        self.weights = rng.integers(0, 4, self.n).astype(float)
        self.is_missing = rng.random(self.n) < 0.2
        self.truth = rng.random(self.n) < rng.uniform(0.2, 0.8)
        self.scores = np.round(np.clip(0.3 * self.truth + 0.7 * rng.random(self.n), 0, 1), 1)
        self.values = np.round(rng.normal(55, 12, self.n), int(rng.integers(0, 3)))
        self.said = np.round(self.values + rng.normal(2, 6, self.n), 1)

    def gappy(self, values):
        return [None if gap else value for gap, value in zip(self.is_missing, values, strict=True)]

    @property
    def kept(self):
        return ~self.is_missing & (self.weights > 0)

    def repeated(self, values):
        """Values that are there, each as often as its weight says."""
        kept = self.kept
        return np.repeat(np.asarray(values)[kept], self.weights[kept].astype(int))

    def value(self, statistic):
        return statistic(self.weights[None])[0]


@pytest.fixture(params=SEEDS)
def drawn(request):
    return Drawn(request.param)


def test_areas(drawn):
    truth, scores = drawn.repeated(drawn.truth), drawn.repeated(drawn.scores)
    area = Auroc(list(drawn.truth), drawn.gappy(drawn.scores))
    assert drawn.value(area) == pytest.approx(roc_auc_score(truth, scores))
    precision = AveragePrecision(drawn.gappy(drawn.truth), list(drawn.scores))
    assert drawn.value(precision) == pytest.approx(average_precision_score(truth, scores))
    assert area.undefined == precision.undefined == drawn.is_missing.sum()


def test_areas_with_weights_that_are_no_counts(drawn):
    weights = drawn.rng.random((3, drawn.n))
    ours = Auroc(list(drawn.truth), list(drawn.scores))(weights)
    precision = AveragePrecision(list(drawn.truth), list(drawn.scores))(weights)
    for row, one in enumerate(weights):
        theirs = roc_auc_score(drawn.truth, drawn.scores, sample_weight=one)
        assert ours[row] == pytest.approx(theirs)
        theirs = average_precision_score(drawn.truth, drawn.scores, sample_weight=one)
        assert precision[row] == pytest.approx(theirs)


def test_calibration_error(drawn):
    """Bin by bin: the mean score against the share of positives, in single steps."""
    error = CalibrationError(list(drawn.truth), drawn.gappy(drawn.scores))
    truth, scores = drawn.repeated(drawn.truth), drawn.repeated(drawn.scores)
    bins = np.minimum(np.floor(scores * 10 + 1e-9).astype(int), 9)
    expected = sum(
        abs(scores[bins == one].mean() - truth[bins == one].mean()) * (bins == one).mean()
        for one in np.unique(bins)
    )
    assert drawn.value(error) == pytest.approx(expected)


def test_means_and_ratios(drawn):
    values = drawn.repeated(drawn.values)
    assert drawn.value(Mean(drawn.gappy(drawn.values))) == pytest.approx(values.mean())
    gaps = [
        None if value is None else abs(value - said)
        for value, said in zip(drawn.gappy(drawn.values), drawn.said, strict=True)
    ]
    assert drawn.value(Mean(gaps)) == pytest.approx(
        mean_absolute_error(values, drawn.repeated(drawn.said))
    )
    assert drawn.value(Ratio(drawn.values, drawn.said)) == pytest.approx(
        np.average(drawn.values, weights=drawn.weights)
        / np.average(drawn.said, weights=drawn.weights)
    )


def test_agreement(drawn):
    said, values = drawn.repeated(drawn.said), drawn.repeated(drawn.values)
    pairs = (drawn.gappy(drawn.said), list(drawn.values))
    assert drawn.value(Pearson(*pairs)) == pytest.approx(pearsonr(said, values)[0])
    gap = said - values
    for sds in (-1.96, 1.96):
        expected = gap.mean() + sds * gap.std(ddof=1)
        assert drawn.value(LimitOfAgreement(*pairs, sds)) == pytest.approx(expected)
    assert drawn.value(IntraclassCorrelation(*pairs)) == pytest.approx(icc(said, values))


def icc(first, second):
    """ICC(2,1) from a two-way analysis of variance, sum by sum."""
    table = np.stack([first, second], axis=1)
    subjects, raters = table.shape
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    of_subjects = raters * table.mean(axis=1).var(ddof=1)
    of_raters = subjects * table.mean(axis=0).var(ddof=1)
    of_error = (rest**2).sum() / ((subjects - 1) * (raters - 1))
    below = of_subjects + (raters - 1) * of_error + raters * (of_raters - of_error) / subjects
    return (of_subjects - of_error) / below


def test_resamples_without_spread_have_no_correlation(drawn):
    """Rounding must not pass for spread: the same pair drawn often, or one value said always."""
    rows = np.eye(drawn.n) * drawn.n
    third = drawn.values / 3
    assert np.isnan(Pearson(third, drawn.said / 7)(rows)).all()
    assert np.isnan(Pearson(third, np.full(drawn.n, 0.1))(drawn.weights[None])).all()
    of_equals = IntraclassCorrelation(third, third)(rows)
    assert np.isnan(of_equals).all()


def test_f1_of_several_labels(drawn):
    codes = ["a", "b", "c", "d"]
    truth = drawn.rng.random((drawn.n, 4)) < [0.5, 0.3, 0.2, 0.0]
    said = drawn.rng.random((drawn.n, 4)) < [0.4, 0.4, 0.0, 0.1]

    def sets(table):
        return [{code for code, has in zip(codes, row, strict=True) if has} for row in table]

    ours = multi_label_macro_f1(sets(truth), sets(said), codes)
    theirs = f1_score(
        truth[:, :3], said[:, :3], average="macro", sample_weight=drawn.weights, zero_division=0
    )
    assert drawn.value(ours) == pytest.approx(theirs)
    assert ours.undefined == 1


def test_spread_of_answers(drawn):
    words = drawn.rng.choice(["a", "b", "c"], drawn.n, p=[0.6, 0.3, 0.1])
    counts = np.unique(drawn.repeated(words), return_counts=True)[1]
    said = drawn.gappy(words)
    assert drawn.value(Distribution(said, "entropy")) == pytest.approx(entropy(counts, base=2))
    assert drawn.value(Distribution(said, "top_share")) == pytest.approx(counts.max() / sum(counts))


def follow_up(drawn):
    """Whole months, so that times tie among themselves and with horizons."""
    months = np.ceil(drawn.rng.exponential(40, drawn.n))
    months[:3] = (12, 36, 60)
    events = drawn.rng.random(drawn.n) < 0.5
    risks = np.clip(0.9 - months / 120 + drawn.rng.normal(0, 0.2, drawn.n), 0.01, 0.99).round(1)
    return months, events, risks


def test_concordance(drawn):
    months, events, risks = follow_up(drawn)
    ours = Concordance(months, events, drawn.gappy(risks))
    theirs = concordance_index_censored(
        drawn.repeated(events), drawn.repeated(months), drawn.repeated(risks)
    )[0]
    assert drawn.value(ours) == pytest.approx(theirs)


def test_concordance_in_parts_is_that_of_all_pairs(drawn, monkeypatch):
    months, events, risks = follow_up(drawn)
    whole = Concordance(months, events, list(risks))(drawn.weights[None])
    monkeypatch.setattr("cmrvlm.metrics.survival._EVENTS_AT_ONCE", 7)
    assert Concordance(months, events, list(risks))(drawn.weights[None]) == pytest.approx(whole)


@pytest.mark.parametrize("horizon", [12, 36, 60])
def test_brier_with_follow_up_that_ends_at_the_horizon(drawn, horizon):
    """To scikit-survival, whoever left at the horizon left before it: to it they leave a day later."""
    months, events, risks = follow_up(drawn)
    months[-1] = months.max() + 1
    later = months + 0.03 * ~events
    table = np.array(list(zip(events, later, strict=True)), dtype=[("e", bool), ("t", float)])
    _, theirs = brier_score(table, table, (1 - risks)[:, None], [horizon])
    assert brier_at(months, events, list(risks), horizon).value == pytest.approx(theirs[0])


def test_all_who_were_followed_to_the_horizon_survived_it():
    score = brier_at([60.0] * 4, [False] * 4, [0.2, 0.4, 0.0, 1.0], 60)
    assert score.value == pytest.approx((0.04 + 0.16 + 0 + 1) / 4)
    mixed = brier_at([60.0, 60.0], [False, True], [0.25, 0.75], 60)
    assert mixed.value == pytest.approx(0.25**2)
