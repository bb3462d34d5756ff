"""The explorer, driven in a browser: every number equals the Python package; mouse, keyboard, phone, no network."""

import base64
import json
import re

import numpy as np
import pytest
import torch
from helpers.project import ROOT, load_script
from scipy.ndimage import shift
from torch.nn.functional import cross_entropy, one_hot

from shapeloss.distance import VARIANTS, boundary_distance, distance_penalty, penalty_options
from shapeloss.losses import LOSSES, build_loss
from shapeloss.losses.label_maps import signed_distance
from shapeloss.metrics import METRICS
from shapeloss.metrics.geometry import mask_geometry

PAGE = ROOT / "figures" / "explorer.html"
ADDRESS = PAGE.as_uri()
K = 4
SCORES = {
    "dice": "dice",
    "strict": "boundary_dice_in_plane",
    "relaxed": "boundary_dice_in_plane_1vx",
    "hd95": "hd95_voxel_mm",
}
READ = """values => {
  explorer.set(values);
  const { truth, labels, logits, losses, scores, phi, distance, grid } = explorer.read();
  const variants = values.losses.map(({ variant = "compartment" }) => [...phi(variant)]);
  return { truth: [...truth], labels: [...labels], logits: logits.map((map) => [...map]), scores, grid, variants,
    distance: [...distance], losses: losses.map((loss) => ({ ...loss, map: [...loss.map], pull: [...loss.pull] })) };
}"""


def settings():
    """Twenty, each with two losses: all losses, all variants of φ, all sliders, absent structures, paint."""
    rng = np.random.default_rng(0)
    variants = [*VARIANTS, *VARIANTS, *VARIANTS]
    others = [
        {"name": "ce"},
        {"name": "dice"},
        {"name": "boundary"},
        {"name": "focal", "gamma": 2.0},
        {"name": "pcol", "beta": 0.1},
        {"name": "focal", "gamma": 0.5},
        {"name": "pcol", "beta": 0.8},
    ]
    for n in range(20):
        losses = [{"name": "dpce", "variant": variants[n]}, others[n % len(others)]]
        change = {
            "right": float(rng.uniform(-8, 8)),
            "up": float(rng.uniform(-8, 8)),
            "grow": float(rng.uniform(-3, 4)),
            "blur": float(rng.uniform(0.3, 8)),
            "confidence": float(rng.uniform(0.3, 9)),
            "island": float(rng.choice([0, 3, 7])),
            "islandLabel": int(rng.integers(1, 4)),
            "missed": int(rng.integers(0, 4)),
            "rowMm": float(rng.choice([0.8, 0.4, 2.0, 3.1])),
            "columnMm": float(rng.choice([0.8, 1.3, 0.5])),
        }
        if n == 0:
            change = {}  # a perfect prediction
        yield pytest.param({"losses": losses, **change}, id=f"{n}-{others[n % len(others)]['name']}")


def python_loss(choice, spacing):
    options = {key: choice[key] for key in ("variant", "gamma", "beta") if key in choice}
    if choice["name"] == "boundary":
        options["region"] = None
        options["schedule"] = "constant"
    return build_loss(choice["name"], num_classes=K, spacing=spacing, **options)


def python_map(choice, logits, truth, spacing):
    """The loss of each voxel, whose mean is the loss, from the equations."""
    ce, p = cross_entropy(logits, truth, reduction="none")[0], logits.softmax(1)[0]
    g = one_hot(truth[0], K).movedim(-1, 0)
    match choice["name"]:
        case "ce":
            return ce
        case "dpce":
            options = penalty_options(choice["variant"])
            return ce * (1 + torch.from_numpy(distance_penalty(truth[0].numpy(), spacing, **vars(options))))
        case "focal":
            return (1 - torch.exp(-ce)) ** choice["gamma"] * ce
        case "pcol":
            return ce + choice["beta"] * (p * p.log()).sum(0)
        case "dice":
            sizes = (p**2 + g).sum((1, 2), keepdim=True) + 1
            return ((p - g) ** 2 / sizes)[1:].mean(0) * ce.numel()
        case "boundary":
            return (p * torch.from_numpy(signed_distance(truth[0].numpy(), K, spacing)))[1:].mean(0)


@pytest.fixture(scope="module")
def explorer(browser):
    page = browser.new_page()
    page.goto(ADDRESS)
    yield page
    page.close()


SETTINGS = list(settings())


@pytest.mark.parametrize("values", SETTINGS)
def test_every_number_is_that_of_the_package(explorer, values):
    compare_with_the_package(explorer, values)


