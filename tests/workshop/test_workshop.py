"""The workshop: every notebook runs, its checks are red without the solutions, for the right reason, and green with."""

import os
import re

import nbformat
import numpy as np
import pytest
import torch
from helpers.project import ROOT
from nbclient import NotebookClient
from scipy import ndimage

from shapeloss.losses import LOSSES, build_loss
from shapeloss.workshop import (
    alter_labels,
    check,
    find_faults,
    label_logits,
    measure_pull,
    practice_knee,
    register,
    train_beside,
)
from shapeloss.workshop.checks import EXERCISES
from shapeloss.workshop.own_loss import REGISTERED
from shapeloss.workshop.predictions import SPACING

FOLDER = ROOT / "notebooks" / "workshop"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
RED = {
    # what the check says of the cell as the student finds it
    "3.1": "is plain cross-entropy, whatever φ is",
    "3.2": "NaN: the map of an empty mask is divided by its maximum, which is 0",
    "3.3": "distances to nothing",
    "3.4": r"print np.unique\(~mask\)",
    "3.5": "58 of 145 voxels inside have a positive sign",
    "3.6": "the result has dtype int32",
    "3.7": "a reward",
    "3.8": "class 2 is absent, and the largest gradient of all voxels is",
    "3.9": "over what is the entropy averaged",
    "3.10": "are taken of logits, and some are negative",
    "3.11": "an empty prediction scores 0 mm, the best value of all",
    "3.12": "which side is positive in each",
    "4.2": "it must return one number",
    "6.3": "not answered yet: return a word for every interval",
}
"""All others: not answered yet."""


def solutions(name):
    """Number of the exercise → the cell that solves it."""
    path = FOLDER / "solutions" / f"{name}.py"
    if not path.exists():
        return {}
    parts = re.split(r"^# %% (\S+)\n", path.read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], (text.strip() for text in parts[2::2]), strict=True))


def executed(name, folder, solved):
    """The results of the checks, number → the line that a check shows, of a notebook that ran in a folder."""
    book = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    if solved:
        given = solutions(name)
        for cell in book.cells:
            if "exercise" in cell.metadata:
                cell.source = given.pop(cell.metadata["exercise"])
        assert not given, f"solutions without an exercise: {list(given)}"
    for cell in book.cells:  # a test needs no good training
        cell.source = cell.source.replace("train_beside(losses,", "train_beside(losses, steps=20,")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SHAPELOSS_STATIC": "1"}
    client = NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute(env=environment)
    found = {}
    for cell in book.cells:
        for output in cell.get("outputs", []):
            text = output.get("data", {}).get("text/plain", "")
            if match := re.match(r"([✓✗]) (\d\.\d+): (.*)", text, re.S):
                found[match[2]] = (match[1] == "✓", match[3])
                assert 'role="status"' in output["data"]["text/html"]
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output
    return found


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_without_the_solutions_every_check_is_red_for_the_right_reason(name, tmp_path):
    found = executed(name, tmp_path, solved=False)
    assert list(found) == list(solutions(name))
    for number, (right, message) in found.items():
        assert not right, (number, message)
        assert re.search(RED.get(number, "not answered yet: "), message), (number, message)
    assert not list(tmp_path.iterdir()), "a notebook writes nothing beside itself"


@pytest.mark.parametrize("name", [name for name in NOTEBOOKS if solutions(name)])
def test_with_the_solutions_every_check_is_green(name, tmp_path):
    found = executed(name, tmp_path, solved=True)
    assert list(found) == list(solutions(name))
    assert {number: message for number, (right, message) in found.items() if not right} == {}


def test_every_exercise_has_a_solution_three_hints_and_a_cell():
    check("1.1")
    numbers = [number for name in NOTEBOOKS for number in solutions(name)]
    assert sorted(numbers) == sorted(EXERCISES)
    for name in NOTEBOOKS:
        cells = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells
        for at, cell in enumerate(cells):
            if "exercise" not in cell.metadata:
                continue
            before = "\n".join(cell.source for cell in cells[max(0, at - 3) : at] if cell.cell_type == "markdown")
            text = before[before.rindex("## ") :]
            assert [f"<summary>Hint {n}</summary>" in text for n in (1, 2, 3)] == [True] * 3, cell.metadata


def test_notebooks_are_stored_without_outputs():
    for name in NOTEBOOKS:
        for cell in nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells:
            assert not cell.get("outputs"), name
            assert cell.get("execution_count") is None, name


def test_students_code_that_stops_is_told_kindly():
    def broken(p):
        return 1 / 0

    result = check("1.1", broken)
    assert (result.right, result.message) == (False, "your code stopped with ZeroDivisionError: division by zero")
    assert "&lt;b&gt;" in check("1.3", "<b>")._repr_html_()
    with pytest.raises(ValueError, match=r"no exercise '9\.9'"):
        check("9.9", 1)


