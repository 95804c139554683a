"""The page in a real browser: it loads without a complaint, and hovering, clicking and keys do what they say.

Needs Chromium and its driver (``apt-get install chromium chromium-driver``) and selenium.
"""

import dataclasses
import os
import shutil
import time

import numpy as np
import pytest

import nki
import nki.isa as nisa
import nki.language as nl
from nki import runtime
from nki_isa.diagnostics import NkiMemoryError
from nki_isa.machine.dtypes import DTYPES
from nki_isa.tensor.storage import MemoryRegion, Storage
from nki_sim.placement.place import Holder, Placement, Utilisation
from nki_sim.placement.utilisation import usage_of
from nki_sim.report import facts
from nki_sim.report.html import write_html
from nki_sim.report.profile import Profile
from nki_sim.report.trace import Traced

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER) and os.environ.get("NKI_SIM_BROWSER") != "required",
        reason="needs chromium and chromedriver on PATH",
    ),
]
selenium = pytest.importorskip("selenium", reason="needs selenium: pip install -e '.[dev]'")
webdriver = pytest.importorskip("selenium.webdriver")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1400,2400",
)  # fmt: skip


@nki.jit
def products(a):
    result = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    weights = nl.ndarray((128, 512), dtype=nl.bfloat16, buffer=nl.sbuf, name="model/weights")
    nisa.dma_copy(dst=weights, src=a)
    for k in range(3):
        product = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum, name=f"product{k}")
        nisa.nc_matmul(dst=product, stationary=weights[:, 0:128], moving=weights)
        tile = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf, name=f"tile{k}")
        nisa.tensor_copy(dst=tile, src=product)
        nisa.dma_copy(dst=result, src=tile)
    return result


@pytest.fixture(scope="module")
def launches():
    with runtime.session(timing=True, data=False) as session:
        products(np.ones((128, 512), DTYPES["bfloat16"].numpy))
        products(np.ones((128, 512), DTYPES["bfloat16"].numpy))
    return [launch.cores for launch in session.launches]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


class Page:
    """A page in the browser, and what a person does with it."""

    def __init__(self, driver, path):
        self.driver = driver
        began = time.monotonic()
        driver.get(f"file://{path}")
        while driver.execute_script("return document.body.dataset.ready") != "true":
            assert time.monotonic() - began < 60, driver.get_log("browser")
            time.sleep(0.02)
        self.seconds = time.monotonic() - began
        self.canvases = driver.find_elements("css selector", "canvas")

    def js(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def point(self, canvas, x, y):
        """Move the mouse to a value of each axis; returns the actions, to be extended."""
        self.js("arguments[0].scrollIntoView({block: 'center'})", canvas)
        script = "const v = arguments[0].picture.view; return [v.x(arguments[1]), v.y(arguments[2])]"
        return self.at(canvas, *self.js(script, canvas, x, y))

    def at(self, canvas, x, y):
        """Move the mouse to pixels of a canvas."""
        size = self.js("return [arguments[0].clientWidth, arguments[0].clientHeight]", canvas)
        actions = webdriver.ActionChains(self.driver, duration=0)
        return actions.move_to_element_with_offset(canvas, int(x - size[0] / 2), int(y - size[1] / 2))

    def tip(self):
        return self.js(
            "const t = document.getElementById('tip'); return t.style.display === 'block' ? t.innerText : ''"
        )

    def view(self, canvas):
        return self.js("const v = arguments[0].picture.view; return [v.from, v.to, v.low, v.high]", canvas)

    def settled(self):
        """Let the frame that was asked for be painted."""
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))"
        )

    def colours(self, canvas):
        """How many different colours are drawn."""
        self.settled()
        return self.js(
            "const c = arguments[0], image = c.getContext('2d').getImageData(0, 0, c.width, c.height);"
            "return new Set(new Uint32Array(image.data.buffer)).size",
            canvas,
        )

    def details(self, number):
        return self.driver.find_elements("css selector", ".details")[number]

    def complaints(self):
        return self.driver.get_log("browser")


