"""Fixed preprocessing of a run: the same steps in training, evaluation and prediction."""

from __future__ import annotations

import json
from collections.abc import Mapping

from cmrvlm.study.orientation import LAYOUT
from cmrvlm.study.study import Study
from cmrvlm.transforms.step import Step


class Preprocessing:
    """Named steps from a native study to the model's grid, applied in order.

    Args:
        steps: Name to step; a configuration replaces or drops (None) a step by its name.
    """

    def __init__(self, steps: Mapping[str, Step | None]) -> None:
        self.steps = {name: step for name, step in steps.items() if step is not None}

    def __call__(self, study: Study) -> Study:
        """Apply all steps."""
        for step in self.steps.values():
            study = step(study)
        return study

    def spec(self) -> dict[str, object]:
        """Return the layout and each step's class and settings.

        They are a part of the cache key. Where a run is applied, its own are compared with them.
        """
        spec: dict[str, object] = {"layout": LAYOUT}
        for name, step in self.steps.items():
            settings = {key: _as_lists(value) for key, value in vars(step).items()}
            spec[name] = {"class": type(step).__qualname__, **settings}
        return spec

    def first_difference(
        self, kept_spec: Mapping[str, object]
    ) -> tuple[str, object, object] | None:
        """Compare a spec that was kept with that of this preprocessing.

        Args:
            kept_spec: What `spec` returned, read from JSON.

        Returns:
            Name of the first differing step in alphabetical order, its kept settings and those
            here (None where a side lacks the step); None where nothing differs.
        """
        # Through JSON, as the kept one: what it cannot tell apart is no difference.
        spec = json.loads(json.dumps(self.spec()))
        for name in sorted(kept_spec.keys() | spec.keys()):
            if kept_spec.get(name) != spec.get(name):
                return name, kept_spec.get(name), spec.get(name)
        return None


def _as_lists(value: object) -> object:
    """Turn tuples at any depth into lists, as JSON does."""
    if isinstance(value, (list, tuple)):
        return [_as_lists(item) for item in value]
    return value
