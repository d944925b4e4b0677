"""The gate knows images like those of the training, and turns others away."""

import numpy as np
import pytest
import torch
from scipy.stats import chi

from cmrvlm.errors import CmrvlmError
from cmrvlm.models.familiarity import Familiarity, fit_gate


@pytest.fixture(scope="module")
def normal():
    """Correlated normal features: of the training, held out, and their covariance."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(6, 6))
    draw = rng.normal(size=(6000, 6)) @ mixing.T + 3
    return torch.from_numpy(draw[:4000]), torch.from_numpy(draw[4000:]), mixing @ mixing.T


def test_distance_is_that_of_mahalanobis(normal):
    trained, held_out, covariance = normal
    gate = fit_gate(trained, held_out)
    off = held_out.numpy() - 3
    expected = np.sqrt(np.einsum("nf,fg,ng->n", off, np.linalg.inv(covariance), off))
    assert np.allclose(gate.distance(held_out), expected, rtol=0.15)


def test_limit_lets_the_known_pass_and_stops_the_far(normal):
    trained, held_out, _ = normal
    gate = fit_gate(trained, held_out)
    limit = float(gate.limit)
    assert (gate.distance(held_out) <= limit).all()
    assert chi(6).sf(limit) < 1e-4
    assert (gate.distance(held_out + 100) > limit).all()


def test_too_few_studies_make_no_gate(normal):
    trained, held_out, _ = normal
    assert fit_gate(trained[:7], held_out) is None
    assert fit_gate(trained, held_out[:3]) is None
    assert fit_gate(trained[:8], held_out[:4]) is not None


def test_many_features_are_projected_and_distances_stay(normal):
    rng = np.random.default_rng(1)
    wide = torch.from_numpy(rng.normal(size=(300, 1000)))
    gate = fit_gate(wide[:200], wide[200:])
    assert gate.precision.shape == (384, 384)
    assert (gate.distance(wide[200:] * 4) > gate.limit).all()
    assert (gate.distance(wide[200:]) <= gate.limit).all()


def test_gates_are_kept_in_a_file_that_is_checked(normal, tmp_path):
    trained, held_out, _ = normal
    path = tmp_path / "familiarity.safetensors"
    Familiarity({"sax": fit_gate(trained, held_out)}).save(path)
    loaded = Familiarity.load(path)
    distances, limit = loaded.distance("sax", held_out)
    assert torch.equal(distances, fit_gate(trained, held_out).distance(held_out))
    assert limit > 0
    assert loaded.distance("lge", held_out) is None
    assert Familiarity.load(tmp_path / "none") is None
    Familiarity({}).save(tmp_path / "empty")
    assert Familiarity.load(tmp_path / "empty") is None
    for damaged in (b"", b"no tensors", path.read_bytes()[:200]):
        path.write_bytes(damaged)
        with pytest.raises(CmrvlmError, match=r"familiarity\.safetensors"):
            Familiarity.load(path)