def compare_with_the_package(explorer, values):
    read = explorer.evaluate(READ, values)
    spacing = tuple(read["grid"]["spacing"])
    shape = (read["grid"]["rows"], read["grid"]["columns"])
    truth, labels = (np.array(read[name], dtype=np.int64).reshape(shape) for name in ("truth", "labels"))
    distance = boundary_distance(truth, spacing)
    np.testing.assert_allclose(np.reshape(read["distance"], shape), distance, rtol=1e-5)

    # logits: c tanh(s / b) of the predicted label map, −c for a class that is absent
    inside = -signed_distance(labels, K, spacing).astype(np.float64)
    blur, confidence = values.get("blur", 2), values.get("confidence", 4)
    expected = confidence * np.tanh(inside / blur)
    expected[[k for k in range(K) if not (labels == k).any()]] = -confidence
    logits = np.reshape(read["logits"], (K, *shape))
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert (logits.argmax(0) == labels).all()

    for choice, loss, phi in zip(values["losses"], read["losses"], read["variants"], strict=True):
        z = torch.tensor(logits, dtype=torch.float64)[None].requires_grad_()
        target = torch.from_numpy(truth)[None]
        value = python_loss(choice, spacing)(z, target)
        value.backward()
        pull = (z.grad[0] * truth.size).norm(dim=0).numpy()
        assert loss["value"] == pytest.approx(value.item(), abs=1e-4, rel=1e-4)
        np.testing.assert_allclose(np.reshape(loss["pull"], shape), pull, atol=1e-4, rtol=1e-4)
        expected_map = python_map(choice, z.detach(), target, spacing).numpy()
        np.testing.assert_allclose(np.reshape(loss["map"], shape), expected_map, atol=1e-4, rtol=1e-4)
        assert loss["share"] == pytest.approx(pull[distance <= 2].sum() / pull.sum(), abs=1e-4)
        if choice["name"] == "dpce":
            options = vars(penalty_options(choice["variant"]))
            np.testing.assert_allclose(
                np.reshape(phi, shape), distance_penalty(truth, spacing, **options), atol=1e-4, rtol=1e-4
            )

    for k, scores in enumerate(read["scores"], start=1):
        geometry = mask_geometry((truth == k)[None], (labels == k)[None], (3.0, *spacing))
        for key, name in SCORES.items():
            assert scores[key] == pytest.approx(METRICS[name].function(geometry), abs=1e-4), (k, name)


def test_what_the_sliders_do_to_the_labels(explorer):
    """Shifting, growing, missing and islands against NumPy, away from the edge of the slice."""
    truth = np.array(explorer.evaluate("[...explorer.read().truth]"))
    shape = (176, 160)
    truth = truth.reshape(shape)

    def read(values):
        return np.reshape(explorer.evaluate(READ, {"losses": [{"name": "ce"}] * 2, **values})["labels"], shape)

    assert (read({}) == truth).all()
    moved = shift(truth, (-5, 3), order=0, mode="nearest")
    assert (read({"up": 4.0, "right": 2.4}) == moved).all()
    grown, signed = read({"grow": 1.5}), signed_distance(truth, K, (0.8, 0.8))[1:]
    assert ((grown > 0) == (signed.min(0) < 1.5)).all()
    assert (grown[grown > 0] == 1 + signed.argmin(0)[grown > 0]).all()
    assert ((read({"grow": -1.5}) > 0) == (signed.min(0) < -1.5)).all()
    assert (read({"missed": 3}) == np.where(truth == 3, 0, truth)).all()
    island = read({"island": 5.0, "islandLabel": 2}) != truth
    assert island.sum() == pytest.approx(np.pi * (5 / 0.8) ** 2, rel=0.05)


def test_a_wrong_gradient_is_noticed(browser):
    """The comparison can fail: a factor of φ left out of the page's loss turns it red."""
    text = PAGE.read_text(encoding="utf-8")
    broken = text.replace("[(1 + phi[i]) * ce, 1 + phi[i]]", "[(1 + phi[i]) * ce, 1]")
    assert broken != text
    page = browser.new_page()
    page.set_content(broken)
    with pytest.raises(AssertionError):
        compare_with_the_package(page, SETTINGS[1].values[0])
    page.close()


def test_the_committed_page_is_the_one_that_is_built():
    build = load_script("explorer/build.py")
    committed, built = PAGE.read_text(encoding="utf-8"), build.build_page()
    data = re.compile(r'<script id="data" type="application/json">(.*?)</script>', re.S)
    assert data.sub("", committed) == data.sub("", built), "make explorer"
    old, new = (json.loads(data.search(text).group(1)) for text in (committed, built))
    # grey values may differ by one: exp and log are not the same on every processor
    grey = [np.frombuffer(base64.b64decode(values.pop("image")), np.uint8).astype(int) for values in (old, new)]
    assert np.abs(grey[0] - grey[1]).max() <= 1
    assert old == new, "make explorer"
    assert PAGE.stat().st_size < 2e6


def test_it_needs_no_network(page_at):
    page = page_at(ADDRESS)
    page.evaluate("explorer.set({ losses: [{ name: 'dice' }, { name: 'pcol' }] })")
    assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []


