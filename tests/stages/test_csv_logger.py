"""The table of losses of a training that is resumed."""

import csv

import pytest

from cmrvlm.stages.csv_logger import csv_logger, tables_of
from experiments.commands import logged


def steps_of(path):
    return [int(row["step"]) for row in csv.DictReader(path.open())]


@pytest.mark.parametrize("count", [1, 2, 11])
def test_each_training_in_a_folder_has_a_table_of_its_own(tmp_path, recwarn, count):
    for number in range(count):
        logger = csv_logger(str(tmp_path))
        logger.log_metrics({"loss": 1.0}, step=number)
        logger.save()
    # All lie in the one folder of a run that a later run replaces.
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
    found = tables_of(tmp_path)
    assert found[0] == tmp_path / "logs" / "metrics.csv"
    assert [steps_of(path) for path in found] == [[step] for step in range(count)]
    assert not [warning for warning in recwarn if "deleted" in str(warning.message)]


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "logs").mkdir()
    assert csv_logger(str(tmp_path)).log_dir == str(tmp_path / "logs")


def test_steps_that_were_done_again_count_as_they_were_done_last(tmp_path):
    for values in ({0: 1.0, 1: 2.0, 2: 3.0}, {2: 4.0, 3: 5.0}):
        logger = csv_logger(str(tmp_path))
        for step, value in values.items():
            logger.log_metrics({"loss": value}, step=step)
        logger.save()
    assert logged(tmp_path, "loss") == {1: 1.0, 2: 2.0, 3: 4.0, 4: 5.0}
