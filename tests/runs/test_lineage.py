"""No patient whom a run, or one that it began from, was trained on is validated, tested or scored."""

import json
import shutil

import pytest

from cmrvlm.errors import CmrvlmError
from cmrvlm.evaluation.evaluate import evaluate
from cmrvlm.export import export
from cmrvlm.runs.lineage import joined, parts_of, patient_hash, read_lineage
from cmrvlm.stages.training import train
from data_modules.split import split_with_earlier
from tests.conftest import composed
from tests.stages.test_training import QUIET, SMALL

FAST = (
    "+debug=fast",
    *QUIET,
    *SMALL,
    "trainer.max_steps=1",
    "trainer.limit_val_batches=0",
    "trainer.val_check_interval=null",
    "data.batch_size=2",
)


def trained(folder, cache, *overrides, stage="stage3"):
    train(
        composed(
            f"+experiment={stage}",
            *FAST,
            f"paths.cache={cache}",
            f"out={folder}",
            f"run_dir={folder}",
            *overrides,
        ),
        folder,
    )
    return folder


def split(folder):
    return json.loads((folder / "split.json").read_text())


@pytest.fixture(scope="module")
def chain(tmp_path_factory, cache):
    """Three stages, each with another seed, the last with more patients."""
    root = tmp_path_factory.mktemp("lineage")
    one = trained(root / "one", cache, "seed=0", stage="stage1")
    two = trained(
        root / "two", cache, "seed=1", f"stage.init_from={one}", "adapter=full", stage="stage2"
    )
    three = trained(
        root / "three", cache, "seed=2", f"stage.init_from={two}", "data.source.count=48"
    )
    return one, two, three


def test_a_stage_keeps_earlier_parts_and_divides_new_patients_alone(chain, cache, tmp_path):
    one, two, three = (split(folder) for folder in chain)
    assert one == two
    for part in ("train", "val", "test"):
        assert set(one[part]) < set(three[part])
    new = [study for part in three.values() for study in part if int(study[-5:]) >= 32]
    assert len(new) == 16
    alone = split(trained(tmp_path / "alone", cache, "seed=2", "data.source.count=48"))
    assert alone["test"] != three["test"]  # without an earlier run the seed decides


def test_one_patient_more_moves_no_other(chain, cache, tmp_path):
    more = split(
        trained(
            tmp_path / "more",
            cache,
            "seed=5",
            f"stage.init_from={chain[1]}",
            "data.source.count=33",
        )
    )
    before = split(chain[1])
    assert all(set(before[part]) <= set(more[part]) for part in before)
    assert sum(map(len, more.values())) == 33


def test_a_split_that_tests_on_who_was_trained_on_is_refused(chain, cache, tmp_path):
    own = split(chain[1])
    turned = tmp_path / "split.json"
    turned.write_text(
        json.dumps(
            {
                "train": own["test"] + own["val"] + own["train"][3:],
                "val": [],
                "test": own["train"][:3],
            }
        )
    )
    with pytest.raises(
        CmrvlmError, match=r"3 of 3 patients of part test .* the runs before were trained on"
    ):
        trained(tmp_path / "run", cache, f"stage.init_from={chain[1]}", f"data.split_file={turned}")
    turned.write_text(
        json.dumps({"train": own["train"] + own["val"], "val": [], "test": own["test"]})
    )
    trained(tmp_path / "run", cache, f"stage.init_from={chain[1]}", f"data.split_file={turned}")


def scores(run, out, *overrides):
    return evaluate(
        composed(
            f"run={run}",
            f"out={out}",
            "max_new_tokens=2",
            "cases_per_task=1",
            "probes=null",
            "bootstrap=5",
            "tasks=[sequence]",
            *overrides,
            name="evaluate",
        )
    )


def asked(out):
    import pyarrow.parquet as pq

    return set(pq.read_table(out / "answers.parquet")["study"].to_pylist())


