"""The page that turns surfaces, in a browser: what the pointer reads, mouse, keys, phone, print, no network."""

import base64
import re

import numpy as np
import pandas as pd
import pytest
import pyvista as pv
from helpers.project import ROOT
from PIL import Image

from shapeloss.plotting.surface_page import FILES, STEP_MM, TRUTH, surface_page, unpack

PAGE = ROOT / "figures" / "surfaces.html"
LARGE, SMALL = 20.0, 12.0  # mm: radii of two true spheres, the smaller one behind the larger one seen from behind
BEHIND = (0, 60, 0)


def ball(radius, centre, moved=(0, 0, 0)):
    """A sphere of 4 mm more than the truth's radius on one side, moved; its errors are exact."""
    mesh = pv.Sphere(radius=radius, center=np.add(centre, moved), theta_resolution=80, phi_resolution=80)
    mesh["error_mm"] = np.linalg.norm(mesh.points - np.asarray(centre, float), axis=1) - radius
    mesh["region"] = (mesh.points[:, 2] > 0).astype(int)
    return mesh


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Spheres: of the loss `dpce` moved by 3 mm to the right, of `ce` by 2 mm down."""
    folder = tmp_path_factory.mktemp("surfaces")
    Image.new("RGB", (400, 300), "red").save(folder / "picture.png")
    shifts = {TRUTH: (0, 0, 0), "dpce": (3, 0, 0), "ce": (0, 0, -2)}
    meshes = {
        key: {"femur": ball(LARGE, (0, 0, 0), shift), "patella": ball(SMALL, BEHIND, shift)}
        for key, shift in shifts.items()
    }
    regions = {"femur": ("low", "high"), "patella": ("low", "high")}
    lines = [
        {"case": case, "loss": loss, "structure": structure, "region": region, "mean_mm": 1.0, "p95_mm": 2.0,
         "max_mm": 3.0}
        for case in ("a", "b") for loss in ("dpce", "ce") for structure in regions for region in ("low", "high")
    ]  # fmt: skip
    text = surface_page(meshes, regions, pd.DataFrame(lines), "a", folder / "picture.png", "lateral", ["A note."])
    (folder / "page.html").write_text(text, encoding="utf-8")
    return (folder / "page.html").as_uri()


@pytest.fixture
def opened(page_at, address):
    def open_page(width=1280, where=address):
        page = page_at(where, width)
        page.wait_for_function("window.surfaces")
        return page

    return open_page


def drawn(page):
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def pointed(page, panel, x, y):
    """Put the mouse on a place of a canvas, in pixels from its corner; the words beside it in each picture."""
    box = page.locator("canvas").nth(panel).bounding_box()
    page.mouse.move(box["x"] + x, box["y"] + y)
    drawn(page)
    return [tip.inner_text() if tip.is_visible() else "" for tip in page.locator(".tip").all()]


def test_the_pointer_reads_the_distance_of_that_place(opened):
    """From behind, and from the right: of a moved sphere, the distance of each point is known exactly."""
    page = opened()
    for view in ("posterior", "lateral", "superior"):
        page.get_by_role("button", name=view, exact=True).click()
        page.get_by_label("patella", exact=True).set_checked(False)
        for wanted in ((6.0, -8.0, 8.0), (7.0, -9.0, 7.0), (8.0, -9.0, 7.0)):
            surface = np.array([3, 0, 0]) + LARGE * np.array(wanted) / np.linalg.norm(wanted)  # on that of dpce
            x, y = page.evaluate("point => surfaces.place(0, point)", surface.tolist())
            first, second = pointed(page, 0, x, y)
            expected = abs(np.linalg.norm(surface) - LARGE)
            words = re.fullmatch(r"femur, high\n([\d.]+) mm outside the truth", first)
            assert words, first
            # half a hundredth of the words, the step, and the chords of the mesh
            assert float(words[1]) == pytest.approx(expected, abs=0.005 + STEP_MM + 0.05)
            assert second.startswith("femur, ")
            assert second != first


def test_the_foremost_surface_is_read_and_hidden_structures_are_not(opened):
    page = opened()
    middle = page.evaluate("surfaces.place(0, [3, 0, 4])")
    assert pointed(page, 0, *middle)[0].startswith("femur, high")
    page.get_by_role("button", name="anterior", exact=True).click()
    middle = page.evaluate("surfaces.place(0, [3, 0, 4])")
    assert pointed(page, 0, *middle)[0].startswith("patella, high")
    page.get_by_label("patella", exact=True).uncheck()
    assert pointed(page, 0, *middle)[0].startswith("femur, high")
    page.get_by_label("femur", exact=True).uncheck()
    assert pointed(page, 0, *middle) == ["", ""]


def test_another_loss_is_shown_and_read(opened):
    page = opened()
    place = page.evaluate("surfaces.place(0, [0, -19, 5])")
    before = pointed(page, 0, *place)
    page.get_by_label("Surface in picture 1").select_option(label="Cross-entropy")
    after = pointed(page, 0, *place)
    assert after[0] == after[1] == before[1] != before[0]
    page.get_by_label("Surface in picture 1").select_option(label="Truth")
    assert pointed(page, 0, *place)[0].endswith("\ntruth")


def test_the_colour_is_that_of_the_scale(opened):
    """Blue inside the truth, red outside it, in what is drawn."""
    page = opened()
    page.get_by_label("signed distance", exact=True).check()
    page.get_by_role("button", name="posterior", exact=True).click()
    page.mouse.move(0, 0)
    drawn(page)
    shots = {}
    for name, side in (("outside", 1), ("inside", -1)):
        x, y = page.evaluate("point => surfaces.place(0, point)", [3 + side * 8, -15, 3])
        box = page.locator("canvas").first.bounding_box()
        clip = {"x": box["x"] + x - 1, "y": box["y"] + y - 1, "width": 2, "height": 2}
        picture = page.screenshot(clip=clip)
        shots[name] = page.evaluate(
            """async (text) => {
              const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${text}`)).blob());
              const context = new OffscreenCanvas(2, 2).getContext("2d");
              context.drawImage(image, 0, 0);
              return [...context.getImageData(0, 0, 1, 1).data];
            }""",
            base64.b64encode(picture).decode(),
        )
    assert shots["outside"][0] > shots["outside"][2] + 20
    assert shots["inside"][2] > shots["inside"][0] + 20


def test_turning_with_mouse_and_keys_zooming_and_starting_again(opened):
    page = opened()
    box = page.locator("canvas").first.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 130)
    page.mouse.up()
    assert page.evaluate("[surfaces.state.azimuth, surfaces.state.elevation]") == pytest.approx([-27, 13.5])
    page.locator("canvas").first.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("[surfaces.state.azimuth, surfaces.state.elevation]") == pytest.approx([-22, 8.5])
    page.keyboard.press("+")
    assert page.evaluate("surfaces.state.zoom") == pytest.approx(1.2)
    page.mouse.wheel(0, -100)
    page.wait_for_function("surfaces.state.zoom > 1.25")
    page.get_by_role("button", name="Start again").first.click()
    state = page.evaluate("[surfaces.state.azimuth, surfaces.state.elevation, surfaces.state.zoom]")
    assert state == [0, 0, 1]
    page.locator("canvas").first.focus()
    page.keyboard.press("Enter")  # reads the middle, for a screen reader
    assert re.search(r"posterior view\. .*: nothing here|posterior view\. .*mm", page.locator("#spoken").inner_text())


def test_a_region_is_pointed_out_and_the_table_changes(opened):
    page = opened()
    visible = page.locator("#tables table:visible")
    assert visible.count() == 1
    assert "mean of the absolute distance" in visible.inner_text().lower()
    page.get_by_label("maximum", exact=True).check()
    page.get_by_label("all 2 test volumes").check()
    assert page.locator("#tables table:visible").count() == 1
    assert page.locator("#tables table:visible td").all_inner_texts() == ["3.00 ± 0.00"] * 8
    button = page.locator("#tables table:visible").get_by_role("button", name="femur, low")
    button.click()
    drawn(page)
    assert button.get_attribute("aria-pressed") == "true"
    assert page.evaluate("surfaces.state.region") == "femur/low"


def test_without_webgl_the_picture_is_shown(browser, address):
    page = browser.new_page()
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page.goto(address)
    page.wait_for_timeout(300)
    assert page.locator("#picture img").is_visible()
    assert not page.locator("#stage").is_visible()
    assert page.locator("#tables table:visible").count() == 6
    page.close()


def test_the_picture_and_all_tables_are_printed(opened):
    page = opened()
    assert not page.locator("#picture img").is_visible()
    page.emulate_media(media="print")
    assert page.locator("#picture img").is_visible()
    assert not page.locator("#stage").is_visible()
    assert page.locator("#tables table:visible").count() == 6


@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_the_screen_and_every_control_has_a_name(opened, width):
    page = opened(width, PAGE.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    unnamed = page.evaluate("""[...document.querySelectorAll('input, select, button, canvas')].filter((element) =>
        !(element.labels?.length || element.getAttribute('aria-label') || element.textContent.trim()))
        .map((element) => element.id || element.outerHTML)""")
    assert unnamed == []
    assert page.locator("canvas:visible").count() == (2 if width == 1280 else 1)


def test_the_committed_page_reads_what_it_holds(opened):
    """Every loss: at vertices that are in view, the pointer's value is that which Python unpacks."""
    page = opened(where=PAGE.as_uri())
    assert PAGE.stat().st_size < 10e6
    text = PAGE.read_text(encoding="utf-8")
    assert all((FILES / name).read_text(encoding="utf-8") in text for name in ("viewer.js", "style.css")), "reproduce"
    data = page.evaluate("surfaces.data")
    rng = np.random.default_rng(0)
    for number, surface in enumerate(data["surfaces"]):
        page.evaluate("number => surfaces.set({ surfaces: [number, 0], azimuth: 40 * number, elevation: 10 })", number)
        drawn(page)
        seen = 0
        for packed, structure in zip(surface["meshes"], data["structures"], strict=True):
            points = np.array(data["origin"]) + unpack(packed["points"], 3) * data["step"]
            errors = unpack(packed["errors"], 1)[:, 0].view(np.int16) * data["step"]
            for vertex in rng.choice(len(points), 60, replace=False):
                hit = page.evaluate(
                    "([x, y, z]) => surfaces.read(0, ...surfaces.place(0, [x, y, z]))", points[vertex].tolist()
                )
                if hit and hit["structure"] == structure["name"] and vertex in hit["corners"]:
                    assert hit["mm"] == pytest.approx(errors[vertex], abs=0.02), (surface["key"], vertex)
                    seen += 1
        assert seen > 20, surface["key"]
    assert [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))] == []
