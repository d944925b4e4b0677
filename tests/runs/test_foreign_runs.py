"""A run folder from somebody else: whatever is written into it, loading it runs no code and deletes nothing."""

import json
import shutil

import pytest
import yaml
from transformers import BertConfig, BertModel

from cmrvlm.config.model_source import file_of_package
from cmrvlm.errors import CmrvlmError
from cmrvlm.language_model.tokenizer import load_tokenizer, pretrained_tokenizer
from cmrvlm.metrics.bert_score import check_bert_model
from cmrvlm.runs.fingerprints import write_fingerprints
from cmrvlm.runs.run_folder import load_run
from cmrvlm.stages.training import train
from tests.conftest import composed
from tests.language_model.test_pretrained import published_tokenizer

CODE = "from pathlib import Path\nPath({marker!r}).write_text('code ran')\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("foreign") / "run"
    train(
        composed(
            "+experiment=stage3",
            "+debug=fast",
            "callbacks.samples=null",
            f"paths.cache={cache}",
            f"out={folder}",
            f"run_dir={folder}",
        ),
        folder,
    )
    return folder


@pytest.fixture
def foreign(run, tmp_path, monkeypatch):
    """A copy of the run to write into, a folder that must not vanish, and a package beside it that must not run."""
    folder = shutil.copytree(run, tmp_path / "theirs" / "run")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data.txt").write_text("years of work")
    marker = tmp_path / "marker"
    beside = tmp_path / "theirs" / "evil"
    beside.mkdir()
    (beside / "__init__.py").write_text(CODE.format(marker=str(marker)))
    (beside / "model.gguf").write_bytes(b"GGUF")
    (tmp_path / "theirs" / "hubconf.py").write_text(
        CODE.format(marker=str(marker)) + "def load(): return 1\n"
    )
    monkeypatch.chdir(folder.parent)
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setattr(
        "builtins.input", lambda *unused: "y"
    )  # who is asked whether to run code may say yes
    yield folder
    assert not marker.exists()
    assert (precious / "data.txt").read_text() == "years of work"


def put(folder, key, value):
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    *way, last = key.split(".")
    place = config
    for name in way:
        place = place[name]
    place[last] = value
    path.write_text(yaml.safe_dump(config, allow_unicode=True))
    # Whoever writes a run can write its fingerprints.
    write_fingerprints(folder)


def removing(folder):
    """A function of Python's library that removes a folder, by way of one of our modules."""
    return {
        "_target_": "cmrvlm.export.shutil.rmtree",
        "path": str(folder.parents[1] / "precious"),
    }


HUB = "${oc.create:{_target_: torch.hub.load, repo_or_dir: ., model: load, source: local}}"
INNER = "${oc.create:{_target_: cmrvlm.config.model_source.file_of_package, package: evil.model, pattern: '*', field: x}}"
PLACES = [
    "encoders.sax",
    "projector",
    "adapter",
    "head.mask",
    "model",
    "llm.network",
    "transform.preprocessing",
    "transform.preprocessing.steps.frames",
    "transform.preprocessing.steps.frames.frames",
    "llm.network.layers",
]


@pytest.mark.parametrize("place", PLACES)
def test_targets_that_do_not_belong_and_interpolations_are_refused(foreign, place):
    package = {
        "_target_": "cmrvlm.config.model_source.file_of_package",
        "package": "evil.model",
        "pattern": "*",
        "field": "x",
    }
    for value in (
        removing(foreign),
        package,
        HUB,
        INNER,
        {"_target_": HUB},
        "${oc.env:HOME}",
        [HUB],
        {"_target_": "torch.hub.load", "repo_or_dir": ".", "model": "load", "source": "local"},
    ):
        put(foreign, place, value)
        with pytest.raises(CmrvlmError, match=place.split(".")[0]) as refused:
            load_run(foreign)
        assert refused.value.field.startswith(("config." + place, place))


def test_a_cache_that_is_to_be_cleared_with_its_own_class_is_refused(foreign):
    put(
        foreign,
        "encoders.sax",
        removing(foreign)
        | {"self": {"_target_": "data_modules.storage.cache.StudyCache", "root": "."}},
    )
    with pytest.raises(CmrvlmError, match="StudyCache"):
        load_run(foreign)


@pytest.mark.parametrize("package", ["evil", "evil.model", "..evil", "os", "cmrvlm.train"])
def test_a_package_beside_a_run_is_not_imported(foreign, package):
    put(
        foreign,
        "llm.network",
        {
            "_target_": "cmrvlm.language_model.pretrained.pretrained_language_model",
            "package": package,
        },
    )
    with pytest.raises(CmrvlmError, match="is not installed"):
        load_run(foreign)