WRONG = {
    # number: (a wrong answer that students give, what the check says)
    "1.1": (lambda p: 1 - p, "length of the vector over both classes"),
    "1.2": (0.5, "not its largest pull"),
    "1.3": ("exponential", "another variant has more"),
    "1.4": ({"dice", "focal"}, "focal: the mean pull on the patella is 1.414"),
    "2.1": (lambda labels, spacing: _binary(labels, spacing), "structures that touch are separate"),
    "2.2": (lambda labels, spacing: _phi(labels, spacing), "NaN or infinite"),
    "2.3": (10.0, "a shorter range gathers more"),
    "2.4": (lambda labels, spacing, box: _penalty(labels[box], spacing), "its maximum is that of the patch"),
    "5.1": ((lambda mask: (mask, mask))(practice_knee().labels == 1), "both should lie between 0.90 and 0.97"),
    "5.2": (lambda a, b: 2 * (a & b).sum() / (a.sum() + b.sum()), "take their boundaries first"),
    "5.3": (1, "with 1 voxels HD95 is 0.0 mm"),
    "5.4": (({"a"}, {"a": 3.0, "b": float("nan")}), "a: 3.0"),
    "6.1": (lambda a, b: (a - b).mean() / ((a - b).std() / np.sqrt(len(a))), "divides by n − 1"),
    "6.2": ((0.5, 0.5), "the paired p is not 0.5"),
    "6.3": (lambda low, high, margin: "better" if low > 0 else "worse" if high < 0 else "equivalent", "equivalent"),
    "6.4": ((0.01, [0.49, 0.50, 0.51]), "the SD of one training"),
    "6.5": (lambda ma, sa, mb, sb, n, r: 0.0, "with r = 0 it gives 0"),
    "6.6": (2, "can have an SD of up to 0.53"),
}


def _binary(labels, spacing):
    from shapeloss.distance import boundary_distance

    return boundary_distance(labels > 0, spacing)


def _penalty(labels, spacing):
    from shapeloss.distance import distance_penalty

    return distance_penalty(labels, spacing)


def _phi(labels, spacing):
    from shapeloss.distance import boundary_distance

    d, phi = boundary_distance(labels, spacing), np.zeros(labels.shape)
    with np.errstate(invalid="ignore"):
        for k in np.unique(labels):
            mask = labels == k
            phi[mask] = (d[mask].max() - d[mask]) / (d[mask].max() - d[mask].min())
    return phi


@pytest.mark.parametrize("number", WRONG)
def test_a_typical_wrong_answer_gets_its_own_message(number):
    answer, message = WRONG[number]
    result = check(number, answer)
    assert not result.right
    assert message in result.message


# losses that are wrong in the ways of a class


class _Base(torch.nn.Module):
    def forward(self, logits, target, phi=None):
        return self.of(torch.nn.functional.cross_entropy(logits, target, reduction="none"), logits, target)


FAULTY = {
    "it must return one number, got shape (1, 4, 5, 6)": lambda ce, z, t: ce,
    "it must return a tensor, got float": lambda ce, z, t: ce.mean().item(),
    "it has no gradient": lambda ce, z, t: ce.mean().detach(),
    "is the sign the wrong way round": lambda ce, z, t: -ce.mean(),
    "takes logits for probabilities": lambda ce, z, t: (
        (z - torch.nn.functional.one_hot(t, 4).movedim(-1, 1)).abs().mean()
    ),
    "log of the logits": lambda ce, z, t: -z.log().mean(),
    "its gradient is zero everywhere": lambda ce, z, t: 0 * ce.mean(),
    "its gradient is not the slope": lambda ce, z, t: (ce * ce.detach()).mean(),
    "for large logits": lambda ce, z, t: -z.softmax(1).log().gather(1, t[:, None]).mean(),
    "a class is absent": lambda ce, z, t: sum(ce[t == k].mean() for k in range(4)),
    "it stops with RuntimeError": lambda ce, z, t: (ce + torch.zeros(7)).mean(),
}


@pytest.mark.parametrize("message", FAULTY)
def test_what_is_wrong_with_a_loss_is_named(message):
    loss = type("Faulty", (_Base,), {"of": staticmethod(FAULTY[message])})()
    faults = find_faults(loss)
    assert any(message in fault for fault in faults), faults
    with pytest.raises(ValueError, match="faulty cannot be trained yet"):
        register("faulty", loss)
    assert "faulty" not in REGISTERED


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("hausdorff", "sdf")])
def test_nothing_is_found_wrong_with_the_package_s_losses(name):
    """`sdf` reads logits as distances, and Hausdorff's weights jump with the prediction: both by design."""
    loss = build_loss(name, num_classes=4, spacing=(1.0, 1.0, 1.0))
    signed = torch.rand(1, 4, 4, 5, 6, generator=torch.Generator().manual_seed(0)) - 0.5
    per_class = getattr(loss, "per_class", False)
    with_map = (lambda z, t, phi: loss(z, t, signed.to(z))) if per_class else loss
    faults = find_faults(with_map)
    if name == "boundary":  # with a random map right need not cost less
        faults = [fault for fault in faults if "sign" not in fault]
    assert faults == []


