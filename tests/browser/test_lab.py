"""The workshop in JupyterLab, driven in a browser: run all, move a slider, solve an exercise."""

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from helpers.project import ROOT

WORKSHOP = ROOT / "notebooks" / "workshop"
NOTEBOOKS = sorted(path.stem for path in WORKSHOP.glob("*.ipynb"))
MODEL = "jupyterapp.shell.currentWidget.content.model.sharedModel.toJSON().cells"
OUTPUTS = f"{MODEL}.flatMap((cell) => cell.outputs ?? [])"


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    """A JupyterLab over a copy of the workshop; its address with the token."""
    pytest.importorskip("jupyterlab")
    folder = tmp_path_factory.mktemp("a student's folder")
    shutil.copytree(WORKSHOP, folder / "workshop")
    path = folder / "workshop" / "4_write_your_own_loss.ipynb"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("train_beside(losses,", "train_beside(losses, steps=20,"), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "JUPYTER_CONFIG_DIR": str(folder / "c"),
    }
    environment |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "s"), "JUPYTERLAB_WORKSPACES_DIR": str(folder / "w")}
    options = [
        f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1",
        f"--IdentityProvider.token={token}", "--no-browser", "--allow-root", "--LabApp.expose_app_in_browser=True",
        "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    log = (folder / "log").open("w")
    command = [sys.executable, "-m", "jupyterlab", f"--notebook-dir={folder / 'workshop'}", *options]
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    for _ in range(240):
        try:
            urllib.request.urlopen(f"{address}/api?token={token}", timeout=2).close()
            break
        except OSError:
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.25)
    yield lambda name: f"{address}/lab/tree/{name}.ipynb?token={token}&reset"
    server.terminate()
    server.wait(30)
    log.close()


def opened(page_at, address, width=1280):
    """A page with the notebook and a kernel that is ready."""
    page = page_at(address, width)
    page.wait_for_function(
        "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'", timeout=90_000
    )
    return page


def run_all(page):
    page.evaluate("void jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function(
        f"{MODEL}.filter((cell) => cell.cell_type === 'code' && cell.source).every((cell) => cell.execution_count)"
        " && jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'",
        timeout=180_000,
    )


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name[0] in "13" else pytest.mark.slow) for name in NOTEBOOKS]
)
def test_a_notebook_runs_in_the_lab(lab, page_at, name):
    page = opened(page_at, lab(name))
    run_all(page)
    outputs = page.evaluate(OUTPUTS)
    assert [output for output in outputs if output["output_type"] == "error"] == []
    shown = " ".join("".join(output.get("data", {}).get("text/html", "")) for output in outputs)
    exercises = page.evaluate(f"{MODEL}.filter((cell) => cell.metadata.exercise).length")
    assert len(re.findall("Not yet", shown)) == exercises
    assert page.locator("text=Error displaying widget").count() == 0
    page.evaluate("void jupyterapp.commands.execute('kernelmenu:shutdown')")


def test_a_slider_moves_the_picture_and_an_exercise_turns_green(lab, page_at):
    page = opened(page_at, lab("1_what_does_a_loss_ask"))
    run_all(page)
    page.evaluate("jupyterapp.shell.currentWidget.content.scrollToItem(4)")
    picture = page.locator(".jp-OutputArea .widget-image").first
    picture.wait_for(timeout=30_000)
    before = picture.get_attribute("src")
    handle = page.locator(".widget-slider .noUi-handle").first
    handle.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "(before) => document.querySelector('.jp-OutputArea .widget-image').src !== before", arg=before, timeout=30_000
    )

    # exercise 1.1: type the answer into its cell, run it and its check
    index = page.evaluate(f"{MODEL}.findIndex((cell) => cell.metadata.exercise === '1.1')")
    page.evaluate(
        """(index) => {
            const book = jupyterapp.shell.currentWidget.content;
            book.activeCellIndex = index;
            book.scrollToItem(index);
            book.mode = 'edit';
            book.activeCell.editor.focus();
        }""",
        index,
    )
    page.keyboard.press("Control+A")
    page.keyboard.insert_text("def pull(p):\n    return np.sqrt(2) * (1 - p)")
    page.keyboard.press("Shift+Enter")
    page.keyboard.press("Shift+Enter")
    page.wait_for_function(f"JSON.stringify({MODEL}[{index + 1}].outputs).includes('1.1 Right')", timeout=30_000)