@pytest.fixture
def page(browser, launches, tmp_path):
    path = tmp_path / "out.html"
    write_html(path, launches)
    return Page(browser, path)


def test_it_draws_a_timeline_and_two_memories_without_complaint(page):
    assert len(page.canvases) == 3
    assert all(page.colours(canvas) > 8 for canvas in page.canvases)
    assert "products(a bfloat16[128, 512])" in page.driver.find_element("css selector", "h1").text
    assert page.complaints() == []


def test_it_says_what_bounds_the_kernel_and_what_to_try(page, launches):
    profile = Profile.of(launches[0][0].timeline)
    text = page.driver.find_element("css selector", "main").text
    assert profile.bound in text and profile.trust.says in text and "Roofline: " in text
    rows = [
        [cell.text for cell in row.find_elements("css selector", "td")]
        for row in page.driver.find_elements("css selector", "tr")
    ]
    assert len(profile.advice()) >= 3
    for found in (*facts.advice(profile), *facts.dma_rows(profile), *facts.engines(profile)):
        assert list(found) in rows
    assert page.js("return document.documentElement.scrollWidth <= window.innerWidth")


def test_hovering_a_tensor_shows_its_line_and_size(page, launches):
    holder = next(h for h in launches[0][0].placement.sbuf.holders if h.storage.name == "model/weights")
    line = holder.storage.stack[-1].span.line
    page.point(page.canvases[1], holder.first + 0.5, holder.offset + 100).perform()
    shown = page.tip()
    assert "model/weights  bfloat16[128, 512]" in shown
    assert "1 KiB per partition at byte 0" in shown
    assert f"test_browser.py:{line}" in shown
    page.point(page.canvases[1], 8.5, 500).perform()  # nothing lives there
    assert "held" in page.tip() and "model" not in page.tip()
    assert page.complaints() == []


def test_clicking_a_tensor_shows_readers_and_writers(page, launches):
    holder = next(h for h in launches[0][0].placement.sbuf.holders if h.storage.name == "model/weights")
    page.point(page.canvases[1], holder.first + 0.5, holder.offset + 100).click().perform()
    details = page.details(1)
    (written,) = details.find_elements("css selector", ".writers tr:not(:first-child)")
    (read,) = details.find_elements("css selector", ".readers tr:not(:first-child)")
    assert [written.text.split()[k] for k in (0, 2, 3)] == ["dma_copy", "1", "0"]
    assert [read.text.split()[k] for k in (0, 2, 3)] == ["nc_matmul", "3", "1"]
    assert "called from" not in details.text
    page.canvases[1].send_keys(webdriver.Keys.ESCAPE)
    assert page.details(1).text == ""
    assert page.complaints() == []


def test_a_product_in_psum_shows_its_bank(page, launches):
    holder = next(h for h in launches[0][0].placement.psum.holders if h.storage.name == "product1")
    page.point(page.canvases[2], holder.first + 0.5, holder.offset + 100).perform()
    assert f"bank {holder.offset // 2048}" in page.tip()


def test_an_event_shows_its_operands_times_and_wait(page, launches):
    timeline = launches[0][0].timeline
    event = next(k for k, i in enumerate(timeline.instructions) if i.opcode == "tensor_copy")
    canvas = page.canvases[0]
    middle = (timeline.start[event] + timeline.busy[event]) / 2
    x = page.js("return arguments[0].picture.view.x(arguments[1])", canvas, middle)
    page.js("arguments[0].scrollIntoView({block: 'center'})", canvas)
    found = ""
    for k in range(12):  # its row is the one whose tooltip names it
        page.at(canvas, x, 6 + 22 * k + 11).perform()
        if "tensor_copy" in page.tip():
            found = page.tip()
            page.at(canvas, x, 6 + 22 * k + 11).click().perform()
            break
    assert "dst=" in found and "waited" in found and "test_browser.py" in found
    assert f"event {event}," in page.details(0).text
    assert page.complaints() == []


