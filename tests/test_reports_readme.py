"""The READMEs say what the records say, and their links lead somewhere; publishing writes addresses and takes them back."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest

from lab.evidence.places import RESULTS
from lab.reports import publish, readme, report

ROOT = Path(__file__).parent.parent
PAGES = [*readme.PAGES, "lab/results/README.md"]


@pytest.fixture(scope="module")
def evidence():
    return readme.gather()


@pytest.fixture
def pages(tmp_path, monkeypatch):
    """A copy of the READMEs in a folder of their own."""
    for name in ("SESSION7_SHORT", "SESSION7_DATASET"):
        monkeypatch.delenv(name, raising=False)
    for name in readme.PAGES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def text_of(folder):
    return {name: (folder / name).read_text() for name in readme.PAGES}


# What is generated


def test_what_is_generated_stands_in_the_readmes(evidence):
    for path, text in readme.fill(evidence).items():
        assert path.read_text() == text, f"{path} is out of date: run `python -m lab report`"


def test_a_figure_that_was_typed_over_is_written_again(pages, evidence):
    before = text_of(pages)
    for name, text in before.items():
        (pages / name).write_text(re.sub(r"\d\d\.\d\d", "12.34", text))
    assert all(text != before[name] for name, text in text_of(pages).items())
    readme.write(evidence.recorded, pages)
    assert text_of(pages) == before


def test_a_page_without_a_mark_is_named_and_no_page_is_written(pages, evidence):
    for name in readme.PAGES:
        (pages / name).write_text((ROOT / name).read_text().replace("99.", "12."))
    page = pages / "app/README.md"
    page.write_text(page.read_text().replace("<!-- end of drawings -->\n", ""))
    before = text_of(pages)
    with pytest.raises(
        ValueError, match="app/README.md: the mark '<!-- end of drawings -->' is there 0 times, expected once"
    ):
        readme.write(evidence.recorded, pages)
    assert text_of(pages) == before


def test_marks_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match="the mark '<!-- end -->' is above '<!-- begin -->', expected it below"):
        readme.put("<!-- end -->\n<!-- begin -->\n", "<!-- begin -->\n", "<!-- end -->\n", "content")


@pytest.mark.parametrize(("variable", "value"), [("SESSION7_SHORT", "1"), ("SESSION7_DATASET", "sample")])
def test_a_short_run_or_the_sample_writes_no_readme(pages, monkeypatch, variable, value):
    (pages / "README.md").write_text("before")
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=f"{variable}={value} is set: unset it to write the READMEs"):
        readme.write(root=pages)
    assert (pages / "README.md").read_text() == "before"


def test_a_recipe_without_records_is_named(evidence):
    empty = readme.Evidence({}, evidence.bench, evidence.bench_app, evidence.drawings, evidence.app_network)
    with pytest.raises(ValueError, match="hundred/step3 has no recorded run, expected some: `python -m lab study"):
        readme.fill(empty)


def test_the_odds_are_those_of_the_recorded_shares(evidence):
    """Once more, from the summary, for the rows that name their recipes. A recipe may have run in several studies: their seeds
    are the same where they begin with the same.
    """
    summary = json.loads((RESULTS / "summary.json").read_text())
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in readme._odds(evidence).splitlines()[2:13]]
    named = {name: row for row in rows for name in re.findall(r"`(\w+)`", row[1])}
    assert {"cosine", "8_epochs", "no_capacity", "4534_parameters"} <= named.keys()
    for name, row in named.items():
        found = [
            (study["first_seed"], study["recipes"][name]) for study in summary.values() if name in study["recipes"]
        ]
        found = [(first, recipe) for first, recipe in found if recipe["measured_on"] == "test"]
        found = [(first, recipe) for first, recipe in found if recipe["hash"] == found[0][1]["hash"]]
        most = dict(sorted(found, key=lambda one: one[1]["seeds"])).values()
        share = sum(recipe["consistent"] for recipe in most) / sum(recipe["seeds"] for recipe in most)
        assert row[0] == f"{100 * share:.0f} %"
        assert row[2:5] == [f"{100 * chance:.1f}" for chance in (share**3, 5 * share**4 - 4 * share**5, share**5)]
        assert row[6:] == [f"{100 * chance:.1f}" for chance in (10 * share**9 - 9 * share**10, share**10)]


@pytest.mark.parametrize("committed", [True, False])
def test_only_a_report_into_the_committed_results_writes_the_readmes(pages, monkeypatch, committed):
    written = []
    monkeypatch.setattr(report.readme, "write", lambda *_: written.append("READMEs"))
    monkeypatch.setattr(report.figures, "draw_all", lambda *_: None)
    monkeypatch.setattr(report, "RESULTS", pages / "report" if committed else RESULTS)
    report.report(pages / "report")
    assert written == (["READMEs"] if committed else [])


# What is typed


def test_the_first_readme_can_be_read_in_ten_minutes():
    assert len((ROOT / "README.md").read_text().split()) <= 1_200


def test_what_the_readme_concludes_is_what_its_table_shows(evidence):
    """ "The capacity layer raises the accuracy; pooling and dropout narrow the gap; the falling rate carries the result"."""
    found = {recipe: readme.change(evidence, study, recipe, other) for study, recipe, other, _ in readme.FINDINGS}
    for narrows in ("gap", "dropout"):
        contrast, before, after = found[narrows]
        assert contrast.says != "different" and after < before - 0.2
    contrast, before, after = found["capacity"]
    assert contrast.says == "different" and contrast.difference.mean > 0 and abs(after - before) < 0.1
    for name, sign in (("schedule", 1), ("constant_rate", -1), ("dropout_0.1", -1)):
        assert found[name][0].says == "different" and found[name][0].difference.sign == sign
    assert min(found.values(), key=lambda change: change[0].difference.mean) == found["constant_rate"]


def anchors(path):
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_a_link_leads_to_a_file_and_a_heading_that_are_there(name):
    page = ROOT / name
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()) if not link.startswith("https://")]
    assert links
    for link in links:
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_records_and_pages_name_no_place_of_the_machine_that_made_them():
    made = [*ROOT.glob("*.ipynb"), *ROOT.glob("lab/*.ipynb"), *ROOT.glob("lab/results/**/*.json")]
    for path in [*made, *(ROOT / name for name in PAGES)]:
        assert not re.search(r"/(home|root|work|tmp|Users)/", path.read_text()), path


# Published


def copy_of_what_is_published(folder):
    for name in [*publish.NOTEBOOKS, "README"]:
        path = Path(f"{name}.md" if name == "README" else f"{name}.ipynb")
        (folder / path).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / path, folder / path)
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("address", ["https://github.com/ann/lesson", "https://github.com/ann/lesson.git"])
def test_publishing_names_the_repository_everywhere_and_is_undone_without_a_trace(tmp_path, address):
    before = copy_of_what_is_published(tmp_path)
    publish.publish(address, tmp_path)
    for name in publish.NOTEBOOKS:
        notebook = nbformat.read(tmp_path / f"{name}.ipynb", as_version=4)
        badge = f"(https://colab.research.google.com/github/ann/lesson/blob/main/{name}.ipynb)"
        assert badge in notebook.cells[0].source.splitlines()[0] and badge in (tmp_path / "README.md").read_text()
        code = next(cell.source for cell in notebook.cells if cell.cell_type == "code")
        assert 'REPOSITORY = "https://github.com/ann/lesson"\n' in code
    publish.publish("https://github.com/bob/copy", tmp_path)
    assert all(b"ann/lesson" not in path.read_bytes() for path in before)
    publish.publish("", tmp_path)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("address", ["github.com/a/b", "https://gitlab.com/a/b", "https://github.com/a", "a b"])
def test_an_address_that_colab_cannot_open_is_refused_and_nothing_is_written(tmp_path, address):
    before = copy_of_what_is_published(tmp_path)
    with pytest.raises(ValueError, match="expected one such as https://github.com/NAME/REPOSITORY"):
        publish.publish(address, tmp_path)
    assert {path: path.read_bytes() for path in before} == before
