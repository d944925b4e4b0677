"""What a run turns away is counted: hearts with any such series, other images with all of theirs."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq
import pytest
import torch

from cmrvlm.errors import CmrvlmError
from cmrvlm.evaluation import parts
from cmrvlm.evaluation import turned_away as module
from cmrvlm.evaluation.results import Bootstrap
from cmrvlm.evaluation.tables import gate_rows
from cmrvlm.evaluation.turned_away import TurnedAway
from cmrvlm.models.familiarity import Familiarity
from cmrvlm.runs.known_images import familiarity_of
from cmrvlm.runs.run_folder import TrainedRun
from cmrvlm.transforms.foreign import FOREIGN
from experiments.phantom.table import ROWS, aims, table


@pytest.fixture(scope="module")
def familiarity(untrained):
    return familiarity_of(untrained.model, untrained.data)


@pytest.fixture
def two_kinds(monkeypatch):
    """Two kinds of images are enough, and quick."""
    kinds = {kind: FOREIGN[kind] for kind in ("noise", "ramp")}
    monkeypatch.setattr(module, "FOREIGN", kinds)
    return kinds


@pytest.fixture(scope="module")
def study_ids(untrained):
    return untrained.data.split["val"] + untrained.data.split["test"]


def run_with(untrained, familiarity):
    data = untrained.data
    return TrainedRun(
        Path("none"),
        {},
        untrained.model,
        untrained.collator,
        data.preprocessing,
        data.mixture,
        familiarity,
    )


def limited(familiarity, **limits):
    """Return the gates with other limits by sequence; 0 turns everything away."""
    gates = {
        sequence: replace(gate, limit=torch.tensor(limits[sequence], dtype=torch.float64))
        for sequence, gate in familiarity.gates.items()
        if sequence in limits
    }
    return Familiarity(gates)


def rates_of(untrained, gates, study_ids, load=None):
    """Return the rates of studies, of which each has a patient of its own."""
    patient_of = {name: f"patient of {name}" for name in study_ids}
    bootstrap = Bootstrap.of(list(patient_of.values()), 50)
    run = run_with(untrained, gates)
    with TemporaryDirectory() as folder:
        counted = TurnedAway(Path(folder) / "gate", study_ids)
        counted.count(run, load or untrained.data.load_study)
        return counted.rates(patient_of, bootstrap)


def values(rates):
    return {images: row["value"] for images, row in rates.items()}


ALL = {"sax": 0.0, "lax_4ch": 0.0, "lge": 0.0}
NONE = dict.fromkeys(ALL, float("inf"))


def test_a_heart_counts_with_any_series_and_others_with_all(
    untrained, familiarity, study_ids, two_kinds
):
    names = ("hearts", "foreign", *two_kinds)
    expected = {
        # Sequence that is turned away to the share of hearts and of other images.
        (): (0, 0),
        ("lge",): (1, 0),
        ("sax", "lge"): (1, 0),
        tuple(ALL): (1, 1),
    }
    for away, (hearts, foreign) in expected.items():
        gates = limited(familiarity, **NONE | dict.fromkeys(away, 0.0))
        rates = rates_of(untrained, gates, study_ids[:1])
        assert values(rates) == dict.fromkeys(names, foreign) | {"hearts": hearts}


def test_counts_fit_the_shares(untrained, familiarity, study_ids, two_kinds):
    load = untrained.data.load_study
    # Of some hearts one series is gone, of which alone the gate says that it is foreign.
    kept = {
        name: load(name).with_series({"sax": load(name).series["sax"]}) if index % 2 else load(name)
        for index, name in enumerate(study_ids[:5])
    }
    gates = limited(familiarity, **NONE | {"lge": 0.0})
    rates = rates_of(untrained, gates, list(kept), kept.__getitem__)
    assert rates["hearts"]["turned_away"] == 3
    assert rates["hearts"]["value"] == pytest.approx(0.6)
    assert rates["hearts"]["low"] < 0.6 < rates["hearts"]["high"]
    assert rates["hearts"]["n"] == 5
    assert rates["foreign"]["n"] == 5 * len(two_kinds)


def test_a_sequence_without_a_gate_is_never_turned_away(
    untrained, familiarity, study_ids, two_kinds
):
    rates = rates_of(untrained, limited(familiarity, sax=0.0), study_ids[:2])
    assert rates["hearts"]["value"] == 1
    assert rates["foreign"]["value"] == 0


def test_of_a_run_that_keeps_nothing_all_is_undefined(untrained, study_ids):
    rates = rates_of(untrained, None, study_ids[:3])
    assert set(rates) == {"hearts", "foreign", *FOREIGN}
    for images, row in rates.items():
        assert row["value"] is row["low"] is row["high"] is None
        assert row["n"] == row["turned_away"] == 0
        assert row["undefined"] == (3 * len(FOREIGN) if images == "foreign" else 3)
    _, rows = gate_rows(rates)
    assert {row[1] for row in rows} == {"undefined"}


def test_other_images_are_made_of_a_bounded_number(
    untrained, familiarity, study_ids, two_kinds, monkeypatch
):
    monkeypatch.setattr(module, "MOST_FOREIGN", 2)
    rates = rates_of(untrained, limited(familiarity, **ALL), study_ids[:3])
    assert rates["hearts"]["n"] == 3
    assert {rates[kind]["n"] for kind in two_kinds} == {2}


def test_rates_do_not_depend_on_the_other_studies(
    untrained, familiarity, study_ids, two_kinds, monkeypatch
):
    seen = {}

    def keep(run, features):
        seen.setdefault(len(seen), features)
        return {}

    monkeypatch.setattr(module, "unlike_training", keep)
    rates_of(untrained, familiarity, study_ids[:3])
    together = [seen[index].stacks["sax"][0].grid for index in range(2, len(seen), 3)]
    seen.clear()
    rates_of(untrained, familiarity, study_ids[2:3])
    alone = [seen[index].stacks["sax"][0].grid for index in range(len(seen))]
    assert len(alone) == len(together) == 1 + len(two_kinds)
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def test_a_study_that_fails_is_undefined(untrained, familiarity, study_ids, two_kinds):
    def load(name):
        if name == study_ids[1]:
            raise CmrvlmError("the file is gone")
        return untrained.data.load_study(name)

    rates = rates_of(untrained, limited(familiarity, **ALL), study_ids[:3], load)
    for images in ("hearts", *two_kinds):
        assert (rates[images]["n"], rates[images]["undefined"]) == (2, 1)
        assert rates[images]["value"] == 1


def test_what_was_looked_at_is_not_looked_at_again(
    untrained, familiarity, study_ids, two_kinds, tmp_path, monkeypatch
):
    monkeypatch.setattr(parts, "SECONDS_BETWEEN_FILES", 0.0)
    loaded = []

    def load(name):
        if len(loaded) == 4:
            raise KeyboardInterrupt
        loaded.append(name)
        return untrained.data.load_study(name)

    run = run_with(untrained, limited(familiarity, **ALL))
    with pytest.raises(KeyboardInterrupt):
        TurnedAway(tmp_path, study_ids[:3]).count(run, load)
    counted = TurnedAway(tmp_path, study_ids[:3])
    counted.count(run, lambda name: untrained.data.load_study(name))
    patient_of = dict.fromkeys(study_ids, "p")
    rates = counted.rates(patient_of, Bootstrap.of(["p"], 5))
    assert values(rates) == dict.fromkeys(rates, 1.0)
    assert sum(len(pq.read_table(path)) for path in tmp_path.iterdir()) == 3 * 3


def test_the_benchmark_lists_what_was_counted():
    row = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 4, "undefined": 0, "turned_away": 2}
    content = with_scores(row)
    without = (table(content), aims(content))
    content |= {"gate": {"hearts": row, "foreign": row | {"value": 0.99}}, "shifted_gate": {}}
    assert table(content)[: len(without[0])] == without[0]
    assert table(content)[len(without[0]) :] == [
        "| hearts turned away | 0.500 (0.250 to 0.750) |  |  |  | undefined |",
        "| images without a heart turned away | 0.990 (0.250 to 0.750) |  |  |  | undefined |",
    ]
    assert aims(content)[len(without[1]) :] == [
        "| hearts turned away | <= 0.01 | 0.500 |",
        "| images without a heart turned away | >= 0.98 | 0.990 |",
    ]
    nothing = dict.fromkeys(("value", "low", "high"))
    content["gate"] = {"hearts": row | nothing, "foreign": row | nothing}
    assert "| hearts turned away | undefined |  |  |  | undefined |" in table(content)
    assert aims(content) == without[1]


def with_scores(row):
    """Return a result of the benchmark in which every score has one value."""
    names: dict[str, dict[str, object]] = {}
    for task, name, _ in ROWS:
        names.setdefault(task, {})[name] = row
    probes = dict.fromkeys(("blind", "paraphrase"), names)
    swapped = names | {"overall": {"mirage_rate": row}}
    return {"tasks": names, "probes": probes | {"swapped": swapped}, "shifted": names}