@pytest.mark.parametrize("number", [0, 1])
def test_keys_zoom_move_and_show_all(page, number):
    canvas = page.canvases[number]
    everything = page.view(canvas)
    canvas.send_keys("+")
    low, high, *_ = page.view(canvas)
    assert everything[0] < low < high < everything[1]
    canvas.send_keys(webdriver.Keys.ARROW_RIGHT)
    assert page.view(canvas)[0] > low
    canvas.send_keys("0")
    assert page.view(canvas) == everything
    if number == 1:
        canvas.send_keys("]")
        assert page.view(canvas)[3] - page.view(canvas)[2] < everything[3] - everything[2]
    assert page.complaints() == []


def test_dragging_moves_and_a_double_click_shows_all(page):
    canvas = page.canvases[1]
    everything = page.view(canvas)
    canvas.send_keys("++")
    before = page.view(canvas)
    page.point(canvas, before[0], 100).click_and_hold().move_by_offset(-80, 0).release().perform()
    after = page.view(canvas)
    assert after[0] > before[0]
    page.at(canvas, 300, 200).double_click().perform()
    assert page.view(canvas) == everything


def test_a_legend_brings_out_one_line_and_the_theme_changes(page):
    canvas = page.canvases[1]
    page.js("scrollTo(0, 0)")
    button = page.driver.find_elements("css selector", ".legend")[1].find_element("css selector", "button")
    before = page.js("return arguments[0].toDataURL()", canvas)
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    page.settled()
    assert page.js("return arguments[0].toDataURL()", canvas) != before
    back = page.js("return getComputedStyle(document.body).backgroundColor")
    page.driver.find_element("id", "theme").click()
    assert page.js("return getComputedStyle(document.body).backgroundColor") != back
    assert page.complaints() == []


def test_the_second_launch_is_a_button_away(page):
    buttons = page.driver.find_elements("css selector", "nav button")
    assert [b.get_attribute("aria-pressed") for b in buttons] == ["true", "false"]
    buttons[1].click()
    page.settled()
    assert page.driver.find_elements("css selector", "nav button")[1].get_attribute("aria-pressed") == "true"
    assert len(page.driver.find_elements("css selector", "canvas")) == 3
    assert page.complaints() == []


# --- a million


