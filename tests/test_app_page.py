"""The page in a real browser with a real server: drawing, corrections, pictures, phone, keyboard, accessibility."""

import io
import os
import re
import time
from itertools import pairwise

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import NO_BROWSER, launch
from load import page_picture
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright
from servers import REPOSITORY, App
from test_app import encode, redraw

STROKES = {  # in percent of the canvas
    1: [[(50, 15), (50, 85)]],
    4: [[(30, 18), (28, 55), (75, 55)], [(62, 25), (60, 88)]],
    7: [[(25, 20), (75, 20), (45, 85)]],
    0: [[(50, 15), (30, 30), (25, 50), (30, 72), (50, 85), (70, 72), (75, 50), (70, 30), (50, 15)]],
}


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser, _ = launch(playwright) or pytest.skip(NO_BROWSER)
        yield browser
        browser.close()


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
        if message.type == "error" and "status of 422" not in message.text:  # Chromium's note of a 422
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
        context.close()
    assert not elsewhere
    assert not complaints


@pytest.fixture(scope="module")
def digits(sample):
    """One image of each digit, 0 to 9."""
    return sample[1].images[:10].numpy()


def draw(page, digit):
    paper = page.locator("#paper")
    paper.scroll_into_view_if_needed()
    box = paper.bounding_box()
    for stroke in STROKES[digit]:
        points = [(box["x"] + x * box["width"] / 100, box["y"] + y * box["height"] / 100) for x, y in stroke]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point, steps=6)
        page.mouse.up()


def says(page, digit):
    expect(page.locator("#digit")).to_have_text(str(digit))
    expect(page.locator("#confidence")).to_contain_text(f"It is a {digit}, with a confidence of")


def widths(page):
    """The percentages of the ten bars, once they stop changing."""
    before = None
    while (texts := page.locator("#bars .percent").all_inner_texts()) != before:
        before = texts
        page.wait_for_timeout(300)
    return [float(re.sub("[^0-9.]", "", text)) for text in texts]


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
    width = page.locator(f"#bar-{digit} .bar").evaluate("bar => bar.style.width")
    assert float(width.rstrip("%")) == pytest.approx(bars[digit], abs=0.06)
    image = seen(page)
    # the page sends 140 pixels: an edge of the stroke may share one with the paper, a twelfth of a cell of the image
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
    assert page.locator("#matrix tbody tr").nth(9).locator("td").nth(4).inner_text() == "1"
    assert page.locator("#matrix tbody tr").nth(7).locator("td").nth(7).inner_text() == "1"
    expect(page.get_by_role("button", name="It was a 4")).to_be_disabled()  # only one correction per drawing
    page.reload()
    expect(page.locator("#numbers")).to_contain_text("50.0 % of 2")


def test_a_click_draws_a_dot(open_page):
    page = open_page()
    page.locator("#paper").click()
    expect(page.locator("#confidence")).to_contain_text("with a confidence of")
    assert sum(value > 100 for value in seen(page)) > 200  # scaled to the digit's box


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
    """Responses take half a second: new strokes wait, and the response for a cleared drawing is not shown."""
    page = open_page()
    flying = []
    most = []

    def slowly(route):
        flying.append(route)
        most.append(len(flying))
        page.wait_for_timeout(500)
        flying.remove(route)
        route.continue_()

    page.route("**/predict?*", slowly)
    draw(page, 4)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#confidence")).to_have_text("Draw something first.")
    page.wait_for_timeout(1_500)
    expect(page.locator("#confidence")).to_have_text("Draw something first.")
    assert max(most) == 1 and len(most) <= 3  # for about twenty mouse moves
    draw(page, 7)
    says(page, 7)
    assert max(most) == 1


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
        while time.monotonic() < end:
            for x, y in ((200, 60), (60, 200), (200, 200), (60, 60)):
                page.mouse.move(box["x"] + x, box["y"] + y, steps=10)
        page.mouse.up()
        page.close()
    assert set(codes) == {200} and len(codes) > 30


def test_the_benchmark_sends_what_the_page_sends(open_page, digits):
    """A picture of the same format, side and bands, without alpha, and of about as many bytes."""
    page = open_page()
    sent = []

    def keep(route):
        sent.append(route.request.post_data_buffer)
        route.continue_()

    page.route("**/predict?*", keep)
    draw(page, 7)
    says(page, 7)
    ours, theirs = page_picture(digits[7]), sent[-1]
    shapes = [
        (picture.format, picture.size, picture.mode) for picture in map(Image.open, map(io.BytesIO, (ours, theirs)))
    ]
    assert shapes == [("PNG", (140, 140), "RGB")] * 2
    assert 0.5 < len(ours) / len(theirs) < 2
    page.unroute_all(behavior="wait")


def test_screen_readers_hear_only_the_final_prediction(open_page):
    page = open_page()
    page.evaluate(
        """() => {
          window.heard = [];
          new MutationObserver(() => heard.push(announced.textContent)).observe(announced, { childList: true });
        }"""
    )
    draw(page, 7)
    expect(page.locator("#announced")).to_contain_text("It is a 7, with a confidence of")
    assert len(page.evaluate("heard")) == 1


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
    server = App(tmp_path)
    page = browser.new_page()
    page.goto(server.address)
    expect(page.locator("#about")).to_contain_text("7,750")
    server.stop()
    draw(page, 7)
    expect(page.locator("#confidence")).to_contain_text("The server does not respond")
    server.environment["APP_PORT"] = server.address.rstrip("/").rsplit(":", 1)[1]
    server.start()
    draw(page, 7)
    says(page, 7)
    page.close()
    server.stop()


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
    page = open_page(viewport={"width": 1000, "height": 880}, device_scale_factor=1)
    for digit, truth in ((1, 1), (0, 0), (4, 9), (7, None)):
        draw(page, digit)
        says(page, digit)
        if truth is not None:
            page.get_by_role("button", name=f"It was a {truth}").click()
            expect(page.locator("#told")).to_contain_text(f"It was a {truth}")
    page.mouse.move(5, 5)
    page.wait_for_timeout(300)
    page.evaluate("scrollTo(0, 0)")
    picture = page.screenshot()
    kept = REPOSITORY / "app" / "page.png"
    if os.environ.get("UPDATE_PICTURE"):
        kept.write_bytes(picture)
    shown, fresh = (
        np.asarray(Image.open(io.BytesIO(content)).convert("L"), float) for content in (kept.read_bytes(), picture)
    )
    assert shown.shape == fresh.shape and np.abs(shown - fresh).mean() < 8  # of 255; fonts differ between machines
    assert "(page.png)" in (REPOSITORY / "app/README.md").read_text()
