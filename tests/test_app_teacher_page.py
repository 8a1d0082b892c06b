"""The teacher's page and the projector in a real browser with a real server."""

import io
import re
import time
import uuid
import zipfile

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from servers import App, free_port
from test_app import encode
from test_app_teacher import TOKEN, as_teacher, draw


@pytest.fixture
def server(tmp_path):
    with App(tmp_path, APP_TOKEN=TOKEN) as running:
        yield running


@pytest.fixture(scope="module")
def pictures(sample):
    """A PNG of each digit, 0 to 9, whose index is what the network says."""
    return [encode(image) for image in sample[1].images[:10].numpy()]


@pytest.fixture
def open_page(browser, server):
    """Open a page, and fail on console errors but those of refused tokens, and on requests to other hosts."""
    contexts, complaints, elsewhere = [], [], []

    def open(path="", **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda said: said.type == "error" and "status of 401" not in said.text and complaints.append(said.text),
        )
        page.on("request", lambda sent: sent.url.startswith((server.address, "blob:")) or elsewhere.append(sent.url))
        page.goto(server.address + path)
        return page

    yield open
    for context in contexts:
        context.close()
    assert not elsewhere
    assert not complaints


@pytest.fixture
def teacher(open_page):
    """The teacher's page, signed in."""
    page = open_page(f"teacher.html#token={TOKEN}")
    expect(page.locator("#classes option")).not_to_have_count(0)  # shown before the server's answer
    return page


# ---------------------------------------------------------------------------------------------------------------------
# The token
# ---------------------------------------------------------------------------------------------------------------------


def test_the_link_with_the_token_signs_in_and_the_token_leaves_the_address(open_page, server):
    page = open_page(f"teacher.html#token={TOKEN}")
    expect(page.get_by_role("heading", name="Drawings")).to_be_visible()
    expect(page).to_have_url(f"{server.address}teacher.html")
    page.reload()
    expect(page.get_by_role("heading", name="Drawings")).to_be_visible()  # it stays in the tab
    other = page.context.new_page()
    other.goto(server.address + "teacher.html")
    expect(other.get_by_role("textbox", name="Token")).to_be_visible()  # and only there
    assert TOKEN not in server.log


def test_the_page_asks_for_the_token(open_page):
    page = open_page("teacher.html")
    expect(page.locator("#list")).to_be_hidden()
    for wrong in ("wrong", "falsch für sie"):
        page.get_by_role("textbox", name="Token").fill(wrong)
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("#said")).to_have_text("This is not the teacher's token.")
    page.get_by_role("textbox", name="Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("#list")).to_be_visible()
    expect(page.locator("#said")).to_have_text("")


def test_the_page_stays_signed_in_when_the_server_is_started_again(browser, tmp_path, pictures):
    with App(tmp_path, APP_TOKEN=TOKEN, APP_PORT=str(free_port())) as server:
        page = browser.new_page()
        page.goto(f"{server.address}teacher.html#token={TOKEN}")
        expect(page.locator("#classes option")).to_have_count(1)
        expect(page.locator("#counted")).to_have_text("Nothing is drawn yet.")
        server.stop()
        expect(page.locator("#said")).to_have_text("The server does not respond. Is it still running?")
        server.start()
        draw(server, pictures[7])
        expect(page.locator("#counted")).to_contain_text("Drawings: 1.")
        page.close()


# ---------------------------------------------------------------------------------------------------------------------
# The class
# ---------------------------------------------------------------------------------------------------------------------


def test_a_wrong_click_is_taken_back(teacher, server, pictures):
    draw(server, pictures[7], truth=1)
    expect(teacher.locator("#drawings")).to_contain_text("wrong, it was a 1")
    teacher.get_by_role("button", name="Take the digit").click()
    expect(teacher.locator("#drawings")).to_contain_text("not told")
    expect(teacher.locator("#said")).to_have_text("Done.")
    assert server.client.get("statistics").json()["known"] == 0


def test_a_drawing_is_hidden_shown_and_deleted(teacher, server, pictures):
    draw(server, pictures[7], truth=7)
    teacher.get_by_role("button", name="Hide").click()
    expect(teacher.locator("#counted")).to_have_text("Nothing is drawn yet.")
    teacher.locator("#which").select_option("hidden")
    expect(teacher.locator("#page")).to_have_text("Page 1 of 1, 1 in all")
    teacher.get_by_role("button", name=re.compile("^Show the drawing")).click()
    expect(teacher.locator("#counted")).to_contain_text("Right: 100.0 % (1 of 1)")
    teacher.locator("#which").select_option("all")
    teacher.once("dialog", lambda dialog: dialog.dismiss())
    teacher.get_by_role("button", name="Delete").click()
    expect(teacher.locator("#counted")).to_contain_text("Drawings: 1.")
    teacher.once("dialog", lambda dialog: dialog.accept())
    teacher.get_by_role("button", name="Delete").click()
    expect(teacher.locator("#counted")).to_have_text("Nothing is drawn yet.")
    expect(teacher.locator("#drawings li")).to_have_count(0)


def test_a_class_is_started_and_an_old_one_chosen_and_exported(teacher, server, pictures):
    id = draw(server, pictures[7], truth=7)
    teacher.get_by_label("New class").fill("7b <b>Tuesday</b>")
    teacher.get_by_role("button", name="Start").click()
    expect(teacher.locator("#said")).to_have_text("Class 2 has started.")
    expect(teacher.locator("#counted")).to_have_text("Nothing is drawn yet.")
    expect(teacher.locator("#classes option").first).to_contain_text("Current class, 2: 7b <b>Tuesday</b>")
    draw(server, pictures[2])
    teacher.locator("#classes").select_option("1")
    expect(teacher.locator("#counted")).to_contain_text("Drawings: 1. With a known digit: 1.")
    teacher.wait_for_timeout(4_000)  # it stays chosen when the page refreshes
    expect(teacher.locator("#counted")).to_contain_text("With a known digit: 1.")
    with teacher.expect_download() as download:
        teacher.get_by_role("button", name="Export").click()
    assert download.value.suggested_filename == "class-1.zip"
    with zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes())) as archive:
        assert sorted(archive.namelist()) == ["drawings.csv", f"images/{id}.png"]


