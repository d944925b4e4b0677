"""Which data a run is evaluated on where the command line names other data."""

from types import SimpleNamespace

import pytest

import cmrvlm.evaluation.data
from cmrvlm.errors import CmrvlmError
from cmrvlm.evaluation.data import evaluation_data
from tests.conftest import composed


@pytest.fixture
def data_of(tmp_path, monkeypatch):
    """Return a function from a run's data and overrides of `evaluate` to the settings of data."""

    def settings(trained_on, *overrides):
        config = {"data": composed(*trained_on, "out=here", "run_dir=here")["data"]}
        run = SimpleNamespace(config=config, folder=tmp_path)
        changes = composed("run=here", *overrides, name="evaluate")["data"]
        built = SimpleNamespace(prepare_data=lambda: None)
        monkeypatch.setattr(
            cmrvlm.evaluation.data,
            "build_data",
            lambda config, **_: vars(built).update(config) or built,
        )
        return evaluation_data(run, changes).data

    return settings


@pytest.mark.parametrize(
    ("trained_on", "override", "name"),
    [
        (("data=manifest", "data.path=old"), "+data.path=new", "path"),
        (("data=manifest", "data.path=old"), "++data.source.path=new", "path"),
        (("data=nifti", "data.root=old"), "+data.root=new", "root"),
        (("data=acdc", "data.root=old"), "++data.root=new", "root"),
        (("data=kaggle_dsb2", "data.root=old"), "++data.source.root=new", "root"),
    ],
)  # fmt: skip
def test_another_folder_or_table_of_the_same_kind_is_read(data_of, trained_on, override, name):
    data = data_of(trained_on, override, "++data.shares.test=1")
    assert data["source"][name] == "new"
    assert data["source"]["_target_"] == data_of(trained_on)["source"]["_target_"]
    assert data["shares"]["test"] == 1
    assert data_of(trained_on)["source"][name] == "old"


@pytest.mark.parametrize("trained_on", ["data=phantom", "data=phantom_small", "data=phantom_test"])
@pytest.mark.parametrize("name", ["root", "path"])
def test_data_without_a_folder_take_none(data_of, trained_on, name):
    with pytest.raises(CmrvlmError, match=f"no {name}"):
        data_of((trained_on,), f"+data.{name}=new")


def test_another_data_set_takes_nothing_from_that_of_the_run(data_of):
    data = data_of(("data=manifest", "data.path=old"), "+data=acdc", "data.root=new")
    assert data["source"]["root"] == "new"
    assert "path" not in data["source"]