def test_evaluation_leaves_out_and_counts_who_was_trained_on(chain, tmp_path):
    run, own = chain[2], split(chain[2])
    other = (
        "+data=phantom",
        "data.shares={val: 0.0, test: 1.0}",
        "data.source.count=60",
        "++data.source.size=48",
        "++data.source.slices=3",
        "++data.source.frames=4",
    )
    found = scores(run, tmp_path / "other", *other)
    assert found["settings"]["left_out_trained_on"] == {
        "studies": len(own["train"]),
        "patients": len(own["train"]),
    }
    assert found["settings"]["studies"] == 60 - len(own["train"])
    assert not asked(tmp_path / "other") & set(own["train"])
    assert scores(run, tmp_path / "own")["settings"]["left_out_trained_on"] == {
        "studies": 0,
        "patients": 0,
    }
    assert asked(tmp_path / "own") == set(own["test"])
    taught = scores(run, tmp_path / "train", "part=train")
    assert taught["settings"]["studies"] == len(own["train"])
    given = tmp_path / "given.json"
    given.write_text(json.dumps({"train": [], "val": [], "test": own["train"]}))
    with pytest.raises(
        CmrvlmError, match=r"trained on the patients of all \d+ studies.*other patients"
    ):
        scores(run, tmp_path / "none", f"+data.split_file={given}")


def test_who_was_trained_on_long_before_counts_too(chain, cache, tmp_path):
    """A run on other patients that began from the chain was, in a way, trained on those of the chain."""
    run = trained(tmp_path / "later", cache, f"stage.init_from={chain[2]}", "data.source.seed=7")
    before = split(chain[2])
    other = (
        "+data=phantom",
        "data.shares={val: 0.0, test: 1.0}",
        "data.source.count=48",
        "++data.source.size=48",
        "++data.source.slices=3",
        "++data.source.frames=4",
    )
    found = scores(run, tmp_path / "out", *other)
    assert found["settings"]["left_out_trained_on"]["patients"] == len(before["train"])
    assert asked(tmp_path / "out") == set(before["val"]) | set(before["test"])
    export(run, "merged", tmp_path / "merged")
    known = read_lineage(run, {})
    assert read_lineage(tmp_path / "merged", {}) == known
    assert sum(part == "train" for part in known.values()) == len(before["train"]) + len(
        split(run)["train"]
    )


def test_a_run_of_an_earlier_version_is_known_by_its_split(chain, cache, tmp_path, caplog):
    old = shutil.copytree(chain[1], tmp_path / "old")
    for name in ("lineage.json", "fingerprints.json"):
        (old / name).unlink()
    with caplog.at_level("WARNING"):
        new = split(trained(tmp_path / "new", cache, "seed=9", f"stage.init_from={old}"))
    assert new == split(old)
    assert "does not say whom" in caplog.text


def test_lineage_holds_no_id_and_one_patient_once(chain, tmp_path):
    text = (chain[2] / "lineage.json").read_text()
    assert "phantom" not in text
    assert patient_hash(split(chain[2])["train"][0]) in json.loads(text)["train"]
    parts = parts_of(
        {"train": ["a1"], "val": [], "test": ["b1", "b2"]}, {"a1": "a", "b1": "b", "b2": "b"}
    )
    assert parts == {patient_hash("a"): "train", patient_hash("b"): "test"}
    assert joined({"x": "train", "y": "test"}, {"x": "test", "y": "val"}) == {
        "x": "train",
        "y": "val",
    }
    assert joined({"x": "test"}, {"x": "train"}) == {"x": "train"}
    (tmp_path / "lineage.json").write_text("[]")
    with pytest.raises(CmrvlmError, match="lineage"):
        read_lineage(tmp_path, {})


def test_all_studies_of_a_known_patient_follow_her():
    patient_of = {"s1": "p1", "s2": "p1", "s3": "p2", "s4": "p3"}
    earlier = {patient_hash("p1"): "test", patient_hash("p2"): "train"}
    for seed in range(5):
        found = split_with_earlier(
            patient_of, ["all"] * 4, {"val": 0.0, "test": 0.0}, seed, earlier
        )
        assert found == {"train": ["s3", "s4"], "val": [], "test": ["s1", "s2"]}
