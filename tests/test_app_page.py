"""The page in a real browser with a real server: drawing, telling, pictures, looking inside, screens, accessibility."""

import io
import os
import re
import time
import uuid
from itertools import pairwise

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from load import SIDE, page_picture
from PIL import Image
from playwright.sync_api import Page, expect
from servers import REPOSITORY, App, free_port, wait_until
from test_app import encode, redraw
from test_app_inside import without_maps

from app.digit import prepare
from app.network import Network

STROKES = {  # in percent of the canvas
    1: [[(50, 15), (50, 85)]],
    4: [[(30, 18), (28, 55), (75, 55)], [(62, 25), (60, 88)]],
    7: [[(25, 20), (75, 20), (45, 85)]],
    0: [[(50, 15), (30, 30), (25, 50), (30, 72), (50, 85), (70, 72), (75, 50), (70, 30), (50, 15)]],
}


@pytest.fixture
def server(tmp_path):
    with App(tmp_path) as running:
        yield running


@pytest.fixture
def hosted(tmp_path):
    """A server that also goes by the name of a proxy, whose own host it does not see."""
    with App(tmp_path, APP_HOSTS="proxy.test") as running:
        yield running


@pytest.fixture
def open_page(browser, server):
    """Open the page, and fail on console errors and on requests to other hosts, which are blocked."""
    contexts, complaints, elsewhere = [], [], []

    def route(request):
        if request.request.url.startswith((server.address, "blob:", "data:")):
            request.continue_()
        else:
            elsewhere.append(request.request.url)
            request.abort()

    def complain(message):
        if message.type == "error" and not re.search("status of (409|422)", message.text):  # Chromium's own notes
            complaints.append(message.text)

    def open(path="", **options) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        context.route("**/*", route)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", complain)
        page.goto(server.address + path)
        expect(page.locator("#about")).to_contain_text("7,750 parameters")
        return page

    yield open
    for context in contexts:
        context.unroute_all(behavior="ignoreErrors")
        context.close()
    assert not elsewhere
    assert not complaints


@pytest.fixture(scope="module")
def digits(sample):
    """One image of each digit, 0 to 9."""
    return sample[1].images[:10].numpy()


def draw(page, digit):
    draw_strokes(page, STROKES[digit])


def draw_strokes(page, strokes):
    """Draw with the mouse; points are in percent of the canvas."""
    paper = page.locator("#paper")
    paper.scroll_into_view_if_needed()
    box = paper.bounding_box()
    for stroke in strokes:
        points = [(box["x"] + x * box["width"] / 100, box["y"] + y * box["height"] / 100) for x, y in stroke]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point, steps=6)
        page.mouse.up()


def says(page, digit):
    expect(page.locator("#digit")).to_have_text(str(digit))
    expect(page.locator("#confidence")).to_contain_text(
        f"It is {'an' if digit == 8 else 'a'} {digit}, with a confidence of"
    )


def rests(page):
    """Wait until the answer about the last stroke is shown."""
    page.evaluate("async () => (await import(new URL('answer.js', document.baseURI))).arrived()")


def widths(page):
    """The percentages of the ten bars, once the last answer is shown and they stop moving."""
    rests(page)
    page.wait_for_timeout(300)
    return [float(re.sub("[^0-9.]", "", text)) for text in page.locator("#bars .percent").all_inner_texts()]


def looked_inside(page):
    """Wait until the maps of the last answer are shown: the image below the class map is the one that is answered."""
    rests(page)
    same = """() => {
      const image = (id) => [...document.getElementById(id).getContext("2d").getImageData(0, 0, 28, 28).data].join();
      return image("seen") === image("heat-image");
    }"""
    wait_until(lambda: page.locator("#heat td").count() and page.evaluate(same))


