"""The worked examples of docs/extending.md run as they stand there, in a copy of the project."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap

import nibabel as nib
import numpy as np
import pytest

from cmrvlm.inference.answering import answer_batch
from cmrvlm.instructions import read_outs
from cmrvlm.runs.wiring import (
    build_collator,
    build_data,
    build_model,
    build_stage,
    build_tokenizer,
)
from cmrvlm.study.files import write_nifti
from tests.conftest import ROOT, composed

TEXT = (ROOT / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r'^```\w+ title="([\w./]+)"\n(.*?)^```$', TEXT, re.MULTILINE | re.DOTALL))
ENTRY = re.search(r'^```python title="an entry of .*?"\n(.*?)^```$', TEXT, re.M | re.S)[1]
RECORD = re.search(r'^```python title="a record of .*?"\n(.*?)^```$', TEXT, re.M | re.S)[1]
COMMANDS = re.findall(r"^python -m (cmrvlm\.\w+) (.+)$", TEXT, re.MULTILINE)
SMALL = (
    "transform.preprocessing.steps.grid.size=[null,48,48]",
    "transform.preprocessing.steps.grid.spacing_mm=[null,4.0,4.0]",
    "trainer.max_steps=1",
    "trainer.limit_val_batches=0",
    "hardware=cpu",
)
CONTRACT = "tests/tasks/test_tasks.py"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the project with the files of the examples in it."""
    tree = tmp_path_factory.mktemp("tree")
    for folder in ("cmrvlm", "data_modules", "conf", "tests"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    for name, content in FILES.items():
        assert not (tree / name).exists(), f"{name} is a file of the project already"
        (tree / name).write_text(content)
    return tree


@pytest.fixture
def clinic(source, tmp_path):
    """Phantoms in the layout that the example of a data set reads."""
    values = np.array([0, 3, 2, 1, 2, 2, 0, 0], np.uint8)  # canonical to those of the clinic
    for study_id in source.study_ids()[:4]:
        study = source.load(study_id)
        series = study.series["sax"]
        folder = tmp_path / "clinic" / study_id
        folder.mkdir(parents=True)
        write_nifti(folder / "sa.nii.gz", series.image, series.affine)
        write_nifti(folder / "sa_label.nii.gz", values[series.mask], series.affine)
        info = dict(series.phases) | {"disease": min(study.labels.diseases)}
        (folder / "info.json").write_text(json.dumps(info))
    return tmp_path / "clinic"


def python(tree, *arguments):
    """Output of a command that succeeds in the copy."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
        env=os.environ | {"PYTHONPATH": str(tree)},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def documented(module, word, folder=""):
    """Overrides of the one documented command of a module that has a word in it."""
    texts = [text for name, text in COMMANDS if name == module and word in text.split()]
    assert len(texts) == 1, word
    return [word.replace("<folder>", str(folder)) for word in texts[0].split()]


def train_one_step(tree, tmp_path, *overrides):
    """Train one step in a small size; returns the run's configuration."""
    run = tmp_path / "run"
    places = (f"out={run}", f"paths.cache={tmp_path / 'cache'}")
    python(tree, "-m", "cmrvlm.train", *overrides, *SMALL, *places)
    assert (run / "model.safetensors").is_file()
    return (run / "config.yaml").read_text()


def test_every_example_has_a_python_file_and_a_yaml_file():
    folders = ("cmrvlm/tasks", "cmrvlm/encoders", "data_modules/sources")
    confs = ("conf/task", "conf/encoder", "conf/data")
    assert sorted(name.rsplit("/", 1)[0] for name in FILES) == sorted(folders + confs)
    assert len(COMMANDS) == 4, "run the others here too"


@pytest.mark.slow
def test_example_of_a_task_keeps_the_contract_of_tasks(tree):
    found = python(tree, "-m", "pytest", "-q", "-n", "0", CONTRACT, "-k", "larger_ventricle")
    assert int(re.search(r"(\d+) passed", found)[1]) >= 10


@pytest.mark.slow  # a training in a process of its own
def test_examples_of_a_task_and_an_encoder_are_trained_together(tree, tmp_path):
    task = documented("cmrvlm.train", "+task@mix.tasks.larger_ventricle=larger_ventricle")
    encoder = documented("cmrvlm.train", "encoder@encoders.sax=plain")
    both = dict.fromkeys((*task, *encoder, "+debug=fast"))
    # More instructions than tasks: every task is asked.
    config = train_one_step(tree, tmp_path, *both, "mix.per_study=20")
    assert config.count("PlainEncoder") == 1
    assert config.count("LargerVentricleTask") == 1


@pytest.mark.slow
def test_example_of_an_encoder_keeps_the_contract_of_encoders(tree):
    path = tree / "tests/encoders/test_encoders.py"
    imports = "from cmrvlm.encoders.plain import PlainEncoder\n"
    entry = '    "plain": lambda: PlainEncoder((8, 16, 16)),\n'
    before, after = path.read_text().split("ENCODERS = {\n", 1)
    path.write_text(f"{imports}{before}ENCODERS = {{\n{entry}{after}")
    found = python(
        tree, "-m", "pytest", "-q", "-n", "0", str(path), "-k", "plain and not attention"
    )
    assert int(re.search(r"(\d+) passed", found)[1]) >= 8


@pytest.mark.slow  # check and train, each a process
def test_example_of_a_data_set_is_checked_and_trained_on(tree, clinic, tmp_path):
    out, cache = tmp_path / "check", f"paths.cache={tmp_path / 'cache'}"
    check = documented("cmrvlm.check", "data=clinic", clinic)
    python(tree, "-m", "cmrvlm.check", *check, f"out={out}", cache)
    assert json.loads((out / "check.json").read_text())["studies"] == 4
    train = documented("cmrvlm.train", "data=clinic", clinic)
    shares = "data.shares={val: 0.0, test: 0.25}"
    config = train_one_step(tree, tmp_path, *train, shares, "data.batch_size=1")
    assert "ClinicSource" in config


def test_example_of_a_data_set_reads_values_and_phases(tree, clinic):
    code = f"""
    import numpy as np
    from data_modules.sources.clinic import ClinicSource
    source = ClinicSource({str(clinic)!r})
    study = source.load(source.study_ids()[0])
    series = study.series["sax"]
    print(sorted(series.phases), np.unique(series.mask).tolist(), len(source.files(study.study_id)))
    """
    found = python(tree, "-c", textwrap.dedent(code))
    assert found.strip() == "['ed', 'es'] [0, 1, 2, 3] 3"
    image = nib.load(next(clinic.glob("*/sa.nii.gz")))
    assert image.ndim == 4


def test_example_of_a_structure_is_an_entry_of_the_table():
    from cmrvlm.study.structures import STRUCTURE_TABLE, Structure

    call = ast.parse(ENTRY, mode="eval").body
    structure = Structure(**{word.arg: ast.literal_eval(word.value) for word in call.keywords})
    assert structure.name not in STRUCTURE_TABLE
    assert structure.value not in {one.value for one in STRUCTURE_TABLE.values()}


def test_example_of_a_read_out_reaches_head_loss_and_answers(monkeypatch, tmp_path, cache):
    """One record is enough: the head, its tokens, its loss and the answers follow from it."""
    names = dict(vars(read_outs))
    exec(RECORD, names)
    monkeypatch.setitem(read_outs.READ_OUTS, "age", names["AGE"])
    config = composed(
        "+experiment=stage3",
        "+debug=fast",
        f"paths.cache={cache}",
        f"out={tmp_path}",
        f"run_dir={tmp_path}",
    )
    data = build_data(config)
    data.prepare_data()
    tokenizer = build_tokenizer(config, data, None)
    model = build_model(config, tokenizer)
    collator = build_collator(model, tokenizer)
    study = data.load_study(data.split["train"][0])
    batch = collator([(study, data.mixture.all(study)[:4])])
    age_years = study.labels.demographics["age_years"]
    assert batch.targets["age"].item() == pytest.approx((age_years - 50) / 20)
    losses = build_stage(config, model).losses(batch)
    assert losses["age"].total > 0
    whole = [
        answer for answer in answer_batch(model.eval(), collator, batch, 4) if answer.read_outs
    ]
    assert whole[0].read_outs["age"].shape == (1,)
