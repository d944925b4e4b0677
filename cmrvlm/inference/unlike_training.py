"""Turn series away that are unlike those of a run's training: nothing is said of them."""

from __future__ import annotations

from collections.abc import Mapping

from cmrvlm.models.features import Features
from cmrvlm.models.study_encoding import describe_studies
from cmrvlm.reports.writer import not_assessed
from cmrvlm.runs.run_folder import TrainedRun

NO_VENTRICLE = "no left ventricle was found in it"


def unlike_training(run: TrainedRun, features: Features) -> dict[str, str]:
    """Return sequence to the reason why a series is turned away; empty where all are familiar.

    Args:
        run: Trained run; one that did not keep what it learned turns nothing away.
        features: One study, encoded.
    """
    if run.familiarity is None:
        return {}
    reasons = {}
    for sequence, row in describe_studies(run.model, features).get(0, {}).items():
        measured = run.familiarity.distance(sequence, row)
        if measured is None:
            continue
        distances, limit = measured
        distance = float(distances[0])
        if not distance <= limit:
            reasons[sequence] = (
                f"its images are unlike those of the training (distance {distance:.1f}, "
                f"limit {limit:.1f})"
            )
    return reasons


def text_of_not_assessed(reasons: Mapping[str, str], language: str) -> str:
    """Return in words that nothing is said of some series, with the reasons.

    Args:
        reasons: Sequence to the reason.
        language: `en` or `zh`.
    """
    stated = "; ".join(f"{sequence}: {reason}" for sequence, reason in reasons.items())
    return f"{not_assessed(language)} ({stated})"