def wait_for(page, true):
    """Poll as `wait_until` does, while the browser's events come in."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        page.wait_for_timeout(20)


def seen(page):
    """The 28 x 28 image that the page shows."""
    script = "() => [...document.getElementById('seen').getContext('2d').getImageData(0, 0, 28, 28).data]"
    return page.evaluate(script)[::4]


# ---------------------------------------------------------------------------------------------------------------------
# Drawing
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("digit", STROKES)
def test_a_drawn_digit_is_recognized(open_page, digit):
    page = open_page()
    draw(page, digit)
    says(page, digit)
    bars = widths(page)
    assert max(bars) == bars[digit] and sum(bars) == pytest.approx(100, abs=1)
    width = page.locator("#bars .bar").nth(digit).evaluate("bar => bar.style.width")
    assert float(width.rstrip("%")) == pytest.approx(bars[digit], abs=0.06)
    image = seen(page)
    # the page sends 112 pixels: an edge of the stroke may share one with the paper, a twelfth of a cell of the image
    assert max(image) > 255 * 10 / 12 and sum(value > 0 for value in image) > 20


def test_the_bars_move_while_drawing(open_page):
    """The mouse button stays down: a vertical bar is a 1, and a bar on top turns it into a 7."""
    page = open_page()
    box = page.locator("#paper").bounding_box()

    def at(x, y):
        return box["x"] + x * box["width"] / 100, box["y"] + y * box["height"] / 100

    page.mouse.move(*at(45, 85))
    page.mouse.down()
    page.mouse.move(*at(62, 20), steps=8)
    says(page, 1)
    page.mouse.move(*at(22, 20), steps=8)
    says(page, 7)
    page.mouse.up()


def test_a_correction_changes_the_statistics(open_page, server):
    page = open_page()
    expect(page.locator("#counted")).to_contain_text("Nothing is recorded yet")
    draw(page, 7)
    says(page, 7)
    page.get_by_role("button", name="It was a 7").click()
    expect(page.locator("#told")).to_contain_text("Recorded. It was a 7")
    expect(page.locator("#numbers")).to_contain_text("100.0 % of 1")
    draw(page, 4)  # a new drawing on an empty canvas
    says(page, 4)
    page.get_by_role("button", name="It was a 9").click()
    expect(page.locator("#numbers")).to_contain_text("50.0 % of 2")
    expect(page.locator("#mistakes")).to_contain_text("a 9 mistaken for a 4")
    for truth, answer in ((9, 4), (7, 7)):
        expect(page.locator("#matrix tbody tr").nth(truth).locator("td").nth(answer)).to_have_text("1")
    expect(page.get_by_role("button", name="It was a 4")).to_be_disabled()  # only one correction per drawing
    page.reload()
    expect(page.locator("#numbers")).to_contain_text("50.0 % of 2")


def test_a_click_draws_a_dot(open_page):
    page = open_page()
    page.locator("#paper").click()
    expect(page.locator("#confidence")).to_have_text("Not a digit, it seems. Draw a single digit.")
    expect(page.locator("#digit")).to_have_text("?")
    assert sum(value > 100 for value in seen(page)) > 200  # scaled to the digit's box


def test_two_digits_are_not_answered_as_one(open_page):
    page = open_page()
    draw_strokes(page, [[(15, 30), (15, 70)], [(45, 30), (85, 30), (60, 75)]])  # a 1 and a 7
    expect(page.locator("#confidence")).to_have_text("More than one digit, it seems. Draw a single digit.")
    assert page.locator("#truths .said").count() == 0


def test_undo_removes_a_stroke_and_clear_removes_all(open_page):
    page = open_page()
    draw(page, 4)
    says(page, 4)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#digit")).not_to_have_text("4")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#confidence")).to_have_text("Draw something first.")
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    expect(page.get_by_role("button", name="It was a 4")).to_be_disabled()
    assert sum(seen(page)) == 0


def test_one_request_runs_at_a_time_and_stale_responses_are_ignored(open_page):
    """Responses are held back: new strokes wait, and the response for a cleared drawing is not shown."""
    page = open_page()
    held = []

    def hold(route):
        held.append(route)

    page.route("**/predict?*", hold)
    draw(page, 4)
    wait_for(page, lambda: held)
    page.get_by_role("button", name="Clear").click()
    page.wait_for_timeout(500)
    assert len(held) == 1  # for about twenty mouse moves
    with page.expect_response("**/predict?*"):
        held[0].continue_()
    page.wait_for_timeout(500)
    expect(page.locator("#confidence")).to_have_text("Draw something first.")
    assert len(held) == 1
    draw(page, 7)
    for number in (1, 2):  # the first stroke's, and one more for all that was drawn meanwhile
        wait_for(page, lambda number=number: len(held) > number)
        page.wait_for_timeout(200)
        assert len(held) == number + 1
        held[number].continue_()
    says(page, 7)
    page.wait_for_timeout(200)
    assert len(held) == 3


def test_long_drawing_stays_within_the_rate_limit(browser, tmp_path):
    """Four seconds of scribbling with the default limits: no request is refused."""
    with App(tmp_path, APP_REQUESTS_PER_SECOND="", APP_BURST="") as server:
        page = browser.new_page()
        codes = []
        page.on("response", lambda response: codes.append(response.status))
        page.goto(server.address)
        box = page.locator("#paper").bounding_box()
        page.mouse.move(box["x"] + 50, box["y"] + 50)
        page.mouse.down()
        end = time.monotonic() + 4
        while time.monotonic() < end or len(codes) <= 30:
            assert time.monotonic() < end + 120
            for x, y in ((200, 60), (60, 200), (200, 200), (60, 60)):
                page.mouse.move(box["x"] + x, box["y"] + y, steps=10)
        page.mouse.up()
        page.close()
    assert set(codes) == {200}


def test_the_benchmark_sends_what_the_page_sends(open_page, digits):
    """A picture of the same format, side and bands, without alpha, and of about as many bytes."""
    page = open_page()
    sent = []

    page.on("request", lambda asked: sent.append(asked.post_data_buffer) if "/predict?" in asked.url else None)
    draw(page, 7)
    rests(page)
    ours, theirs = page_picture(digits[7]), sent[-1]
    shapes = [
        (picture.format, picture.size, picture.mode) for picture in map(Image.open, map(io.BytesIO, (ours, theirs)))
    ]
    assert shapes == [("PNG", (SIDE, SIDE), "RGB")] * 2
    assert 0.5 < len(ours) / len(theirs) < 2


def test_what_was_refused_is_sent_again(browser, tmp_path):
    """With limits of a prediction in two seconds and a correction in ten, the page shows the last answer and records all."""
    limits = {"APP_REQUESTS_PER_SECOND": "0.5", "APP_BURST": "1"}
    with App(tmp_path, **limits, APP_CORRECTIONS_PER_SECOND="0.1", APP_CORRECTIONS_BURST="1") as server:
        page = browser.new_page()
        codes = {"predict": [], "truth": []}
        page.on("response", lambda answer: [codes[name].append(answer.status) for name in codes if name in answer.url])
        page.goto(server.address)
        for digit in (7, 1):
            draw(page, digit)
            expect(page.locator("#digit")).to_have_text(str(digit))
            if digit == 1:  # the budget is spent a moment before, however long the drawing took
                spent = {"url": f"{server.address}drawings/{uuid.uuid4()}/truth", "content": b"no correction"}
                wait_until(lambda spent=spent: httpx.post(**spent, timeout=60).status_code == 422)
            page.get_by_role("button", name=f"It was a {digit}").click()
            expect(page.locator("#told")).to_contain_text(f"Recorded. It was a {digit}")
        page.close()
    assert 429 in codes["predict"] and set(codes["predict"]) == {200, 429}
    assert codes["truth"][0] == codes["truth"][-1] == 200 and 429 in codes["truth"] and codes["truth"].count(200) == 2


def test_screen_readers_hear_only_the_final_prediction(open_page):
    page = open_page()
    expect(page.locator("#announced")).to_have_text("Draw something first.")  # said once the page is there
    page.evaluate(
        """() => {
          [window.heard, window.seen] = [[], []];
          new MutationObserver(() => heard.push(announced.textContent)).observe(announced, { childList: true });
          new MutationObserver(() => seen.push(performance.now())).observe(confidence, { childList: true });
        }"""
    )
    draw(page, 7)
    rests(page)
    page.wait_for_timeout(1_000)
    expect(page.locator("#announced")).to_contain_text("It is a 7, with a confidence of")
    times = page.evaluate("seen")
    pauses = sum(later - earlier > 550 for earlier, later in pairwise(times))  # none, unless the machine is busy
    assert len(times) > 1 and len(page.evaluate("heard")) <= 1 + pauses


def test_an_unreachable_database_is_reported(browser, tmp_path):
    with App(tmp_path, DATABASE_URL="postgresql://x@127.0.0.1:9/x") as server:
        page = browser.new_page()
        page.goto(server.address)
        expect(page.locator("#counted")).to_contain_text("The database is unreachable")
        draw(page, 7)
        says(page, 7)
        page.get_by_role("button", name="It was a 7").click()
        expect(page.locator("#told")).to_contain_text("will be recorded later")
        page.close()


def test_a_stopped_server_is_reported(browser, tmp_path):
    server = App(tmp_path, APP_PORT=str(free_port()))
    page = browser.new_page()
    page.goto(server.address)
    expect(page.locator("#about")).to_contain_text("7,750")
    server.stop()
    draw(page, 7)
    expect(page.locator("#confidence")).to_contain_text("The server does not respond")
    server.start()
    draw(page, 7)
    says(page, 7)
    page.close()
    server.stop()


@pytest.mark.parametrize("key", ["Escape", "Control+z"])
def test_the_stroke_that_is_drawn_can_be_cleared_and_undone(open_page, key):
    page = open_page()
    box = page.locator("#paper").bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 60, steps=5)
    page.keyboard.press(key)
    page.mouse.move(box["x"] + 120, box["y"] + 220, steps=5)  # draws nothing: its stroke is gone
    page.mouse.up()
    expect(page.locator("#confidence")).to_have_text("Draw something first.")
    assert page.evaluate("() => new Set(paper.getContext('2d').getImageData(0, 0, 280, 280).data).size") == 1
    draw(page, 7)
    says(page, 7)


def test_nothing_of_the_previous_drawing_is_marked_when_the_next_begins(open_page):
    page = open_page()
    page.locator("#inside > summary").click()
    draw(page, 7)
    says(page, 7)
    page.get_by_role("button", name="It was a 7").click()
    expect(page.locator("#told")).to_contain_text("Recorded")
    assert page.locator("#truths .told").inner_text() == "7"
    page.route("**/predict?*", lambda route: None)  # the next answer does not come
    page.locator(".maps canvas").first.hover()
    expect(page.locator("#seen-frame")).to_be_visible()
    page.locator("#paper").focus()
    page.keyboard.press(" ")  # begins the next drawing, while the pointer stays where it is
    assert page.locator("#digit").inner_text() == "\N{EN DASH}" and page.locator("#told").inner_text() == ""
    expect(page.locator("#how-to-tell")).to_have_text("Click the correct digit, or press its key.")
    for marked in ("#truths .said", "#truths .told", ".best", ".frame:visible", ".unit:visible", "#take-back:visible"):
        assert page.locator(marked).count() == 0, marked
    page.unroute_all(behavior="ignoreErrors")


def test_a_doubtful_answer_is_not_shown_as_a_digit(open_page):
    """The server's own answer, with the doubt that it has about other drawings."""
    page = open_page()
    doubts = iter(["not sure", "more than one digit", "not a digit"])
    doubt = next(doubts)

    def answer(route):
        response = route.fetch()
        route.fulfill(response=response, json=response.json() | {"doubt": doubt})

    page.route("**/predict?*", answer)
    draw(page, 7)
    expect(page.locator("#confidence")).to_contain_text("Not sure. Perhaps a 7")
    for doubt in doubts:
        draw(page, 7)
        expect(page.locator("#confidence")).to_contain_text(f"{doubt.capitalize()}, it seems")
        expect(page.locator("#digit")).to_have_text("?")
        assert page.locator("#truths .said").count() == 0
        expect(page.get_by_role("button", name="It was a 7")).to_be_enabled()
    page.unroute_all(behavior="wait")
    page.get_by_role("button", name="Clear").click()
    draw(page, 7)
    says(page, 7)
    assert page.locator(".doubtful").count() == 0