def test_an_installed_package_is_found_without_importing_it():
    found = file_of_package("transformers", "configuration_bert.py", "x")
    assert found.is_file()
    assert found.name == "configuration_bert.py"


@pytest.mark.parametrize("kind", ["tiny", "local"])
def test_a_kernel_from_the_hub_is_refused(foreign, kind):
    name = "owner/kernel"
    if kind == "local":
        put(
            foreign,
            "llm.network",
            {"_target_": "cmrvlm.language_model.pretrained.pretrained_language_model", "path": "."},
        )
    put(foreign, "llm.network.attention_implementation", name)
    with pytest.raises(CmrvlmError, match=r"unknown attention implementation 'owner/kernel'.*sdpa"):
        load_run(foreign)


def with_code(folder, config, auto):
    """A model or tokenizer folder that wants to be loaded by a class of its own."""
    marker = folder.parents[1] / "marker"
    (folder / "mine.py").write_text(CODE.format(marker=str(marker)) + "class Mine: pass\n")
    path = folder / config
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(
        json.dumps(content | {"auto_map": auto, "tokenizer_class": "Mine", "model_type": "mine"})
    )


def test_a_tokenizer_with_code_is_refused(foreign):
    with_code(
        foreign / "tokenizer",
        "tokenizer_config.json",
        {"AutoTokenizer": ["mine.Mine", "mine.Mine"]},
    )
    write_fingerprints(foreign)
    for load in (
        lambda: load_run(foreign),
        lambda: load_tokenizer(foreign / "tokenizer"),
        lambda: pretrained_tokenizer([], str(foreign / "tokenizer")),
    ):
        with pytest.raises(CmrvlmError, match="tokenizer"):
            load()


def test_a_bert_model_with_code_is_refused(foreign):
    folder = foreign.parent / "bert"
    BertModel(
        BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    ).save_pretrained(folder)
    published_tokenizer().save_pretrained(folder)
    with_code(folder, "config.json", {"AutoModel": "mine.Mine", "AutoConfig": "mine.Mine"})
    with pytest.raises(CmrvlmError, match="cannot be loaded"):
        check_bert_model(str(folder), 1)


@pytest.mark.parametrize(
    "tag",
    [
        "!!pairs [x: {target}]",
        "!!omap [x: {target}]",
        "!!pairs [x: '${{oc.env:HOME}}']",
        "2020-01-01",
        "!!set {{a}}",
        "!!binary aGVsbG8=",
    ],
)
def test_values_that_are_not_plain_are_refused(foreign, tmp_path, tag):
    """Hydra looks into tuples too, which YAML can write."""
    made = tmp_path / "made"
    path = foreign / "config.yaml"
    written = tag.format(target=f"{{_target_: os.mkdir, path: {made}}}")
    path.write_text(
        path.read_text().replace(
            "encoders:\n  sax:\n", f"encoders:\n  sax:\n    extra: {written}\n"
        )
    )
    with pytest.raises(CmrvlmError, match=r"encoders\.sax\.extra.*plain value"):
        load_run(foreign)
    assert not made.exists()


@pytest.mark.parametrize("kind", ["albert", "clip_text_model", "mine"])
@pytest.mark.parametrize("weights", [True, False])
def test_a_language_model_with_code_is_refused(foreign, kind, weights):
    folder = foreign / "language_model"
    folder.mkdir()
    with_code(folder, "config.json", {"AutoModelForCausalLM": "mine.Mine"})
    content = json.loads((folder / "config.json").read_text()) | {"model_type": kind}
    (folder / "config.json").write_text(json.dumps(content))
    shutil.copy(folder / "mine.py", foreign / "mine.py")
    put(
        foreign,
        "llm.network",
        {
            "_target_": "cmrvlm.language_model.pretrained.pretrained_language_model",
            "path": str(folder),
            "weights": weights,
            "max_length": 64,
        },
    )
    with pytest.raises(CmrvlmError):
        load_run(foreign)


def test_an_adapter_beside_a_model_is_refused(foreign):
    """PEFT would import the module that it names, and change the weights without a word."""
    folder = foreign.parent / "base"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(
        json.dumps({"megatron_config": {"x": 1}, "megatron_core": "evil.core"})
    )
    put(
        foreign,
        "llm.network",
        {
            "_target_": "cmrvlm.language_model.pretrained.pretrained_language_model",
            "path": str(folder),
        },
    )
    with pytest.raises(CmrvlmError, match="adapter beside the model"):
        load_run(foreign)
