"""Text of others on pages, in drawings and in Markdown: it is shown, and none of it is markup."""

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from cmrvlm.evaluation.figures import bland_altman, reliability
from cmrvlm.evaluation.tables import markdown
from cmrvlm.study.files import write_nifti
from cmrvlm.tasks.base import Calibration
from data_modules.checking.faults import Fault
from data_modules.checking.page import write_page
from data_modules.checking.run import CheckRun
from data_modules.sources.manifest import ManifestSource

MARKUP = {
    "a script": "<script>alert(1)</script>",
    "a script in capitals": "<SCRIPT SRC=//x/a.js></SCRIPT>",
    "a picture with an error": "<img src=x onerror=alert(1)>",
    "a picture that loads": "<svg/onload=alert(1)>",
    "the end of a cell": "</td></tr></table><script>alert(1)</script>",
    "the end of a caption": "</figcaption><iframe src=file:///etc/passwd></iframe>",
    "the end of the title": "</title><script>alert(1)</script>",
    "the end of the style": "</style><script>alert(1)</script>",
    "the end of a quote": "' onmouseover='alert(1)",
    "the end of two quotes": '" autofocus onfocus="alert(1)',
    "a link that runs": "<a href=javascript:alert(1)>see</a>",
    "a link of data": "<a href='data:text/html,<script>alert(1)</script>'>see</a>",
    "a comment": "<!-- --><script>alert(1)</script>",
    "the end of a comment": "--><script>alert(1)</script>",
    "the end of data": "]]><script>alert(1)</script>",
    "a processing instruction": "<?xml-stylesheet href='javascript:alert(1)'?>",
    "an entity": "&lt;script&gt;alert(1)&lt;/script&gt;",
    "an entity of its own": "<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>&a;",
    "a form": "<form action=//x><input name=a></form>",
    "a base": "<base href=//x/>",
    "a refresh": "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>",
    "a style": "<style>body{background:url(//x)}</style>",
    "an object": "<object data=//x></object>",
    "a broken tag": "<script",
    "seven bits": "+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
}
# What the page of a check is made of.
TAGS = {"meta", "title", "style", "h1", "h2", "p", "table", "tr", "td", "th", "div"} | {
    "figure",
    "img",
    "figcaption",
}
ATTRIBUTES = {"charset", "class", "src", "alt", "http-equiv", "content"}


class Page(HTMLParser):
    """What a browser makes of a page: tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def page_of(path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def check_harmless(page: Page) -> None:
    assert {tag for tag, _ in page.tags} <= TAGS
    for tag, attributes in page.tags:
        assert set(attributes) <= ATTRIBUTES
        assert all(value is None or "script" not in value for value in attributes.values())
        if tag == "img":
            assert attributes["src"].startswith("data:image/png;base64,")


@pytest.mark.parametrize("name", MARKUP)
def test_a_page_shows_markup_as_text(tmp_path, name):
    text = MARKUP[name]
    (tmp_path / "a.png").write_bytes(b"x")
    faults = [Fault("error", text, text, text), Fault(text, text, text, text)]
    counts = {text: {text: 1, f"{text} no": 0}}
    write_page(tmp_path / "a.html", text, 1, faults, counts, {text: tmp_path / "a.png"})
    page = page_of(tmp_path / "a.html")
    check_harmless(page)
    assert page.text.count(text) >= 8


@pytest.mark.parametrize("name", ["a script", "the end of a cell", "the end of two quotes"])
def test_a_check_of_such_studies_shows_them_as_text(tmp_path, name):
    text = MARKUP[name]
    image = np.random.default_rng(0).normal(size=(3, 2, 8, 8)).astype(np.float32)
    write_nifti(tmp_path / "a.nii.gz", image, np.diag([8.0, 8.0, 8.0, 1.0]))
    rows = [{"study_id": text, "patient_id": text, "sax": "a.nii.gz"}, {"study_id": f"{text} 2"}]
    rows[1]["sax"] = f"{text}.nii.gz"
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run = CheckRun(ManifestSource(str(tmp_path / "t.jsonl")), tmp_path / "out", workers=1)
    run.finish(list(run.run()), None, text)
    page = page_of(tmp_path / "out" / "check.html")
    check_harmless(page)
    assert text in page.text


def test_a_browser_may_run_and_load_nothing_on_a_page(tmp_path):
    write_page(tmp_path / "a.html", "a", 0, [], {}, {})
    policies = [
        attributes["content"]
        for tag, attributes in page_of(tmp_path / "a.html").tags
        if attributes.get("http-equiv", "").lower() == "content-security-policy"
    ]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'")
    assert "script-src" not in policies[0]


DOLLARS = {"a formula": "$\\frac{$", "dollars": "$a$ $", "a macro": "$\\input{/etc/passwd}$"}


@pytest.mark.parametrize("name", [*MARKUP, *DOLLARS])
def test_a_drawing_shows_names_as_text(tmp_path, name):
    text = (MARKUP | DOLLARS)[name]
    calibration = Calibration(probability=[0.1, 0.9], truth=[False, True])
    reliability({text: calibration}, tmp_path / "a.png")
    tree = ElementTree.parse(tmp_path / "a.svg")
    for node in tree.iter():
        tag = node.tag.rpartition("}")[2].lower()
        assert tag not in ("script", "foreignobject", "iframe", "a", "image", "form", "meta")
        for key, value in node.attrib.items():
            assert not key.rpartition("}")[2].lower().startswith("on")
            assert "javascript" not in value


def test_a_drawing_of_agreement_is_one_too(tmp_path):
    bland_altman({"lvef_percent": [(50.0, 51.0), (60.0, 58.0)]}, tmp_path / "a.png")
    assert ElementTree.parse(tmp_path / "a.svg").getroot() is not None


MARKDOWN = {
    "a column": "a | b",
    "a row": "a\n| b | c |",
    "a heading": "a\n# b",
    "a link": "[see](javascript:alert(1))",
    "a picture": "![a](http://x/a.png)",
    "code": "`a`",
    "stress": "**a** *b*",
    "a formula": "$a$",
    "a reference": "[a]: http://x",
    "a backslash": "a\\|b",
    "a carriage return": "a\r# b",
    **MARKUP,
}


@pytest.mark.parametrize("name", MARKDOWN)
def test_a_table_in_markdown_shows_names_as_text(name):
    text = MARKDOWN[name]
    lines = markdown((text, "value"), [(text, "0.5")], text).splitlines()
    assert len(lines) == 5
    for line in lines:
        bare = re.sub(r"\\[!-/:-@\[-`{-~]", "", line)
        assert not re.search(r"[<>`*\[\]&$]", bare)
    for line in (lines[2], lines[4]):
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3


def test_ordinary_names_stay_in_markdown():
    head = ("task", "metric", "value (95 %)", "sax+lge")
    row = ("segment_lv", "dice_mean", "0.900 (0.850 to 0.950)", "-0.010")
    lines = markdown(head, [row], "12 studies of the test part").splitlines()
    assert lines[0] == "## 12 studies of the test part"
    assert lines[2] == "| task | metric | value (95 %) | sax+lge |"
    assert lines[4] == f"| {' | '.join(row)} |"