# ---------------------------------------------------------------------------------------------------------------------
# Telling
# ---------------------------------------------------------------------------------------------------------------------


def test_a_key_tells_the_digit_but_not_in_a_field(open_page, server):
    page = open_page()
    page.keyboard.press("7")  # nothing is drawn yet
    page.locator("#inside > summary").click()
    draw(page, 7)
    says(page, 7)
    expect(page.locator("#class")).to_be_visible()  # a hidden field takes no focus, and the key would tell the digit
    page.locator("#class").focus()
    page.keyboard.press("4")  # chooses the 4 in the list
    expect(page.locator("#heat-caption")).to_have_text("What each region adds to the logit of 4")
    page.locator("#paper").focus()
    page.keyboard.press("Control+4")
    assert "Recorded" not in page.locator("#told").inner_text()
    page.keyboard.press("9")
    expect(page.locator("#told")).to_contain_text("Recorded. It was a 9")
    assert server.client.get("statistics").json()["known"] == 1
    assert page.get_by_role("button", name="It was a 9").get_attribute("aria-keyshortcuts") == "9"


def test_a_wrong_click_is_taken_back(open_page, server):
    page = open_page()
    draw(page, 7)
    says(page, 7)
    expect(page.get_by_role("button", name="Take back")).to_be_hidden()
    page.get_by_role("button", name="It was a 1").click()
    expect(page.locator("#told")).to_contain_text("Recorded. It was a 1")
    page.get_by_role("button", name="Take back").click()
    expect(page.locator("#told")).to_have_text("Taken back. Which digit was it?")
    expect(page.get_by_role("button", name="Take back")).to_be_hidden()
    page.keyboard.press("7")
    expect(page.locator("#told")).to_contain_text("Recorded. It was a 7")
    expect(page.locator("#numbers")).to_contain_text("100.0 % of 1")
    assert server.client.get("statistics").json()["known"] == 1


