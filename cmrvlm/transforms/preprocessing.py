"""The fixed preprocessing of a run: the same steps in training, evaluation and prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cmrvlm.study import Study

Transform = Callable[[Study], Study]


class Preprocessing:
    """Named steps from a native study to the model's grid, applied in order.

    Args:
        steps: Name to step; a configuration replaces or drops a step by its name.
    """

    def __init__(self, steps: Mapping[str, Transform | None]) -> None:
        self.steps = {name: step for name, step in steps.items() if step is not None}

    def __call__(self, study: Study) -> Study:
        """Apply all steps."""
        for step in self.steps.values():
            study = step(study)
        return study

    def spec(self) -> dict[str, dict[str, object]]:
        """Each step's class and settings, for the cache key and the comparison with a run's preprocessing."""
        return {
            name: {"class": type(step).__qualname__, **{k: _plain(v) for k, v in vars(step).items()}}
            for name, step in self.steps.items()
        }


def _plain(value: object) -> object:
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
