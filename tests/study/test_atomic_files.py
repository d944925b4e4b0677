"""Files are complete or as they were, one or several at once."""

import pytest

from cmrvlm.study.atomic_files import atomic_files


@pytest.mark.parametrize("fault", [OSError("full"), KeyboardInterrupt(), None])
def test_several_files_take_their_places_together_or_not_at_all(tmp_path, fault):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for name in ("a.json", "other.txt"):
        (folder / name).write_text("former")
    try:
        with atomic_files(folder) as draft:
            assert draft.parent == tmp_path
            (draft / "a.json").write_text("new")
            (draft / "b.json").write_text("new")
            if fault:
                raise fault
    except type(fault or ValueError()):
        pass
    found = {path.name: path.read_text() for path in folder.iterdir()}
    expected = {"a.json": "former", "other.txt": "former"}
    if fault is None:
        expected = {"a.json": "new", "b.json": "new", "other.txt": "former"}
    assert found == expected
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer"]


def test_a_folder_that_is_not_there_is_made(tmp_path):
    with atomic_files(tmp_path / "new") as draft:
        (draft / "a").touch()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a"]