def test_what_is_taken_back_keeps_the_drawing_in_sight_on_a_phone(open_page):
    page = open_page(viewport={"width": 390, "height": 844})
    draw(page, 4)
    says(page, 4)
    page.get_by_role("button", name="It was an 8").click()
    expect(page.locator("#told")).to_contain_text("Recorded. It was an 8.")
    page.evaluate("scrollTo(0, 0)")
    page.locator("#take-back").evaluate("button => button.click()")  # a click by Playwright would scroll by itself
    expect(page.locator("#told")).to_contain_text("Taken back")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "It was an 8"
    assert page.evaluate("scrollY") == 0


def test_what_cannot_be_taken_back_offers_that_no_more(open_page, server):
    """A drawing whose label is gone already, as when the teacher has deleted it."""
    page = open_page()
    draw(page, 7)
    says(page, 7)
    with page.expect_request("**/truth") as request:
        page.get_by_role("button", name="It was a 7").click()
    expect(page.get_by_role("button", name="Take back")).to_be_visible()
    assert server.client.delete(request.value.url).status_code == 200  # elsewhere
    page.get_by_role("button", name="Take back").click()
    expect(page.locator("#told")).to_contain_text("no correction that could be taken back")
    expect(page.get_by_role("button", name="Take back")).to_be_hidden()