def test_the_pull_of_cross_entropy_in_closed_form():
    """√2 (1 − p) at each voxel of two classes."""
    labels = np.zeros((4, 6), int)
    labels[:, 3:] = 1
    logits = label_logits(labels, (1.0, 1.0), 2, blur_mm=3.0, confidence=1.5)
    found = measure_pull(build_loss("ce", num_classes=2), logits, labels, (1.0, 1.0))
    p = logits.softmax(1)[0].gather(0, torch.from_numpy(labels)[None])[0].numpy()
    np.testing.assert_allclose(found.pull, np.sqrt(2) * (1 - p), rtol=1e-5)
    near = [False, True, True, True, True, False]
    assert found.share == pytest.approx(found.pull[:, near].sum() / found.pull.sum())


def test_altered_labels():
    truth = practice_knee().labels
    assert (alter_labels(truth, SPACING) == truth).all()
    moved = alter_labels(truth, SPACING, shift_mm=(0, 4, 0))
    assert (moved[:, 2:] == truth[:, :-2]).all()
    assert (moved[:, 1] == truth[:, 0]).all()
    assert not (alter_labels(truth, SPACING, missed=3) == 3).any()
    grown, shrunk = (alter_labels(truth, SPACING, grow_mm=mm) for mm in (2.5, -2.5))
    assert ((grown > 0) >= (truth > 0)).all()
    assert ((shrunk > 0) <= (truth > 0)).all()
    island = alter_labels(truth, SPACING, island_mm=7.0, island_label=2) != truth
    assert (truth[island] == 0).all()
    assert island.sum() * np.prod(SPACING) == pytest.approx(4 / 3 * np.pi * 7**3, rel=0.2)
    logits = label_logits(grown, SPACING, 4)
    assert (logits[0].argmax(0).numpy() == grown).all()


def test_a_practice_training_gives_curves_scores_and_intervals():
    seen = []
    losses = {name: build_loss(name, num_classes=4) for name in ("ce", "dice")}
    practice = train_beside(losses, steps=20, progress=lambda name, curves: seen.append((name, len(curves))))
    assert seen == [("ce", 10), ("ce", 20), ("dice", 20), ("dice", 20)]
    assert list(practice.curves) == ["ce", "dice"]
    assert practice.scores.groupby("loss").size().to_dict() == {"ce": 8, "dice": 8}
    table = practice.table("dice")
    assert table.loc["ce", ["minus ce", "from", "to"]].tolist() == [0, 0, 0]
    difference = practice.scores.pivot(index="case", columns="loss", values="dice").diff(axis=1)["dice"].mean()
    assert table.loc["dice", "minus ce"] == pytest.approx(difference, abs=1e-3)
    with pytest.raises(ValueError, match="reference must be one of the losses, ce, dice, got 'dpce'"):
        train_beside(losses, reference="dpce")


def test_nothing_in_it_needs_a_particular_system():
    """No symlinks and no calls that Windows lacks in what students run."""
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "shapeloss" / "workshop").rglob("*.py"))
    assert not re.search(r"\bfcntl\b|os\.fork|symlink|signal\.|resource\.getrusage", text)
    assert not [path for path in (ROOT / "notebooks").rglob("*") if path.is_symlink()]


HALF_MENDED = {
    # number: (what a student tries that silences the first message, the message that then comes)
    "3.1": (lambda z, t, phi: (phi * torch.nn.functional.cross_entropy(z, t, reduction="none")).mean(), "mean((1 + φ)"),
    "3.3": (lambda mask, spacing: np.zeros(mask.shape), "the map of an ordinary mask must stay as it is"),
    "3.7": (lambda p, g, phi: float(((p - g) ** 2).mean()), "must cost"),
    "3.9": (lambda z, t, beta: torch.nn.functional.cross_entropy(z, t), "with 2 classes and p = 1 / 2"),
    "3.10": (lambda z, t, gamma: torch.nn.functional.cross_entropy(z, t), "is right"),
    "3.11": (lambda t, p, spacing: float("nan"), "must stay"),
    "3.2": (lambda masks, spacing: _squeezed(masks, spacing), "another map than the same mask in a batch of two"),
    "2.3": (0.001, "a longer range spreads it"),
    "5.2": (lambda a, b: _filled(a, b), "a mask that fills the picture has no boundary either"),
}


def _squeezed(masks, spacing):
    """The rows of a single mask are still taken for masks, and NaN is covered up."""
    if len(masks) > 1:
        inside = [ndimage.distance_transform_edt(mask, spacing) for mask in masks]
        return np.stack([d / max(d.max(), 1e-9) for d in inside])
    rows = [ndimage.distance_transform_edt(row, spacing[-1:]) for row in masks[0]]
    return np.stack([d / max(d.max(), 1e-9) for d in rows])[None]


def _filled(a, b):
    """Boundary Dice that takes two empty boundaries for agreement."""
    first, second = (mask & ~ndimage.binary_erosion(mask, border_value=1) for mask in (a, b))
    total = first.sum() + second.sum()
    return 2 * (first & second).sum() / total if total else 1.0


@pytest.mark.parametrize("number", HALF_MENDED)
def test_a_mended_bug_must_be_right(number):
    function, message = HALF_MENDED[number]
    result = check(number, function)
    assert not result.right
    assert message in result.message
