import base64
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from made_runs import curve, write_cost, write_plan, write_run

from momentumrnn.errors import CheckpointError
from momentumrnn.results import build_report, find_runs, make_folder, write_report
from momentumrnn.results.match import Setting
from momentumrnn.results.page import to_page
from momentumrnn.results.report import Part, Report, Section
from momentumrnn.results.table import Table
from momentumrnn.training import load_recipe
from momentumrnn.training.plan import Plan

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    plan = Plan(("fig3", "cost"), seeds=1, overrides=("training.epochs=2",))
    write_plan(folder / "real", plan, skip=("timit",), unfinished=("mnist-lstm",))
    write_cost(folder / "real", panels=1)
    write_plan(folder / "smoke", Plan(("table5",), seeds=1, smoke=True))
    strange = load_recipe("digits-lstm").override(["training.epochs=2"])
    write_run(folder / "<b>&'\"", strange, curve(strange, 2, 90.0, 0))
    out = folder / "report"
    make_folder(out)
    report = build_report(find_runs([folder]))
    files = write_report(report, out)
    return out, files, report


def page_of(written):
    text = (written[0] / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


def test_everything_is_written(written):
    out, files, report = written
    assert {file.name for file in files if file.parent == out} == {
        "tables.md",
        "results.csv",
        "results.json",
        "tables.tex",
        "report.html",
    }
    drawn = [
        drawing.name for section in report.sections for part in section.parts for drawing in part.drawings
    ]
    assert len(drawn) == 3
    assert {file.name for file in files if file.parent != out} == {
        f"{name}.{suffix}" for name in drawn for suffix in ("png", "svg")
    }
    assert all(file.stat().st_size > 0 for file in files)
    for name in drawn:
        assert f"](plots/{name}.png)" in (out / "tables.md").read_text(encoding="utf-8")


def test_the_page_needs_nothing_else(written):
    text, page = page_of(written)
    assert not page.open
    assert not page.all("script")
    addresses = re.findall(r'(?:src|href)="([^"]{1,40})', text) + re.findall(r"url\(([^)]{1,40})", text)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert page.all("meta")[1]["name"] == "viewport"
    assert "prefers-color-scheme: dark" in text
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {link["href"][1:] for link in page.all("a")} <= targets


def test_pictures_are_inside_and_described(written):
    _, page = page_of(written)
    pictures = page.all("img")
    assert len(pictures) == 3
    for picture in pictures:
        kind, _, content = picture["src"].partition(";base64,")
        assert kind == "data:image/svg+xml"
        assert b"<svg" in base64.b64decode(content)
        assert len(picture["alt"]) > 20


def test_names_do_not_become_markup(written):
    text, page = page_of(written)
    assert "&lt;b&gt;&amp;" in text
    assert not page.all("b")
    assert any("<b>&'\"" in each for each in page.text)
    hostile = "<i a='\">&amp;"
    table = Table(hostile, (hostile, hostile), ((hostile, hostile),), (hostile,))
    section = Section(hostile, hostile, Setting(), [Part(hostile, (table,))])
    page = Page(to_page(Report([section], [], [hostile]), {hostile: hostile}))
    assert not page.all("i")
    # Contents, two facts, a warning, two headings, the table's four cells and its note.
    assert page.text.count(hostile) == 11
    assert page.all("div")[0]["aria-label"] == hostile


def test_what_a_reader_is_told(written):
    _, page = page_of(written)
    told = " ".join(page.text)
    assert "2.13.0+cpu" in told
    assert "c0ffee" in told
    assert "runs are not finished: mnist-lstm-256-seed-0 (1 of 2 epochs)" in told
    assert "not run" in told
    assert "SMOKE TEST, NO RESULTS" in told
    # In the heading of the section alone: the other runs are results.
    assert [attributes.get("class") for attributes in page.all("p")].count("smoke") == 1
    assert len(page.all("details")) == len(written[2].runs) == 7
    assert 'name = "mnist"' in told
    assert all(region.get("tabindex") == "0" for region in page.all("div") if region.get("role") == "region")


def test_a_report_of_nothing_run_is_a_page(tmp_path):
    Plan(("fig6",)).save(tmp_path)
    report = build_report(find_runs([tmp_path]))
    files = write_report(report, tmp_path, ["html", "png", "markdown"])
    assert [file.name for file in files] == ["tables.md", "report.html"]
    assert "None was found." in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"--out .*file: expected a folder, or a place for one"):
        make_folder(tmp_path / "file")


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_shows_the_page(written, tmp_path):
    # A copy counts broken pictures, and says whether the page is too wide for a phone.
    check = (
        "<script>addEventListener('load', () => { const d = document;"
        "const broken = [...d.images].filter(image => !image.complete || !image.naturalWidth).length;"
        "const wide = d.documentElement.scrollWidth > innerWidth;"
        "d.title = `broken ${broken} of ${d.images.length}, too wide ${wide}`; })</script></body>"
    )
    text = (written[0] / "report.html").read_text(encoding="utf-8")
    page = tmp_path / "page.html"
    page.write_text(text.replace("</body>", check), encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(
        '<body><iframe src="page.html" width="400" height="800" '
        'onload="setTimeout(() => { document.title = this.contentDocument.title })"></iframe></body>',
        encoding="utf-8",
    )
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--allow-file-access-from-files",
            "--enable-logging=stderr",
            "--virtual-time-budget=10000",
            f"--user-data-dir={tmp_path / 'browser'}",
            "--dump-dom",
            frame.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "<title>broken 0 of 3, too wide false</title>" in done.stdout
    assert not [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