@pytest.mark.parametrize("stored", ["true", "false"])
def test_the_page_says_what_is_stored(browser, tmp_path, stored):
    with App(tmp_path, APP_STORE_DRAWINGS=stored) as server:
        page = browser.new_page()
        page.goto(server.address)
        said = page.locator("#stored")
        expect(said).to_contain_text("whenever it changes")
        expect(said).to_contain_text("Everyone who can open this page sees the statistics")
        if stored == "true":
            expect(said).to_contain_text("even if you click nothing")
            expect(said).to_contain_text("APP_STORE_DRAWINGS=false")
        else:
            expect(said.get_by_text("The server does not store drawings.")).to_be_visible()
            expect(said.get_by_text("APP_STORE_DRAWINGS=false")).to_be_hidden()
        draw(page, 7)
        says(page, 7)
        page.get_by_role("button", name="It was a 1").click()
        expect(page.locator("#mistakes")).to_contain_text("a 1 mistaken for a 7")
        assert page.locator("#mistakes canvas").count() == (stored == "true")
        page.close()


# ---------------------------------------------------------------------------------------------------------------------
# Pictures
# ---------------------------------------------------------------------------------------------------------------------


def send_to(page, event, content, kind="image/png"):
    """Paste or drop a file on the page."""
    script = """([event, bytes, kind]) => {
      const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(bytes)], "digit", { type: kind }));
      const made = event === "paste"
        ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
        : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
      document.getElementById("paper").dispatchEvent(made);
    }"""
    page.evaluate(script, [event, list(content), kind])


@pytest.mark.parametrize("how", ["open", "paste", "drop"])
@pytest.mark.parametrize("ink", [0, 255], ids=["dark on light", "light on dark"])
def test_a_picture_is_opened_pasted_or_dropped(open_page, digits, how, ink):
    page = open_page()
    content = encode(redraw(digits[2], paper=255 - ink, ink=ink))
    if how == "open":
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Open picture").click()
        chooser.value.set_files({"name": "two.png", "mimeType": "image/png", "buffer": content})
    else:
        send_to(page, how, content)
    says(page, 2)
    page.get_by_role("button", name="It was a 2").click()
    expect(page.locator("#told")).to_contain_text("It was a 2")
    draw(page, 7)  # a stroke starts a new drawing and removes the picture
    says(page, 7)


def test_a_photo_of_twelve_megapixels_is_scaled_down_before_it_is_sent(open_page, digits):
    page = open_page()
    sent = []
    page.on("request", lambda request: "predict" in request.url and sent.append(len(request.post_data_buffer)))
    photo = encode(redraw(digits[2], side=1_800, height=3_000, width=4_000, top=500, left=900), "JPEG", quality=95)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Open picture").click()
    chooser.value.set_files({"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": photo})
    says(page, 2)
    assert sent[0] < 2**20


def test_a_file_that_is_not_a_picture_shows_an_error(open_page):
    page = open_page()
    send_to(page, "drop", b"not a picture", "text/plain")
    expect(page.locator("#confidence")).to_contain_text("cannot read this file as a picture")
    draw(page, 7)
    says(page, 7)


def test_a_picture_without_a_digit_shows_an_error(open_page, digits):
    page = open_page()
    send_to(page, "paste", encode(0 * digits[0]))
    expect(page.locator("#confidence")).to_contain_text("Draw something first")


# ---------------------------------------------------------------------------------------------------------------------
# Look inside, and compare
# ---------------------------------------------------------------------------------------------------------------------


def test_closed_it_asks_for_nothing(open_page):
    page = open_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2].partition("?")[0]))
    for panel in ("inside", "compare"):
        draw(page, 7)
        rests(page)
        assert "predict" in asked and panel not in asked
        page.locator(f"#{panel} > summary").click()
        expect(page.locator("#heat td" if panel == "inside" else "#other-bars .best").first).to_be_visible()
        if panel == "compare":
            expect(page.locator("#other-network")).to_contain_text("step1")
        assert panel in asked
        page.locator(f"#{panel} > summary").click()
        expect(page.locator(f"#{panel} h3").first).to_be_hidden()
        page.wait_for_timeout(300)
        asked.clear()
        page.get_by_role("button", name="Clear").click()
        draw(page, 4)
        says(page, 4)
        page.wait_for_timeout(300)
        assert "predict" in asked and panel not in asked
        page.get_by_role("button", name="Clear").click()