def many(launch, count):
    """The launch as if it had run `count` times over: as many events, and as many tensors."""
    timeline, program = launch.timeline, launch.program
    times = -(-count // len(timeline))
    columns = {}
    for name in ("lane", "start", "begin", "busy", "end", "waited", "handoff", "wait", "cause", "issuer"):
        columns[name] = np.tile(getattr(timeline, name), times)[:count]
    shift = np.repeat(np.arange(times) * timeline.duration, len(timeline))[:count]
    for name in ("start", "begin", "busy", "end"):
        columns[name] = columns[name] + shift
    columns["cause"] = np.full(count, -1)
    repeated = {name: (list(getattr(timeline, name)) * times)[:count] for name in ("instructions", "costs")}
    used = launch.placement.sbuf
    stack = used.holders[0].storage.stack
    places = 1 + np.arange(count) * 37 % 200
    holders = tuple(
        Holder(
            Storage(k, "tile", MemoryRegion.sbuf, (128, 256), DTYPES["float32"], stack=stack),
            0,
            at * 1024,
            k,
            k + 150,
        )
        for k, at in enumerate(places.tolist())
    )
    sbuf = Utilisation(used.region, used.capacity, 0, holders, usage_of(holders, count + 151))
    placement = Placement({}, sbuf, launch.placement.psum)
    return Traced(program, dataclasses.replace(timeline, **columns, **repeated), placement)


@pytest.mark.slow
def test_a_million_events_and_tensors_load_and_zoom(browser, launches, tmp_path, record_property):
    path = tmp_path / "million.html"
    began = time.monotonic()
    write_html(path, [[many(launches[0][0], 1_000_000)]])
    record_property("seconds to write", time.monotonic() - began)
    page = Page(browser, path)
    record_property("seconds to load", page.seconds)
    record_property("MiB", path.stat().st_size / 2**20)
    assert page.seconds < 10
    for canvas in page.canvases[:2]:
        milliseconds = page.js(
            "const p = arguments[0].picture, t = performance.now(); p.paint(); return performance.now() - t",
            canvas,
        )
        record_property("ms to paint", milliseconds)
        assert milliseconds < 500
        canvas.send_keys("+" * 8)
        page.settled()
        assert page.colours(canvas) > 4
    page.at(page.canvases[0], 600, 20).perform()
    assert page.tip()
    assert page.complaints() == []


@nki.jit
def thirty_tiles(x):
    tiles = []
    for _ in range(30):
        tile = nl.ndarray((128, 2048), dtype=nl.float32, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x)
        tiles.append(tile)
    for tile in tiles:
        nisa.dma_copy(dst=x, src=tile)
    return x


def test_what_does_not_fit_stands_above_a_line(browser, tmp_path):
    with runtime.session(data=False, spill=False) as session, pytest.raises(NkiMemoryError):
        thirty_tiles(np.zeros((128, 2048), np.float32))
    write_html(tmp_path / "full.html", [refused.placed().cores for refused in session.overfull])
    page = Page(browser, tmp_path / "full.html")
    assert page.complaints() == []
    (canvas,) = page.canvases
    assert page.view(canvas)[3] > 240 * 1024 > 208 * 1024
    page.point(canvas, 30, 220 * 1024).perform()
    assert "tile#" in page.tip()


@nki.jit
def two_halves(x):
    first = nl.ndarray((64, 32768), dtype=nl.float32, buffer=nl.sbuf)
    second = nl.ndarray((64, 32768), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(dst=first, value=1.0)
    nisa.tensor_scalar(dst=second, data=first, op0=nl.add, operand0=1.0)
    nisa.dma_copy(dst=x, src=second[:, 0:512])
    return x


def test_tensors_side_by_side_are_stripes_of_the_same_bytes(browser, tmp_path):
    with runtime.session(timing=True, data=False) as session:
        two_halves(np.zeros((64, 512), np.float32))
    write_html(tmp_path / "halves.html", [launch.cores for launch in session.launches])
    page = Page(browser, tmp_path / "halves.html")
    canvas = page.canvases[1]
    page.js("arguments[0].scrollIntoView({block: 'center'})", canvas)
    x, y = page.js("const v = arguments[0].picture.view; return [v.x(1.5), v.y(65536)]", canvas)
    tips = set()
    for row in range(0, 12, 2):
        page.at(canvas, x, y + row).perform()
        tips.add(page.tip())
    assert len(tips) == 2
    assert any("first" in tip and "partition 0" in tip for tip in tips)
    assert any("second" in tip and "partition 64" in tip for tip in tips)
    assert page.complaints() == []


HOSTILE = (
    "</script><script>document.title='ran'</script>",
    "<img src=x onerror=\"document.title='ran'\">",
    "<svg/onload=document.title='ran'>",
    "'\"><b>bold</b>",
    "javascript:document.title='ran'",
    "<!--<script>",
    "]]><script>document.title='ran'</script>",
    "/*DATA*/ /*SCRIPT*/ /*STYLE*/ /*POLICY*/",
    "&lt;b&gt; &amp; {{7*7}} ${7*7} `7`",
    "\u2028\u2029\u202e\0\ud800 \\u003cscript>",
    "<iframe src=https://example.com>",
    "__proto__",
)


def hostile_launches():
    """Launches in which every name that a kernel can choose is hostile."""
    with runtime.session(timing=True, data=False) as session:
        for name in HOSTILE:
            many_names(np.ones((128, 512), DTYPES["bfloat16"].numpy), name)
    for launch, name in zip(session.launches, HOSTILE, strict=True):
        for core in launch.cores:
            core.program.name = name
            for storage in core.program.storages:
                storage.name = f"{storage.name}/{name}/inner"
                storage.stack = hostile_stack(storage.stack, name)
            for instruction in core.program.walk():
                instruction.stack = hostile_stack(instruction.stack, name)
            object.__setattr__(core.timeline, "notes", (name,))
    return [launch.cores for launch in session.launches]


def hostile_stack(stack, name):
    return tuple(
        dataclasses.replace(
            frame, function=name, span=dataclasses.replace(frame.span, file=f"/tmp/{name}/{name}.py")
        )
        for frame in stack
    )


@nki.jit
def many_names(a, name):
    result = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm, name=f"result {name}")
    weights = nl.ndarray((128, 512), dtype=nl.bfloat16, buffer=nl.sbuf, name=name)
    nisa.dma_copy(dst=weights, src=a, name=name)
    product = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum, name=f"psum {name}")
    nisa.nc_matmul(dst=product, stationary=weights[:, 0:128], moving=weights, name=f"mm {name}")
    tile = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf, name=f"tile {name}")
    nisa.tensor_copy(dst=tile, src=product, name=f"copy {name}")
    nisa.dma_copy(dst=result, src=tile, name=f"store {name}")
    return result


