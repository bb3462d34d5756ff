"""The notebooks as a user opens them on a fresh checkout: without parameters, in their own folder, nothing made yet."""

import os
import shutil

import nbformat
import pytest
from helpers.project import ROOT
from nbclient import NotebookClient

# the error maps need all that the others make: opened first, that notebook makes it, and the others find it
ORDER = (
    "00_start_here",
    "04_error_maps",
    "01_distance_maps",
    "02_train",
    "03_evaluate",
    "05_audit",
    "06_study",
    "07_multi_task",
    "08_shape",
)
LONG = ("04_error_maps", "08_shape")  # in the ordinary tests Papermill runs these
SAID = {
    "00_start_here": ("two knees of (12, 40, 56) voxels", "of the weight lies within 3 mm of a boundary"),
    "04_error_maps": ("there is no data set of profile smoke yet; making 6 knees", "not trained yet: dpce", "shown: "),
    "01_distance_maps": ("phantom, 6 tiny knees", "mean φ"),
    "02_train": ("val_dice",),
    "03_evaluate": ("Boundary Dice", "Holm"),
    "05_audit": ("0.96", "How probable it is that a claimed difference is none"),
    "06_study": ("smoke-study/variations/double: not trained yet: ce (seed 0)", "The noise of training"),
    "07_multi_task": ("distances", "Bias, mm"),
    "08_shape": ("shown: femur of", "limits of"),
}
PICTURES = {
    "00_start_here": 3,
    "04_error_maps": 4,
    "01_distance_maps": 2,
    "02_train": 2,
    "03_evaluate": 3,
    "05_audit": 3,
    "06_study": 3,
    "07_multi_task": 2,
    "08_shape": 3,
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what a clone holds."""
    folder = tmp_path_factory.mktemp("a user's checkout")
    for name in ("shapeloss", "reproduce", "notebooks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def opened(checkout, name):
    """The notebook after Run All, and all text that it shows."""
    book = nbformat.read(checkout / "notebooks" / f"{name}.ipynb", as_version=4)
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    client = NotebookClient(
        book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(checkout / "notebooks")}}
    )
    client.execute(env=environment)
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "\n".join(str(output.get("text", "")) + str(output.get("data", {})) for output in outputs)
    return book, outputs, text


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in ORDER])
def test_a_notebook_runs_on_a_fresh_checkout(name, checkout):
    made = (checkout / "results").exists()
    _, outputs, text = opened(checkout, name)
    for words in SAID[name]:
        assert words in text, words
    assert sum("image/png" in output.get("data", {}) for output in outputs) == PICTURES[name]
    errors = [line for output in outputs if output.output_type == "stream" and output.name == "stderr"
              for line in output.text.splitlines() if "Warning" in line]  # fmt: skip
    assert errors == []
    assert (checkout / "results").exists() == (made or name not in ("00_start_here", "05_audit"))


@pytest.mark.parametrize("name", ORDER)
def test_a_notebook_teaches(name):
    """Prose between the cells: a formula or its place, what to look at, two things to try; no outputs are stored."""
    book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    prose = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    assert "two things to try" in prose.lower()
    assert "$" in prose or name in ("04_error_maps", "06_study")
    assert "**What to look at:**" in prose or name == "05_audit"
    assert not any(cell.outputs for cell in book.cells if cell.cell_type == "code")
    code = sum(len(cell.source.splitlines()) for cell in book.cells if cell.cell_type == "code")
    assert code < 90  # logic belongs in the package


def test_every_notebook_is_opened():
    assert sorted(ORDER) == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