def test_look_inside_shows_the_maps_and_what_each_region_adds(open_page):
    page = open_page()
    page.locator("#inside > summary").click()
    expect(page.locator("#looked")).to_have_text("Draw something first.")
    draw(page, 7)
    looked_inside(page)
    expect(page.locator("#heat-caption")).to_have_text("What each region adds to the logit of 7")
    assert [block.locator("canvas").count() for block in page.locator(".maps").all()] == [8, 16, 34, 36, 38, 40]
    image = np.array(seen(page), dtype=np.uint8).reshape(28, 28)
    logits = Network(REPOSITORY / "app" / "step3.onnx").logits(image[None])[0]
    for digit in (7, 4):
        page.locator("#class").select_option(str(digit))
        numbers = [float(text.replace("\N{MINUS SIGN}", "-")) for text in page.locator("#heat td").all_inner_texts()]
        assert len(numbers) == 16
        sentence = page.locator("#sum").inner_text().replace("\N{MINUS SIGN}", "-")
        bias = float(re.search(r"the bias is ([+-][0-9]+[.][0-9]+)", sentence)[1])
        assert sum(numbers) + bias == pytest.approx(logits[digit], abs=0.005 * 17)
        assert sentence.endswith(f"= {logits[digit]:.2f}.")
        signs = [cell.get_attribute("class") for cell in page.locator("#heat td").all()]
        assert signs == ["against" if number < 0 else "for" for number in numbers]
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#looked")).to_have_text("Draw something first.")


def region(page, canvas, frame, cells):
    """The gray values below a frame, as the canvas has them, averaged to cells x cells values."""
    script = """([canvas, frame]) => {
      const [c, f] = [canvas, frame].map((id) => document.getElementById(id));
      const values = [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data].filter((_, i) => i % 4 === 0);
      const box = [f.style.left, f.style.top, f.style.width].map((text) => parseFloat(text) / 100);
      return { side: c.width, values, box };
    }"""
    found = page.evaluate(script, [canvas, frame])
    picture = Image.fromarray(np.array(found["values"], np.uint8).reshape(found["side"], found["side"]))
    left, top, side = (found["side"] * share for share in found["box"])
    return np.asarray(picture.resize((cells, cells), Image.Resampling.BOX, (left, top, left + side, top + side)), float)


@pytest.mark.parametrize(
    ("layer", "row", "column", "field"), [(0, 6, 8, 3), (1, 4, 5, 6), (2, 2, 4, 10), (3, 3, 3, 14)]
)
def test_the_receptive_field_under_the_pointer_is_framed(open_page, layer, row, column, field):
    """In the image that the network sees and in the drawing, where it shows the same part of the digit."""
    page = open_page()
    page.locator("#inside > summary").click()
    draw(page, 7)
    looked_inside(page)
    expect(page.locator("#heat-caption")).to_have_text("What each region adds to the logit of 7")
    maps = page.locator(".maps").nth(layer).locator("canvas").nth(5)
    maps.scroll_into_view_if_needed()
    box, side = maps.bounding_box(), maps.evaluate("canvas => canvas.width")
    position = {"x": (column + 0.5) * box["width"] / side, "y": (row + 0.5) * box["height"] / side}
    maps.hover(position=position)
    expect(page.locator("#unit")).to_contain_text(f"Layer {layer + 1}, map 6, row {row + 1}, column {column + 1}")
    jump = 1 if layer == 0 else 2
    style = page.locator("#seen-frame").evaluate("frame => [frame.style.left, frame.style.top, frame.style.width]")
    pixels = [float(length.rstrip("%")) * 28 / 100 for length in style]
    assert pixels == pytest.approx([column * jump, row * jump, field], abs=0.01)
    drawn, framed = 255 - region(page, "paper", "paper-frame", field), region(page, "seen", "seen-frame", field)
    assert framed.max() > 200 and np.abs(drawn - framed).mean() < 20
    page.mouse.move(5, 5)
    expect(page.locator("#seen-frame")).to_be_hidden()
    expect(page.locator("#paper-frame")).to_be_hidden()


def test_the_arrow_keys_move_over_the_maps(open_page):
    page = open_page()
    page.locator("#inside > summary").click()
    draw(page, 7)
    looked_inside(page)
    page.locator(".maps").nth(5).focus()
    for key in ["ArrowRight"] * 5 + ["ArrowDown"]:  # four values are in a row: the fourth step goes on to the next map
        page.keyboard.press(key)
    expect(page.locator("#unit")).to_contain_text("Layer 6, map 2, row 2, column 1")
    expect(page.locator("#paper-frame")).to_be_visible()


def test_a_network_without_maps_says_so_in_one_sentence(browser, tmp_path):
    with App(tmp_path / "data", APP_NETWORK=str(without_maps(tmp_path / "older.onnx"))) as server:
        page = browser.new_page()
        page.goto(server.address)
        page.locator("#inside > summary").click()
        draw(page, 7)
        says(page, 7)
        expect(page.locator("#looked")).to_contain_text("This network has no feature maps to show")
        expect(page.locator("#insides")).to_be_hidden()
        page.close()