def test_storing_is_switched_off(teacher, server, pictures):
    stores = teacher.get_by_label("Store the drawings")
    expect(stores).to_be_checked()
    stores.click()  # not `uncheck`: the page may refresh the box before it is looked at
    expect(teacher.locator("#storing")).to_contain_text("stored without drawings")
    draw(server, pictures[7])
    expect(teacher.locator("#drawings")).to_contain_text("not kept")
    expect(stores).not_to_be_checked()
    stores.click()
    expect(teacher.locator("#said")).to_have_text("Drawings are stored.")
    assert as_teacher(server, "GET", "classes")["keeps_images"] is True


def test_the_list_stands_still_under_the_pointer(teacher, server, pictures):
    draw(server, pictures[7])
    expect(teacher.locator("#drawings li")).to_have_count(1)
    teacher.locator("#drawings li").hover()
    draw(server, pictures[2])
    expect(teacher.locator("#counted")).to_contain_text("Drawings: 2.")
    teacher.wait_for_timeout(300)
    expect(teacher.locator("#drawings li")).to_have_count(1)
    teacher.mouse.move(5, 5)
    expect(teacher.locator("#drawings li")).to_have_count(2)


# ---------------------------------------------------------------------------------------------------------------------
# The projector, and the students' statistics
# ---------------------------------------------------------------------------------------------------------------------


def test_a_doubtful_drawing_shows_no_digit_to_the_class_either(open_page, server, sample):
    """Two digits side by side: what the student's page does not call a digit, the projector and the teacher's list do not."""
    id = draw(server, encode(np.hstack(list(sample[1].images[[4, 7]].numpy()))))
    (shown,) = server.client.get("wall").json()["drawings"]
    assert shown["doubt"] == "more than one digit"
    (listed,) = as_teacher(server, "GET", "classes/1/drawings")["drawings"]
    assert (listed["id"], listed["doubt"]) == (str(id), "more than one digit")
    projector = open_page("projector.html")
    expect(projector.locator("#wall li").first).to_have_text(re.compile(r"^\s*\?\s*in doubt\s*$"))
    server.client.post(f"drawings/{id}/truth", json={"digit": 8})
    expect(projector.locator("#wall li").first).to_contain_text("it was an 8")


