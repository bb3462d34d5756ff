"""The whole path on the smoke profile, as a user starts it: from nothing, again, after a kill, and after a change."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from html.parser import HTMLParser

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.project import ROOT
from helpers.tree import Tree
from PIL import Image

sys.path.insert(0, str(ROOT / "reproduce"))

import compare
import notebook
import readme
import report
import run

from shapeloss.data.manifest import read_manifest
from shapeloss.replication.profile import load_experiment

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The smoke profile, run once without a break."""
    tree = Tree(tmp_path_factory.mktemp("project"))
    status, output = tree.run()
    assert status == 0, output
    return tree, output


def test_it_makes_the_figure_and_the_table_and_says_where(whole):
    tree, output = whole
    stems = ("figure1", "figure1_top", "figure1_bottom", "scores", "training", "variants", "claims")
    for stem in (*stems, "audit_samples", "audit_claims", "audit_relation"):
        assert (tree.figures / f"{stem}.png").stat().st_size > 10_000
        assert (tree.figures / f"{stem}.pdf").read_bytes().startswith(b"%PDF")
    table = pd.read_csv(tree.figures / "table1.csv")
    assert table.loss.tolist() == ["dpce", "ce", "dice"]
    assert table.n.tolist() == [2, 2, 2]
    assert "0.29 ± 0.04" in (tree.figures / "table1.md").read_text(encoding="utf-8")  # the paper, beside ours
    assert r"\begin{tabular}" in (tree.figures / "table1.tex").read_text(encoding="utf-8")
    scores = pd.read_csv(tree.figures / "per_case.csv")
    assert len(scores) == 3 * 2 * 5  # losses, test cases, three bones with their mean and all merged
    assert "figures/smoke/table1.md" in output
    assert "left" in output  # an estimate of the time left
    regions = pd.read_csv(tree.figures / "surface_regions.csv")
    assert len(regions) == 3 * 2 * 7  # losses, test cases, regions of femur, tibia and patella
    assert set(regions["rule"]) == {"landmarks of the data set"}
    executed = nbformat.read(tree.results / "notebooks" / "01_distance_maps.ipynb", as_version=4)
    assert any(cell.get("outputs") for cell in executed.cells)


def test_the_claims_speak_of_the_phantom(whole):
    tree, _ = whole
    page = (tree.figures / "claims.md").read_text(encoding="utf-8")
    assert "nothing is reproduced here" in page
    assert "Smaller surface error in the intercondylar notch" in page
    assert "no scores: surface_error" not in page  # the phantom has landmarks
    assert "2 cases are too few for any verdict" in page
    assert "one volume is at most 0.64, and the other nine average at least 0.99" in (
        tree.figures / "audit.md"
    ).read_text(encoding="utf-8")