def test_compare_shows_where_two_networks_disagree(open_page, sample):
    """A digit of MNIST on which Steps 1 and 3 disagree, and the drawn 7, on which they agree."""
    networks = [Network(REPOSITORY / "app" / f"step{step}.onnx") for step in (3, 1)]
    pictures = (encode(redraw(image.numpy())) for image in sample[0].images)
    guesses = ((picture, [network.predict(prepare(picture)).digit for network in networks]) for picture in pictures)
    picture, (one, other) = next((picture, digits) for picture, digits in guesses if digits[0] != digits[1])
    page = open_page()
    page.locator("#compare > summary").click()
    expect(page.locator("#this-network")).to_have_text("step3: 7,750 parameters, 99.58 %")
    expect(page.locator("#other-network")).to_have_text("step1: 6,754 parameters, 99.04 %")
    send_to(page, "paste", picture)
    expect(page.locator("#compared")).to_have_text(f"They disagree: step3 says {one}, step1 says {other}.")
    for bars, digit in (("#these-bars", one), ("#other-bars", other)):
        assert page.locator(f"{bars} .best").inner_text().startswith(str(digit))
        shares = [float(text.rstrip(" %")) for text in page.locator(f"{bars} .percent").all_inner_texts()]
        assert len(shares) == 10 and sum(shares) == pytest.approx(100, abs=1) and max(shares) == shares[digit]
    draw(page, 7)
    expect(page.locator("#compared")).to_contain_text("Both say 7")
    expect(page.locator("#differences figure")).to_have_count(1)
    expect(page.locator("#differences")).to_contain_text(f"step3: {one}, step1: {other}")


# ---------------------------------------------------------------------------------------------------------------------
# Keyboard, screens, accessibility, proxies
# ---------------------------------------------------------------------------------------------------------------------


def test_a_seven_is_drawn_and_recorded_with_the_keyboard(open_page):
    page = open_page()
    for _ in range(3):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "paper":
            break
    page.keyboard.press("ArrowLeft")
    for key, times in (("ArrowLeft", 6), ("ArrowUp", 8), (" ", 1), ("ArrowRight", 13), ("ArrowDown", 2)):
        for _ in range(times):
            page.keyboard.press(key)
    for _ in range(7):
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
    page.keyboard.press(" ")
    says(page, 7)
    for _ in range(15):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('aria-label')") == "It was a 7":
            break
    page.keyboard.press("Enter")
    expect(page.locator("#told")).to_contain_text("Recorded. It was a 7")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(390, 844), (320, 568), (1280, 900)])
def test_it_fits_any_screen_and_axe_finds_nothing(open_page, scheme, size):
    """Both before anything is drawn and with a prediction and statistics."""
    page = open_page(color_scheme=scheme, viewport={"width": size[0], "height": size[1]})
    for digit in (None, 7, 4):
        if digit is not None:
            draw(page, digit)
            says(page, digit)
        page.wait_for_timeout(200)  # wait until the bars' transition ends
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        result = Axe().run(page)
        assert not result.response["violations"], result.generate_report()
        if digit is not None:
            page.get_by_role("button", name="It was a 7").click()
            expect(page.locator("#told")).to_contain_text("Recorded")
    expect(page.locator("#mistakes")).to_contain_text("a 7 mistaken for a 4")


@pytest.mark.parametrize("size", [(390, 844), (390, 664), (320, 568)])
def test_the_digits_are_in_reach_on_a_phone(open_page, size):
    """Without scrolling, after scrolling, and not over the drawing."""
    page = open_page(has_touch=True, is_mobile=True, viewport={"width": size[0], "height": size[1]})
    assert page.locator("#paper").bounding_box()["width"] >= 160
    draw(page, 7)
    says(page, 7)
    for place in ("0", "document.body.scrollHeight / 2", "document.body.scrollHeight"):
        page.evaluate(f"scrollTo(0, {place})")
        for button in page.locator("#truths button").all():
            box = button.bounding_box()
            assert box["y"] >= 0 and box["y"] + box["height"] <= size[1] and box["x"] + box["width"] <= size[0]
            assert box["width"] >= 24 and box["height"] >= 44  # WCAG 2.5.8 asks for 24 pixels
    page.evaluate("scrollTo(0, 0)")
    undo, tell = page.locator("#undo").bounding_box(), page.locator("#tell").bounding_box()
    assert undo["y"] + undo["height"] <= tell["y"]