def test_the_projector_shows_drawings_as_they_come(open_page, server, pictures):
    """Without a hand: a drawing, its truth, a second one, which does not move the first, and a new class."""
    page = open_page("projector.html", viewport={"width": 1920, "height": 1080})
    expect(page.locator("#counted")).to_have_text("Nothing is drawn yet.")
    id = draw(server, pictures[7])
    first = page.locator("#wall li").first
    expect(first).to_contain_text(re.compile(r"7\s*\d+ %"))
    assert first.locator("canvas").evaluate(
        "it => it.getContext('2d').getImageData(0, 0, 28, 28).data.some(x => x > 200)"
    )
    server.client.post(f"drawings/{id}/truth", json={"digit": 1})
    expect(first).to_contain_text("it was a 1")
    expect(page.locator("#map tbody tr").nth(1).locator("td").nth(7)).to_have_text("1")
    draw(server, pictures[2], truth=2)
    expect(page.locator("#wall li")).to_have_count(2)
    expect(first).to_contain_text("it was a 1")
    expect(page.locator("#score")).to_contain_text("50.0 % right: 1 of 2")
    as_teacher(server, "POST", "classes", json={"name": "7b"})
    expect(page.locator("#class")).to_have_text("7b")
    expect(page.locator("#wall li canvas")).to_have_count(0)


def test_a_newer_drawing_takes_the_place_of_the_oldest_alone(open_page, server, pictures):
    page = open_page("projector.html", viewport={"width": 1920, "height": 1080})
    for number in range(16):
        draw(server, pictures[number % 10])
    expect(page.locator("#wall li")).to_have_count(16)
    before = page.locator("#wall .digit").all_inner_texts()
    draw(server, pictures[5], truth=5)
    expect(page.locator("#wall")).to_contain_text("right")
    after = page.locator("#wall .digit").all_inner_texts()
    assert before[1:] == after[1:] and (before[0], after[0]) == ("0", "5")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1920, 1080), (1280, 720), (1024, 768)])
def test_the_projector_fits_its_screen_and_axe_finds_nothing(open_page, server, pictures, scheme, size):
    as_teacher(
        server, "POST", "classes", json={"name": "A class whose name is as long as the header is wide, " + 20 * "x"}
    )
    for number in range(17):
        draw(server, pictures[number % 10], truth=number % 10 if number % 5 else 1)
    page = open_page("projector.html", color_scheme=scheme, viewport={"width": size[0], "height": size[1]})
    expect(page.locator("#wall li")).to_have_count(16)
    width, height = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert width <= size[0] and height <= size[1]
    outside = """() => [...document.querySelectorAll("#wall li, #map, #address, #join img, #score")].filter(it => {
      const [inner, outer] = [it.getBoundingClientRect(), it.closest("section, header").getBoundingClientRect()];
      const fits = inner.bottom <= outer.bottom + 1 && inner.right <= outer.right + 1;
      return !fits || it.scrollWidth > it.clientWidth + 1;
    }).map(it => it.outerHTML)"""
    assert page.evaluate(outside) == []
    result = Axe().run(page)
    assert not result.response["violations"], result.generate_report()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(390, 844), (320, 568), (1280, 900)])
def test_the_teachers_page_fits_any_screen_and_axe_finds_nothing(open_page, server, pictures, scheme, size):
    draw(server, pictures[7], truth=7)
    draw(server, pictures[2], truth=3)
    hidden = draw(server, pictures[1])
    as_teacher(server, "PUT", f"drawings/{hidden}/visibility", json={"hidden": True})
    options = {"color_scheme": scheme, "viewport": {"width": size[0], "height": size[1]}}
    for path, shown in (("teacher.html", "#token"), (f"teacher.html#token={TOKEN}", "#drawings li >> nth=2")):
        page = open_page(path, **options)
        expect(page.locator(shown)).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        result = Axe().run(page)
        assert not result.response["violations"], result.generate_report()


def test_the_students_statistics_refresh_by_themselves_while_the_page_is_visible(open_page, server, pictures):
    page = open_page()
    expect(page.locator("#counted")).to_contain_text("Nothing is recorded yet")
    draw(server, pictures[7], truth=7)
    expect(page.locator("#numbers")).to_contain_text("100.0 % of 1")
    page.evaluate("Object.defineProperty(document, 'visibilityState', { value: 'hidden' })")
    page.wait_for_timeout(500)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(6_000)
    assert not asked


def test_a_key_of_the_wall_allows_nothing(server, pictures):
    draw(server, pictures[7], truth=7)
    time.sleep(1.1)
    (drawing,) = server.client.get("wall").json()["drawings"]
    as_id = uuid.UUID(drawing["key"] * 2)
    assert server.client.delete(f"drawings/{as_id}/truth").status_code == 404
