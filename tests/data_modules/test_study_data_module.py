"""The data module: split, cache, loaders, and what it says when something is missing."""

from itertools import pairwise

import pytest

from cmrvlm.errors import CmrvlmError
from data_modules.loading.dataset import TrainingSet
from data_modules.study_data_module import StudyDataModule


@pytest.fixture
def make_module(tmp_path, untrained, tiny_source, scaling):
    """Return a function that makes a data module of small phantoms."""

    def make(**changes):
        settings = {
            "source": tiny_source(count=16),
            "preprocessing": scaling(),
            "mixture": untrained.data.mixture,
            "cache_dir": str(tmp_path),
            "shares": {"test": 0.25},
        }
        return StudyDataModule(**settings | changes)

    return make


def test_split_is_made_saved_and_used_again(tmp_path, make_module):
    data = make_module()
    data.prepare_data()
    assert len(data.split["test"]) == 4
    assert data.val_dataloader() == []
    data.save_split(tmp_path / "split.json")
    again = make_module(split_file=str(tmp_path / "split.json"), seed=9)
    again.setup()
    assert again.split == data.split


def test_corpus_holds_texts_in_all_languages(make_module):
    data = make_module()
    data.prepare_data()
    texts = list(data.corpus())
    assert any("LVEF" in text for text in texts)
    assert any("左心室" in text for text in texts)


def test_module_says_what_is_missing(make_module, broken_source):
    data = make_module(batch_size=50)
    data.prepare_data()
    with pytest.raises(CmrvlmError, match=r"data\.batch_size"):
        data.train_dataloader()
    with pytest.raises(CmrvlmError, match="collator"):
        data.test_dataloader()
    with pytest.raises(CmrvlmError, match="no study"):
        make_module(source=broken_source(count=0)).prepare_data()


def test_broken_studies_leave_the_split_and_not_the_full_one(make_module, broken_source):
    data = make_module(source=broken_source(count=6), allowed_failures=1)
    data.prepare_data()
    broken = "phantom-0-00002"
    parts = [part for part, members in data.full_split.items() if broken in members]
    assert len(parts) == 1
    assert broken not in data.split[parts[0]]
    assert list(data.failures_of(parts[0])) == [broken]


def test_batches_of_an_epoch_hold_every_study_once(untrained):
    data = untrained.data
    seen = [study for batch in data.train_dataloader() for study in batch.study_ids]
    batches = len(data.split["train"]) // data.batch_size
    assert len(seen) == len(set(seen)) == batches * data.batch_size
    assert all(first != second for first, second in pairwise(seen))


def test_sequences_that_the_model_does_not_read_are_never_shown(make_module, tiny_source):
    source = tiny_source(count=16, missing={"lax_4ch": 1.0, "sax": 0.4})
    data = make_module(source=source, sequences=["sax"], shares={"test": 0.5})
    data.prepare_data()
    kept = [study for members in data.split.values() for study in members]
    assert 0 < len(kept) < 16
    assert len(data.failures) == 16 - len(kept)
    assert all("none of sax" in reason for reason in data.failures.values())
    training = TrainingSet(data.cache, data.split["train"], data.mixture, None, 0, ["sax"])
    _, instructions = training[(0, 0)]
    views = [view for instruction in instructions for view in instruction.views]
    assert {view.sequence for view in views} == {"sax"}
