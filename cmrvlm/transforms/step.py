"""What every step of the preprocessing is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from cmrvlm.study.study import Study


class Step(ABC):
    """One step from a native study to the model's grid. Subclasses keep their settings as plain attributes."""

    @abstractmethod
    def __call__(self, study: Study) -> Study:
        """Return the study after this step."""
