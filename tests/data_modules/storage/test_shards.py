"""Shards hold what the cache holds, to the byte, and a training sees no difference."""

import json
from pathlib import Path

import numpy as np
import pytest

from cmrvlm.errors import CmrvlmError
from cmrvlm.runs.wiring import build_data
from cmrvlm.shard import shard
from data_modules.storage.shards import ShardSource
from tests.conftest import composed

pytest.importorskip("litdata")
FAST = ("+experiment=stage3", "+debug=fast", "run_dir=here", "out=here")


def settings_of(config, folder):
    """What conf/shard.yaml gives for the fast run."""
    made = composed(
        f"out={folder}",
        f"paths.cache={config['data']['cache_dir']}",
        "shards.chunk_bytes=1MB",
        name="shard",
    )
    return made | {"data": config["data"], "transform": config["transform"]}


@pytest.fixture(scope="module")
def shards(tmp_path_factory, cache):
    """Shards of the fast run's phantoms, several studies in a chunk."""
    folder = tmp_path_factory.mktemp("shards") / "set"
    config = composed(*FAST, f"paths.cache={cache}")
    assert shard(settings_of(config, folder)) == 32
    assert len(list(folder.glob("chunk*"))) > 1
    return folder


@pytest.fixture
def both(shards, cache):
    """The data module of the phantoms, and of the shards."""
    ordinary = build_data(composed(*FAST, f"paths.cache={cache}"))
    config = composed(*FAST, f"paths.cache={cache}")
    made = composed("data=shards", f"data.root={shards}", "run_dir=here", "out=here")["data"]
    config["data"] = made | {
        "shares": config["data"]["shares"],
        "batch_size": config["data"]["batch_size"],
    }
    sharded = build_data(config)
    for one in (ordinary, sharded):
        one.prepare_data()
    return ordinary, sharded


def test_split_studies_and_hash_are_those_of_the_cache(both):
    ordinary, sharded = both
    assert ordinary.split == sharded.split
    ids = ordinary.split["train"]
    assert ordinary.cache.content_hash(ids) == sharded.cache.content_hash(ids)
    for study in ids[:3]:
        one, two = ordinary.cache.load(study), sharded.cache.load(study, ["sax"])
        assert one.labels == two.labels == sharded.cache.labels(study)
        assert list(two.series) == ["sax"]
        assert ordinary.cache.sequences(study) == sharded.cache.sequences(study)
        np.testing.assert_array_equal(one.series["sax"].image, two.series["sax"].image)
        np.testing.assert_array_equal(one.series["sax"].mask, two.series["sax"].mask)


def test_batches_are_equal_whoever_loads_them(both, untrained):
    for one in both:
        one.collator = untrained.collator
    both[1].num_workers = 2
    for first, second in zip(*(iter(one.train_dataloader()) for one in both), strict=True):
        assert [i.prompt for i in first.instructions] == [i.prompt for i in second.instructions]
        for name, stacks in first.media.items():
            for own, other in zip(stacks, second.media[name], strict=True):
                assert own.images.equal(other.images)


def test_another_preprocessing_and_missing_shards_are_refused(shards, both, tmp_path):
    config = composed("data=shards", f"data.root={shards}", "run_dir=here", "out=here")
    with pytest.raises(CmrvlmError, match="made with"):
        build_data(config)
    with pytest.raises(CmrvlmError, match="no shards here"):
        ShardSource(str(tmp_path))
    with pytest.raises(CmrvlmError, match="not in the shards"):
        both[1].cache.fill(["nobody"])
    with pytest.raises(CmrvlmError, match="shards already"):
        shard(settings_of(composed(*FAST, f"paths.cache={tmp_path}"), shards))


def test_pickled_objects_in_shards_are_never_read(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "PWN",)

    import litdata.streaming

    writer = litdata.streaming.Cache(str(tmp_path / "set"), chunk_bytes="1MB")
    writer[0] = Evil()
    writer.done()
    writer.merge()
    assert json.loads((tmp_path / "set" / "index.json").read_text())["config"]["data_format"] == [
        "pickle"
    ]
    with pytest.raises(CmrvlmError, match="pickle"):
        ShardSource(str(tmp_path / "set"))
    assert not (tmp_path / "PWN").exists()
