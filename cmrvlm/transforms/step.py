"""Interface of a preprocessing step."""

from __future__ import annotations

from abc import ABC, abstractmethod

from cmrvlm.study.study import Study


class Step(ABC):
    """A deterministic step from a native study to the model's grid.

    Subclasses keep their settings as plain attributes: `Preprocessing.spec` lists them.
    """

    @abstractmethod
    def __call__(self, study: Study) -> Study:
        """Return the study after this step."""
