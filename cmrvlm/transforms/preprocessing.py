"""The fixed preprocessing of a run: the same steps in training, evaluation and prediction."""

from __future__ import annotations

import json
from collections.abc import Mapping

from cmrvlm.study.orientation import LAYOUT
from cmrvlm.study.study import Study
from cmrvlm.transforms.step import Step


class Preprocessing:
    """Named steps from a native study to the model's grid, applied in order.

    Args:
        steps: Name to step; a configuration replaces or drops a step by its name.
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

        They are a part of the cache key, and a run's are compared with those that it is applied with.
        """
        steps = {
            name: {
                "class": type(step).__qualname__,
                **{k: _plain(v) for k, v in vars(step).items()},
            }
            for name, step in self.steps.items()
        }
        return {"layout": LAYOUT, **steps}

    def first_difference(self, made: Mapping[str, object]) -> tuple[str, object, object] | None:
        """The first step by name in which a kept `spec` is another one, with kept and own settings; None for none."""
        own = json.loads(json.dumps(self.spec()))
        names = sorted(name for name in made.keys() | own.keys() if made.get(name) != own.get(name))
        return (names[0], made.get(names[0]), own.get(names[0])) if names else None


def _plain(value: object) -> object:
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