@pytest.mark.parametrize("colors", [{"color_scheme": "dark"}, {"forced_colors": "active"}], ids=["dark", "forced"])
def test_bars_and_black_strokes_show_in_any_colors(open_page, colors):
    page = open_page(**colors)
    draw(page, 7)
    says(page, 7)
    widths(page)  # waits
    bars = np.asarray(Image.open(io.BytesIO(page.locator("#bars .track").nth(7).screenshot())).convert("L"), float)
    empty = np.asarray(Image.open(io.BytesIO(page.locator("#bars .track").nth(3).screenshot())).convert("L"), float)
    middle = bars.shape[0] // 2
    assert abs(np.median(bars[middle]) - np.median(empty[middle])) > 60
    drawn = np.asarray(Image.open(io.BytesIO(page.locator("#paper").screenshot())).convert("L"), float)
    side = len(drawn)
    assert drawn[side * 20 // 100, side // 2] < 30 and drawn[side // 2, side // 5] > 225  # the bar of the 7; paper


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(390, 844), (1280, 900)])
def test_open_it_fits_any_screen_and_axe_finds_nothing(open_page, scheme, size):
    page = open_page(color_scheme=scheme, viewport={"width": size[0], "height": size[1]})
    for panel in ("inside", "compare"):
        page.locator(f"#{panel} > summary").click()
    draw(page, 7)
    says(page, 7)
    expect(page.locator("#sum")).to_contain_text("Logit")
    expect(page.locator("#compared")).to_contain_text("Both say 7")
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    result = Axe().run(page)
    assert not result.response["violations"], result.generate_report()


def test_a_finger_draws_and_does_not_scroll(open_page):
    page = open_page(has_touch=True, is_mobile=True, viewport={"width": 390, "height": 844})
    box = page.locator("#paper").bounding_box()
    session = page.context.new_cdp_session(page)
    before = page.evaluate("scrollY")

    def touch(kind, *point):
        points = (
            [{"x": box["x"] + point[0] * box["width"] / 100, "y": box["y"] + point[1] * box["height"] / 100}]
            if point
            else []
        )
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    (stroke,) = STROKES[7]
    touch("touchStart", *stroke[0])
    for (x1, y1), (x2, y2) in pairwise(stroke):
        for i in range(1, 7):
            touch("touchMove", x1 + (x2 - x1) * i / 6, y1 + (y2 - y1) * i / 6)
    touch("touchEnd")
    says(page, 7)
    assert page.evaluate("scrollY") == before


def test_the_page_works_behind_a_proxy_with_a_path_prefix(browser, hosted):
    """As in Colab: every request of the page starts with the prefix."""
    server = hosted
    context = browser.new_context()
    asked = []

    def forward(route):
        asked.append(route.request.url)
        inner = route.request.url.replace("http://proxy.test/p/8000/", server.address)
        answer = context.request.fetch(
            inner, method=route.request.method, data=route.request.post_data_buffer, headers=route.request.headers
        )
        route.fulfill(response=answer)

    context.route("**/*", forward)
    page = context.new_page()
    page.goto("http://proxy.test/p/8000/")
    draw(page, 7)
    says(page, 7)
    page.get_by_role("button", name="It was a 7").click()
    expect(page.locator("#told")).to_contain_text("Recorded")
    page.locator("#inside > summary").click()
    expect(page.locator("#sum")).to_contain_text("Logit")
    assert all(url.startswith(("http://proxy.test/p/8000/", "blob:")) for url in asked)
    page.unroute_all(behavior="wait")
    context.unroute_all(behavior="wait")
    context.close()


def test_the_page_has_no_inline_script_or_style(server):
    """So the Content-Security-Policy can forbid both."""
    page = server.client.get("").text
    assert "<style" not in page and "style=" not in page and " on" not in re.sub(r">[^<]*<", "><", page)
    assert all("src=" in tag for tag in re.findall("<script[^>]*>", page))
    policy = server.client.get("").headers["Content-Security-Policy"]
    assert "script-src 'self'" in policy and "unsafe" not in policy


def test_the_readme_picture_shows_this_page(open_page, digits, tmp_path):
    """`UPDATE_PICTURE=1 pytest tests/test_app_page.py -k readme` writes the picture."""
    page = open_page(viewport={"width": 1000, "height": 1500}, device_scale_factor=1)
    for digit, truth in ((1, 1), (0, 0), (4, 9), (7, None)):
        draw(page, digit)
        says(page, digit)
        if truth is not None:
            page.get_by_role("button", name=f"It was a {truth}").click()
            expect(page.locator("#told")).to_contain_text(f"It was a {truth}")
    page.locator("#inside > summary").click()
    looked_inside(page)
    page.locator(".maps").nth(1).focus()
    for key in ["ArrowRight"] * 7 + ["ArrowDown"] * 4:
        page.keyboard.press(key)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(300)
    picture = page.screenshot()
    kept = REPOSITORY / "app" / "page.png"
    if os.environ.get("UPDATE_PICTURE"):
        kept.write_bytes(picture)
    shown, fresh = (
        np.asarray(Image.open(io.BytesIO(content)).convert("L"), float) for content in (kept.read_bytes(), picture)
    )
    assert shown.shape == fresh.shape and np.abs(shown - fresh).mean() < 8  # of 255; fonts differ between machines
    assert "(page.png)" in (REPOSITORY / "app/README.md").read_text()
