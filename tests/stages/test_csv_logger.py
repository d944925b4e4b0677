"""The table of losses of a training that is resumed."""

import csv

import pytest

from cmrvlm.stages.csv_logger import csv_logger


def steps_of(path):
    return [int(row["step"]) for row in csv.DictReader(path.open())]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_each_training_in_a_folder_has_a_table_of_its_own(tmp_path, recwarn, count):
    for number in range(count):
        logger = csv_logger(str(tmp_path))
        logger.log_metrics({"loss": 1.0}, step=number)
        logger.save()
    folders = ["logs", *(f"logs_{number}" for number in range(2, count + 1))]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(folders)
    for step, folder in enumerate(folders):
        assert steps_of(tmp_path / folder / "metrics.csv") == [step]
    assert not [warning for warning in recwarn if "deleted" in str(warning.message)]


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "logs").mkdir()
    assert csv_logger(str(tmp_path)).log_dir == str(tmp_path / "logs")
