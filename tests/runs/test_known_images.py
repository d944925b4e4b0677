"""What a run keeps of its training depends on the training and validation parts alone."""

from types import SimpleNamespace

import pytest
import torch

from cmrvlm.runs import known_images
from cmrvlm.runs.known_images import familiarity_of, spread


@pytest.fixture(scope="module")
def part(untrained):
    """Studies of the shared data, each read once."""
    names = untrained.data.split["train"][:12]
    return {name: untrained.data.load_study(name) for name in names}


def data_of(part, loaded):
    """Return a data module of eight studies for training and four for validation."""
    names = list(part)

    def load_study(name):
        loaded.append(name)
        return part[name]

    split = {"train": names[:8], "val": names[8:], "test": ["never", "read"]}
    return SimpleNamespace(split=split, load_study=load_study)


@pytest.fixture(scope="module")
def kept(untrained, part):
    """Gates of the data, and the studies that were loaded for them."""
    loaded = []
    return familiarity_of(untrained.model, data_of(part, loaded)), loaded


def test_the_test_part_is_never_looked_at(kept, part):
    familiarity, loaded = kept
    assert loaded == list(part)
    assert set(familiarity.gates) == {"sax", "lax_4ch", "lge"}


def test_limits_do_not_depend_on_studies_at_once(untrained, part, kept, monkeypatch):
    monkeypatch.setattr(known_images, "_AT_ONCE", 1)
    gates = familiarity_of(untrained.model, data_of(part, [])).gates
    for sequence, gate in kept[0].gates.items():
        assert torch.allclose(gates[sequence].limit, gate.limit, rtol=1e-3)
        assert torch.allclose(gates[sequence].mean, gate.mean, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("count", "most"), [(3, 5), (5, 5), (64, 32), (100, 7)])
def test_ids_are_spread_over_all(count, most):
    names = [f"study-{index}" for index in range(count)]
    chosen = spread(names, most)
    assert len(chosen) == len(set(chosen)) == min(count, most)
    assert chosen == sorted(chosen, key=names.index)
    assert (chosen[0], chosen[-1]) == (names[0], names[-1])