def test_hostile_names_in_every_field_are_text(browser, tmp_path):
    write_html(tmp_path / "hostile.html", hostile_launches())
    page = Page(browser, tmp_path / "hostile.html")
    tags = "return [...new Set([...document.querySelectorAll('main *, nav *, #tip *')].map(e => e.tagName))]"
    buttons = page.driver.find_elements("css selector", "nav button")
    assert len(buttons) == len(HOSTILE)
    for number, button in enumerate(buttons):
        page.js("arguments[0].click()", button)
        page.settled()
        page.canvases = page.driver.find_elements("css selector", "canvas")
        for canvas in page.canvases:
            size = page.js("return [arguments[0].clientWidth, arguments[0].clientHeight]", canvas)
            page.js("arguments[0].scrollIntoView({block: 'center'})", canvas)
            for share in (0.3, 0.6):
                page.at(canvas, 170 + (size[0] - 190) * share, size[1] * 0.5).click().perform()
        text = page.js("return document.body.innerText.toWellFormed()")
        shown = HOSTILE[number].split()[0][:8]
        assert shown in text or number in (9,)
        assert page.js("return document.title.toWellFormed()").endswith("· nki-sim")
        assert not set(page.js(tags)) & {"SCRIPT", "IMG", "SVG", "svg", "IFRAME"}
    assert page.complaints() == []


def test_the_page_may_do_nothing_but_its_own_script(browser, tmp_path, launches):
    """The policy holds in the browser: markup from text, other scripts, and addresses outside are refused."""
    write_html(tmp_path / "out.html", launches)
    page = Page(browser, tmp_path / "out.html")
    tried = {
        "inline script": "const s = document.createElement('script'); s.append('document.title = 1'); "
        "document.body.append(s)",
        "markup": "document.body.insertAdjacentHTML('beforeend', '<b>x</b>')",
        "image": "new Image().src = 'https://example.com/x.png'",
        "address": "fetch('https://example.com').catch(() => 0)",
        "style": "document.body.setAttribute('style', 'color: red')",
    }
    for what, script in tried.items():
        page.driver.execute_async_script(
            "const done = arguments[0]; window.refused = null;"
            "addEventListener('securitypolicyviolation', e => window.refused = e.violatedDirective);"
            f"try {{ {script} }} catch (e) {{ window.refused = window.refused || e.name; }}"
            "setTimeout(done, 50);"
        )
        assert page.js("return window.refused"), what
    assert page.driver.title == "products · nki-sim"
    page.complaints()  # those provoked here