def test_a_slider_and_a_choice_change_the_numbers(page_at):
    page = page_at(ADDRESS)
    before = page.locator("#value-0").inner_text()
    page.get_by_label("Shift to the right").focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("explorer.read().state.right > 1.9")
    page.wait_for_timeout(100)
    assert page.locator("#value-0").inner_text() != before
    assert page.locator("#right-value").inner_text() == "2.0 mm"
    page.get_by_label("Loss A", exact=True).select_option("focal")
    page.wait_for_function("explorer.read().state.losses[0].name === 'focal'")
    page.get_by_label("γ").fill("0")  # focal loss with γ = 0 is cross-entropy
    page.wait_for_function("explorer.read().state.losses[0].gamma === 0")
    page.get_by_label("Loss B", exact=True).select_option("ce")
    page.wait_for_timeout(150)
    a, b = page.evaluate("explorer.read().losses.map(({ value }) => value)")
    assert a == pytest.approx(b, abs=1e-12)
    page.wait_for_function(
        "document.getElementById('spoken').textContent.includes('Focal loss')"
    )  # for a screen reader


def test_painting_by_mouse_and_by_keyboard(page_at):
    page = page_at(ADDRESS)
    count = "explorer.read().labels.filter((k) => k === 2).length"
    before = page.evaluate(count)
    page.get_by_label("tibia", exact=True).check()
    page.locator("#prediction").scroll_into_view_if_needed()
    box = page.locator("#prediction").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.up()
    page.wait_for_function(f"{count} > {before + 20}")
    page.get_by_text("Remove the paint").click()
    page.wait_for_function(f"{count} === {before}")
    page.locator("#prediction").focus()
    for key in ("ArrowUp", "ArrowLeft", " "):
        page.keyboard.press(key)
    page.wait_for_function("explorer.read().state.painted.some((k) => k === 2)")
    assert "mm from the boundary" in page.locator("#pointer").inner_text()


def test_the_questions_set_the_page_up(page_at):
    page = page_at(ADDRESS)
    buttons = page.get_by_role("button", name="Set up")
    assert buttons.count() == 6
    seen = set()
    for n in range(6):
        buttons.nth(n).click()
        page.wait_for_timeout(120)
        seen.add(page.locator("#value-0").inner_text() + page.locator("#value-1").inner_text())
        page.locator("summary").nth(n).click()
        assert len(page.locator("#questions details").nth(n).inner_text()) > 100
    assert len(seen) == 6


ANSWERS = {
    # what the answers say, in numbers: [question, JavaScript that must be true]
    "patella glows": (0, "Math.max(...at(b.pull, 3)) > 2 * Math.max(...at(b.pull, 1))"),
    "a tenth for both": (1, "Math.abs(a.share - 0.1) < 0.02 && b.share - a.share > 0.01 && b.share - a.share < 0.02"),
    "many times": (2, "b.value / a.value > 10 && Math.abs(b.share - a.share) < 0.01"),
    "next to zero": (
        3,
        "Math.max(...at(a.pull, 3)) < 1e-3 && Math.abs(Math.min(...at(b.pull, 3)) - Math.SQRT2) < 1e-3",
    ),
    "phi on the island": (4, "Math.abs(r.phi('compartment')[island] - 0.9) < 0.03 && r.scores[0].hd95 > 20"),
    "below zero": (5, "a.value < 0 && b.share > 0.7 && a.share < 0.2"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_answers_are_true(page_at, name):
    number, claim = ANSWERS[name]
    page = page_at(ADDRESS)
    page.get_by_role("button", name="Set up").nth(number).click()
    page.wait_for_timeout(150)
    assert page.evaluate(f"""() => {{
        const r = explorer.read(), [a, b] = r.losses, island = 30 * 160 + 24;
        const at = (map, k) => [...map].filter((_, i) => r.truth[i] === k);
        return {claim};
    }}""")


@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_the_screen_and_every_control_has_a_name(page_at, width):
    page = page_at(ADDRESS, width)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    unnamed = page.evaluate("""[...document.querySelectorAll('input, select, button, canvas')].filter((element) =>
        !(element.labels?.length || element.getAttribute('aria-label') || element.textContent.trim()))
        .map((element) => element.id || element.outerHTML)""")
    assert unnamed == []
    assert page.locator("canvas").count() == 5
    for canvas in page.locator("canvas").all():
        assert canvas.bounding_box()["width"] > 100
    if width == 390:  # the sliders lie in a sheet at the bottom of the screen
        box = page.locator("#controls").bounding_box()
        assert box["y"] < 844 <= box["y"] + box["height"] + 1


def test_every_loss_of_the_page_is_one_of_the_package(explorer):
    names = explorer.evaluate("Object.keys(Core.LOSSES)")
    assert set(names) <= set(LOSSES)
    assert explorer.evaluate("Object.keys(Core.VARIANTS)") == list(VARIANTS)