def test_everything_follows_from_the_scores_alone(whole, tmp_path):
    tree, _ = whole
    figures = tmp_path / "figures"
    shutil.copytree(tree.figures, figures)
    for name in ("figure1", "predictions", "variants"):  # of volumes: not made again
        (figures / f"{name}.png").unlink()
    command = [sys.executable, "-m", "shapeloss", "reanalyze", str(figures)]
    done = subprocess.run(command, env=tree.environment, capture_output=True, encoding="utf-8", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "14 files, as the scores give them" in done.stdout


def test_the_page_of_surfaces_needs_nothing_else_and_is_in_the_report(whole):
    tree, _ = whole
    text = (tree.figures / "surfaces.html").read_text(encoding="utf-8")
    assert len(text) < 10e6
    assert [link for link in Page(text).links if not link.startswith("data:")] == []
    assert not re.search(r"https?://|url\(|@import", text)
    report_page = (tree.figures / "report.html").read_text(encoding="utf-8")
    assert len(report_page) < 10e6
    (inside,) = [values["srcdoc"] for tag, values in Page(report_page).elements if tag == "iframe"]
    assert inside == text


class Page(HTMLParser):
    """Counts what a page holds."""

    def __init__(self, text):
        super().__init__()
        self.links, self.images, self.rows, self.ids, self.tags, self.elements = [], [], 0, set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.elements.append((tag, values))
        self.links += [value for key, value in attributes if key in ("href", "src")]
        self.images += [values["src"]] if tag == "img" else []
        self.rows += tag == "tr"
        self.ids |= {values["id"]} if "id" in values else set()
        if tag in ("table", "details", "figure", "tbody", "main"):
            self.tags.append(tag)

    def handle_endtag(self, tag):
        if tag in ("table", "details", "figure", "tbody", "main"):
            assert self.tags.pop() == tag


def test_the_report_needs_nothing_else(whole):
    tree, _ = whole
    text = (tree.figures / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags == []
    outside = [link for link in page.links if not link.startswith(("#", "data:image/webp;base64,"))]
    assert outside == []
    assert "url(" not in text
    assert "@import" not in text
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.ids
    assert len(page.images) == 10
    scores = pd.read_csv(tree.figures / "per_case.csv")
    assert page.rows > len(scores)
    for row in scores.head(3).to_dict("records"):
        assert f"<td>{row['case']}</td><td>{row['structure']}</td><td>{row['loss']}</td>" in text
        assert f"{row['dice']:.4f}" in text
    run = json.loads((tree.results / "runs" / "dpce" / "seed0" / "run.json").read_text(encoding="utf-8"))
    cases = json.loads((tree.results / "cases.json").read_text(encoding="utf-8"))["cases"]
    for wanted in (run["commit"], run["versions"]["torch"], cases[0]["image_sha256"][:16], "Deviations from the paper"):
        assert wanted in text


def test_the_report_shows_markup_as_text(whole, tmp_path):
    tree, _ = whole
    shutil.copytree(tree.figures, tmp_path / "figures")
    scores = pd.read_csv(tmp_path / "figures" / "per_case.csv")
    scores["case"] = "<script>alert(1)</script>"
    scores.to_csv(tmp_path / "figures" / "per_case.csv", index=False)
    (tmp_path / "figures" / "evaluation.json").unlink()  # which holds the hash of the scores
    (tmp_path / "figures" / "table1.md").write_text("| a |\n| --- |\n| <b onload=x> |\n")
    experiment = load_experiment(tree.folder / "reproduce" / "profiles" / "smoke.yaml")
    text = report.build(experiment, read_manifest(tree.results / "cases.json"), tree.results, tmp_path / "figures")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<b onload" not in text


def test_the_report_names_what_is_stale(whole, tmp_path):
    tree, _ = whole
    shutil.copytree(tree.figures, tmp_path / "figures")
    shutil.copytree(tree.results, tmp_path / "results", symlinks=True)
    experiment = load_experiment(tree.folder / "reproduce" / "profiles" / "smoke.yaml")
    manifest = read_manifest(tree.results / "cases.json")

    def page():
        return report.build(experiment, manifest, tmp_path / "results", tmp_path / "figures")

    assert "Stale" not in page()
    assert "parts of this page were made at" not in page()
    table = tmp_path / "figures" / "table1.md"
    text = table.read_text(encoding="utf-8")
    table.write_text(text.replace(manifest.hash, "0" * 16), encoding="utf-8")
    assert "Stale: table1.md (made from other data)." in page()
    table.write_text(re.sub(r"Commit: \S+\.", "Commit: 0123456789ab.", text), encoding="utf-8")
    assert "Stale: table1.md (made from other trainings)." in page()
    assert "The parts of this page were made at 2 commits" in page()
    table.write_text(text, encoding="utf-8")
    path = tmp_path / "results" / "notebooks" / "05_audit.ipynb"
    book = json.loads(path.read_text(encoding="utf-8"))
    book["metadata"]["shapeloss"]["commit"] = "0123456789ab"
    path.write_text(json.dumps(book))
    assert "The parts of this page were made at 2 commits" in page()
    assert "<td>notebook 05_audit</td><td><code>0123456789ab</code>" in page()
    path = tmp_path / "results" / "runs" / "ce" / "seed0" / "run.json"
    run_values = json.loads(path.read_text(encoding="utf-8"))
    del run_values["checksum"]
    own = {"class": "mine:Mine", "file": "mine.py", "code": "f" * 64}
    path.write_text(json.dumps(run_values | {"data": "other", "custom_loss": own}))
    assert "Stale: trainings (trained on other data: ce, seed 0)." in page()
    assert f"mine:Mine, mine.py, SHA-256 <code>{'f' * 64}</code>" in page()


def test_a_second_call_does_nothing(whole):
    tree, _ = whole
    before = {path: path.stat().st_mtime_ns for path in tree.figures.iterdir()}
    status, output = tree.run()
    assert status == 0
    assert "to do" not in output
    assert before == {path: path.stat().st_mtime_ns for path in tree.figures.iterdir()}


def test_what_changes_is_made_again_and_nothing_else(whole):
    tree, _ = whole
    assert tree.to_do() == set()
    for path in tree.folder.glob("shapeloss/**/*.py"):
        path.touch()
    assert tree.to_do() == set()  # a time stamp is no change
    changes = {
        "shapeloss/losses/registry.py": {"distance_maps", "train", "evaluate", "error_maps", "shape", "report"},
        "shapeloss/phantom/knee.py": {
            "phantom",
            "data",
            "distance_maps",
            "train",
            "evaluate",
            "error_maps",
            "shape",
            "report",
        },
        "shapeloss/stats/paired_tests.py": {"evaluate", "error_maps", "audit", "shape", "report"},
        "shapeloss/review/audit/summary.py": {"audit", "report"},
        "docs/deviations.md": {"report"},
        "shapeloss/plotting/surface_viewer/viewer.js": {"error_maps", "report"},
    }
    for name, rules in changes.items():
        text = (tree.folder / name).read_text(encoding="utf-8")
        (tree.folder / name).write_text(text + "\n# changed\n", encoding="utf-8")
        assert tree.to_do() == rules, name
        (tree.folder / name).write_text(text, encoding="utf-8")
    training = tree.results / "runs" / "ce"
    training.rename(training.with_name("removed"))
    assert tree.to_do() == {"train", "evaluate", "error_maps", "shape", "report"}
    training.with_name("removed").rename(training)
    profile = tree.folder / "reproduce/profiles/smoke.yaml"
    text = profile.read_text(encoding="utf-8")
    profile.write_text(text.replace("steps: 20", "steps: 21"))
    assert tree.to_do() == {"train", "evaluate", "error_maps", "shape", "report"}
    own = tree.folder / "my_losses.py"
    own.write_text("from shapeloss.losses import CrossEntropyLoss\n\nclass Mine(CrossEntropyLoss): pass\n")
    profile.write_text(text.replace("[dpce, ce, dice]", '{dpce: {}, ce: {loss: "my_losses:Mine"}, dice: {}}'))
    inputs = [line for line in tree.plan().splitlines() if line.strip().startswith("input:") and str(own) in line]
    assert len(inputs) == 1  # a change of it trains its row again, and no other
    profile.write_text(text)
    own.unlink()
    assert tree.to_do() == set()


def test_stopped_and_killed_in_the_middle_of_training_it_ends_with_the_same_numbers(whole, tmp_path):
    tree = Tree(tmp_path).without_figures()
    process = tree.start_and_train(2)
    assert any("ipykernel" in line for line in tree.processes())
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=run.child.GRACE + 10) == 128 + signal.SIGTERM
    assert tree.wait_until_quiet(5) == []

    left = [tree.results / "runs/dpce/seed0/predictions/.partial-x.nii.gz", tree.figures / ".partial-y.png"]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    process = tree.start_and_train(6)
    os.kill(process.pid, signal.SIGKILL)  # which it cannot pass on
    process.wait()
    assert tree.wait_until_quiet(10) == []
    assert not (tree.figures / "table1.csv").exists()

    process = tree.start_and_lock()
    other = tree.start()  # the same command again, which waits
    lines = [other.stdout.readline() for _ in range(2)]
    assert re.search(rf"another run of profile smoke is going on; .* \(process {process.pid} on ", lines[1]), lines
    assert f"run.py --profile smoke --cores 2; to end it: kill {process.pid})" in lines[1]
    os.killpg(other.pid, signal.SIGTERM)
    assert other.wait(timeout=20) == 128 + signal.SIGTERM
    assert "Interrupted" in other.stdout.read()
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert tree.numbers() == whole[0].numbers()
    assert not any(path.exists() for path in left)


class Hostile(Tree):
    """A copy in a folder with an odd name, called by `make` in an environment where everything is set to do harm."""

    def __init__(self, folder):
        place = folder / 'a {x} "b" it\'s $HOME #1 Å学'
        super().__init__(place)
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, place / name)
        venv.create(place / ".venv", symlinks=True)
        packages = next((place / ".venv").glob("lib/python*/site-packages"))
        (packages / "installed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        for mark in (".made", ".reproduce"):
            (place / ".venv" / mark).touch()
        tools = folder / "bin"
        tools.mkdir()
        for tool in ("bash", "sh", "make", "touch", "nproc", "cat", "rm", "uname"):  # no git
            if path := shutil.which(tool):
                (tools / tool).symlink_to(path)

        def write(name, text):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return str(path.parent)

        fails = "raise RuntimeError('hostile')\n"
        kernel = '{"argv": ["/bin/false", "{connection_file}"], "display_name": "other", "language": "python"}'
        odd = "figure.facecolor: red\nlines.linewidth: 9\nfont.size: 30\naxes.grid: True\n"
        for name in ("torch", "yaml", "sitecustomize", "numpy", "child"):
            modules = write(f"modules/{name}.py", fails)
        write("home/.ipython/profile_default/startup/00.py", fails)
        write("home/.config/pip/pip.conf", "[install]\nuser = true\n")
        write("home/.local/share/jupyter/kernels/python3/kernel.json", kernel)
        write("home/.jupyter/jupyter_config.py", fails)
        write("home/.config/matplotlib/matplotlibrc", odd)
        write(f"{place.name}/matplotlibrc", odd)
        write(f"{place.name}/reproduce/profiles/default/config.yaml", "nonsense: [1\n")
        write("jupyter/kernels/python3/kernel.json", kernel)
        write("bash_env", "exit 3\n")
        (folder / "home").chmod(0o555)
        nowhere = str(folder / "nowhere")
        self.environment = {
            **{"HOME": str(folder / "home"), "PATH": str(tools), "LC_ALL": "C", "TMPDIR": nowhere, "COLUMNS": "20"},
            **{"PYTHONPATH": modules, "PYTHONSTARTUP": nowhere, "PYTHONHASHSEED": "7", "PYTHONWARNINGS": "error"},
            **{"PYTHONHOME": nowhere, "PYTHONSAFEPATH": "1", "PYTHONOPTIMIZE": "2", "PYTHONIOENCODING": "ascii"},
            **{"PIP_USER": "1", "PIP_TARGET": nowhere, "SNAKEMAKE_PROFILE": nowhere},
            **{"BASH_ENV": str(folder / "bash_env")},
            **{"JUPYTER_PATH": str(folder / "jupyter"), "JUPYTER_CONFIG_DIR": str(folder / "home/.jupyter")},
            **{"IPYTHONDIR": str(folder / "home/.ipython"), "XDG_CONFIG_HOME": str(folder / "home/.config")},
            **{"MPLBACKEND": "nonsense", "MATPLOTLIBRC": str(folder / "home/.config/matplotlib/matplotlibrc")},
            **{"DISPLAY": ":77", "OMP_NUM_THREADS": "3", "CDPATH": "/", "DATA": nowhere, "PROFILE": "nonsense"},
            **{"OPENBLAS_CORETYPE": "Nehalem", "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
            **{"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "job", "WORLD_SIZE": "4", "RANK": "1", "LOCAL_RANK": "1"},
        }
        self.command = [str(tools / "make"), "reproduce", "PROFILE=smoke", "CORES=2"]

    def start(self):
        return super().start(umask=0o077)


@pytest.mark.parametrize("figures", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_users_environment_changes_nothing(figures, whole, tmp_path):
    """Odd characters in paths, no git, a bad home, and settings of every library: the same bytes, and no word of it."""
    tree = Hostile(tmp_path) if figures else Hostile(tmp_path).without_figures()
    status, output = tree.run()
    assert status == 0, output
    assert "hostile" not in output
    assert tree.numbers() == whole[0].numbers()
    for name in ("scores.png", "training.png", *(("figure1.png", "figure1_bottom.png") if figures else ())):
        drawn, expected = (np.asarray(Image.open(each.figures / name), int) for each in (tree, whole[0]))
        assert drawn.shape == expected.shape, name
        # one level of 255: so much, in a few dozen pixels, also differs now and then between two runs that are alike
        assert np.abs(drawn - expected).max() <= 1, name
    assert "Commit: unknown." in (tree.figures / "table1.md").read_text(encoding="utf-8")
    assert not (tmp_path / "nowhere").exists()
    status, output = tree.run()
    assert (status, "to do" in output) == (0, False), output  # nor is anything out of date


def test_compare_tells_equal_from_near_and_far(whole, tmp_path, capsys, monkeypatch):
    tree, _ = whole
    scores = pd.read_csv(tree.figures / "per_case.csv")
    call = ["compare.py", "--figures", str(tree.figures), "--against", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", call)
    scores.to_csv(tmp_path / "per_case.csv", index=False)
    compare.main()
    assert "Identical" in capsys.readouterr().out
    scores.assign(dice=scores.dice + 0.001).to_csv(tmp_path / "per_case.csv", index=False)
    compare.main()
    assert "within what another machine explains" in capsys.readouterr().out
    scores.assign(dice=scores.dice + 0.1).to_csv(tmp_path / "per_case.csv", index=False)
    with pytest.raises(SystemExit, match="DIFFERENT"):
        compare.main()
    scores[scores.case != scores.case[0]].to_csv(tmp_path / "per_case.csv", index=False)
    with pytest.raises(SystemExit, match="DIFFERENT"):
        compare.main()


def test_a_data_set_with_faults_stops_before_training(whole, tmp_path):
    tree, _ = whole
    data = tmp_path / "data"
    shutil.copytree(tree.results / "data", data)
    (data / "imagesTr" / "knee_002.nii.gz").write_bytes(b"no image")
    profile = yaml.safe_load((ROOT / "reproduce/profiles/smoke.yaml").read_text(encoding="utf-8"))
    profile["data"] = {"split": profile["data"]["split"]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(profile))
    command = [*tree.command[:2], "--profile", str(tmp_path / "mine.yaml"), "--data", str(data)]
    command += ["--results", str(tmp_path / "results"), "--figures", str(tmp_path / "figures")]
    done = subprocess.run(command, env=tree.environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode != 0
    assert "imagesTr/knee_002.nii.gz: is not a valid NIfTI file" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results" / "runs").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trainng": {"steps": 5}}, r"trainng: unknown key; did you mean 'training'\?"),
        ({"training": {"step": 5}}, r"training\.step: unknown key; did you mean 'steps'\?"),
        ({"network": {"options": {"width": [8]}}}, r"network\.options\.width: unknown key; did you mean 'widths'\?"),
        ({"data": {"phantom": {"options": {"nois": 1}}}}, r"nois: unknown key; did you mean 'noise'\?"),
        ({"training": {"steps": -5}}, r"training\.steps must be 1 or more, got -5$"),
        ({"losses": ["dise"]}, r"dise.*did you mean"),
        ({"losses": {"focal": {"gama": 1}}}, "gama"),
        ({"data": {"phantom": {"subjects": 3}}}, "the split needs 40 cases"),
        ({"seeds": [1, 1]}, "seeds must differ"),
        ({"data": {}}, r"needs a data set: make reproduce PROFILE=smoke DATA="),
    ],
)
def test_faults_of_a_profile_are_explained(change, message, tmp_path):
    profile = yaml.safe_load((ROOT / "reproduce/profiles/smoke.yaml").read_text(encoding="utf-8"))
    (tmp_path / "smoke.yaml").write_text(yaml.safe_dump(profile | change))
    with pytest.raises(ValueError, match=message):
        run.check(tmp_path / "smoke.yaml", "")


def test_a_profile_that_does_not_exist_or_is_no_yaml(tmp_path):
    known = r"there is no profile .*phantm.*built-in ones: hippocampus, .*phantom, .*smoke"
    with pytest.raises(FileNotFoundError, match=known):
        load_experiment(ROOT / "reproduce/profiles/phantm.yaml")
    (tmp_path / "bad.yaml").write_text("losses: [dpce")
    with pytest.raises(ValueError, match="not valid YAML"):
        load_experiment(tmp_path / "bad.yaml")


@pytest.mark.parametrize("path", sorted((ROOT / "reproduce/profiles").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_profile_is_valid(path):
    experiment = load_experiment(path)
    assert experiment.name == path.stem
    for row in experiment.losses:
        experiment.build_loss(row, num_classes=4)


def test_an_unknown_parameter_of_a_notebook_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"02_train\.ipynb has no parameter 'sead'; it has profile, results, loss"):
        notebook.execute(ROOT / "notebooks/02_train.ipynb", tmp_path / "out.ipynb", {"sead": 1})
    assert not (tmp_path / "out.ipynb").exists()


def test_a_notebook_that_fails_leaves_no_output_but_what_it_had(tmp_path):
    source = nbformat.read(NOTEBOOKS[2], as_version=4)
    source.cells = [source.cells[1], nbformat.v4.new_code_cell("print('so far')\nraise RuntimeError('no')")]
    nbformat.write(source, tmp_path / "fails.ipynb")
    with pytest.raises(Exception, match="no"):
        notebook.execute(tmp_path / "fails.ipynb", tmp_path / "out" / "out.ipynb", {"seed": 1})
    assert not (tmp_path / "out" / "out.ipynb").exists()
    assert "so far" in (tmp_path / "out" / "out.failed.ipynb").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_thin_and_stored_without_outputs(path):
    book = json.loads(path.read_text(encoding="utf-8"))
    cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in cells) == 1
    assert max(len(cell["source"]) for cell in cells) <= 30
    assert not any(line.startswith(("def ", "class ")) for cell in cells for line in cell["source"])


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.stem)
def test_generated_parts_of_pages_are_current(page):
    text = page.read_text(encoding="utf-8")
    assert readme.filled(text) == text, "run make readme"


def test_every_page_says_how_far_the_default_is_from_convergence():
    first, second = readme.blocks()["budget"].split(". ")[:2]
    pages = ("docs/results.md", "docs/deviations.md", "figures/table1.md", "figures/claims.md", "figures/report.html")
    for page in ("README.md", *pages):
        text = re.sub("</?code>", "`", (ROOT / page).read_text(encoding="utf-8"))
        assert f"{first}." in text, page
        assert second in text or page == "README.md", page


def test_a_marker_of_no_known_part_is_refused():
    with pytest.raises(ValueError, match="tabel:begin --> names no generated part; known are table, exact, study"):
        readme.filled("<!-- tabel:begin -->\n<!-- tabel:end -->")
