"""What surrounds a run changes nothing: variables, paths, git, locks, half-made environments, where a loss lies."""

import errno
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib
import nbformat
import pandas as pd
import pytest
import torch
import yaml

from shapeloss import _files as files
from shapeloss.losses import build_loss
from shapeloss.plotting import style
from shapeloss.plotting.curves import figure_training
from shapeloss.replication import scores as evaluation
from shapeloss.replication.profile import load_experiment
from shapeloss.runs.map_cache import custom_loss_source
from shapeloss.runs.provenance import commit, provenance
from shapeloss.runs.run import train

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "reproduce"))

import child
import run

MAKE = shutil.which("make")
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git makes the repositories")
needs_make = pytest.mark.skipif(MAKE is None, reason="make runs the recipes")


def test_steps_get_no_settings_of_the_user(monkeypatch, tmp_path):
    dropped = ("PYTHONHOME", "PYTHONWARNINGS", "PIP_USER", "JUPYTER_PATH", "SNAKEMAKE_PROFILE", "MPLBACKEND", "CDPATH")
    dropped += ("BASH_ENV", "PYVISTA_OFF_SCREEN", "DISPLAY", "MAKEFLAGS", "SLURM_NTASKS", "RANK", "LOCAL_RANK")
    kept = ("PATH", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "HTTPS_PROXY", "TMPDIR", "MY_PYTHON")
    kept += ("SLURM_CONF", "SBATCH_ACCOUNT")  # which cluster, and as whom
    for name in (*dropped, *kept, "PYTHONPATH", "IPYTHONDIR", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "mine")
    steps = child.environment(tmp_path / "project", tmp_path / "own")
    assert set(dropped).isdisjoint(steps)
    assert {name: steps[name] for name in kept} == dict.fromkeys(kept, "mine")
    assert steps["PYTHONPATH"] == str(tmp_path / "project")
    assert steps["OMP_NUM_THREADS"] == "1"
    assert Path(steps["IPYTHONDIR"]).is_relative_to(tmp_path / "own")


IGNORES_TERM = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(9); print(2)"
)


def test_what_does_not_end_when_asked_is_killed(tmp_path):
    process = child.start([sys.executable, "-c", IGNORES_TERM], stdout=subprocess.PIPE)
    assert process.stdout.readline() == "1\n"
    child.end(process, grace=0.2)
    assert process.returncode == -9


def test_what_a_dead_command_started_is_ended_with_it(tmp_path):
    inner = f"{shlex.quote(sys.executable)} -c {shlex.quote(IGNORES_TERM)}"
    process = child.start(["/bin/sh", "-c", f"{inner} & read line; exit 3"], stdout=subprocess.PIPE)
    assert process.stdout.readline() == "1\n"
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.wait(timeout=10) == 3
    child.end(process, grace=0.2)
    assert process.stdout.read() == ""  # whatever could still write is gone


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path):
    """A repository with a package inside another repository."""
    root = tmp_path / "outer" / "a {x} 'b' Å"
    (root / "shapeloss").mkdir(parents=True)
    (root / "shapeloss" / "losses.py").write_text("1\n")
    (root / "figures").mkdir()
    git(tmp_path / "outer", "init", "-q")
    git(tmp_path / "outer", "commit", "-q", "--allow-empty", "-m", "outer")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "inner")
    return root


@needs_git
def test_the_commit_is_that_of_the_checkout_with_its_changes(checkout, monkeypatch):
    clean = commit(root=checkout)
    assert re.fullmatch("[0-9a-f]{12}", clean)
    changed = f"{clean}+changes"
    (checkout / "figures" / "a.png").write_text("x")
    assert commit(root=checkout) == clean  # what a run writes changes no number
    (checkout / "shapeloss" / "losses.py").write_text("2\n")
    assert commit(root=checkout) == changed
    git(checkout, "checkout", "-q", "--", "shapeloss")
    for name in ("shapeloss/mine.py", "my_losses.py", "reproduce/profiles/mine.yaml"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("x\n")
        assert commit(root=checkout) == changed, name
        (checkout / name).unlink()
    (checkout / "lab").mkdir()
    (checkout / "lab" / "loss.py").write_text("x\n")
    assert commit(root=checkout) == clean
    assert commit(str(checkout / "lab" / "loss.py"), root=checkout) == changed
    monkeypatch.setenv("GIT_DIR", str(checkout.parent / ".git"))
    assert commit(root=checkout) == clean


@needs_git
def test_a_repository_around_it_is_not_its_own(checkout):
    shutil.rmtree(checkout / ".git")
    assert commit(root=checkout) == "unknown"


def test_without_git_the_commit_is_unknown_and_training_ends(monkeypatch, tiny_experiment, tiny_manifest, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    train(tiny_experiment, tiny_manifest, "ce", 0, tmp_path / "run", tmp_path / "maps")
    assert json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["commit"] == "unknown"


def test_the_commit_is_asked_for_before_training(monkeypatch, tiny_experiment, tiny_manifest, tmp_path):
    def fails(*_):
        raise RuntimeError("asked")

    monkeypatch.setattr("shapeloss.runs.provenance.commit", fails)
    with pytest.raises(RuntimeError, match="asked"):
        train(tiny_experiment, tiny_manifest, "ce", 0, tmp_path / "run", tmp_path / "maps")
    assert not (tmp_path / "run" / "progress").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_disk_without_locks_stops_nothing(number, monkeypatch, tmp_path, capsys):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("shapeloss._files.fcntl.flock", refuse)
    with files.locked(tmp_path / "lock", "waiting"):
        (tmp_path / "done").touch()
    assert (tmp_path / "done").exists()
    assert capsys.readouterr().out == (
        f"{tmp_path / 'lock'}: cannot be locked ({os.strerror(number)}); do not start this command twice at a time\n"
    )


def test_a_lock_names_its_holder_while_it_is_held(tmp_path):
    with files.locked(tmp_path / "lock"):
        assert files._holder(tmp_path / "lock").startswith(f" (process {os.getpid()} on ")
    assert (tmp_path / "lock").read_bytes() == b""
    assert files._holder(tmp_path / "lock") == ""


def test_sweep_goes_as_deep_as_it_is_told_and_follows_no_link(tmp_path):
    places = [tmp_path / "a" / part / ".partial-x" for part in (".", "b", "b/c", "b/c/d")]
    outside = tmp_path / "other" / ".partial-x"
    for path in (*places, outside):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "a" / "link").symlink_to(outside.parent)
    for depth in range(3):
        files.remove_partial_files(tmp_path / "a", depth)
        assert [path.exists() for path in places] == [level > depth for level in range(4)]
    assert outside.exists()


BROKEN_ONCE = """#!/bin/sh
case "$*" in *venv*.venv*) if [ ! -e {mark} ]; then
  mkdir -p .venv/bin; ln -sf {python} .venv/bin/python; touch {mark}; echo broke off >&2; exit 1
fi;; esac
exec {python} "$@"
"""


def recipe(folder, *arguments, **variables):
    """Run make in a copy of what its first steps need."""
    for name in ("Makefile", "reproduce/python_check.py", "reproduce/alone.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    command = [MAKE, *arguments]
    environment = os.environ | variables
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False)


@needs_make
def test_an_environment_that_broke_off_is_completed_by_the_next_call(tmp_path):
    python, mark = shlex.quote(getattr(sys, "_base_executable", sys.executable)), shlex.quote(str(tmp_path / "mark"))
    (tmp_path / "python").write_text(BROKEN_ONCE.format(python=python, mark=mark))
    (tmp_path / "python").chmod(0o755)
    first = recipe(tmp_path / "a b", ".venv/.made", f"PYTHON={tmp_path / 'python'}")
    assert first.returncode
    assert "broke off" in first.stderr
    assert not (tmp_path / "a b" / ".venv" / ".made").exists()
    second = recipe(tmp_path / "a b", ".venv/.made", f"PYTHON={tmp_path / 'python'}")
    assert second.returncode == 0, second.stderr
    subprocess.run([tmp_path / "a b/.venv/bin/python", "-I", "-m", "pip", "--version"], check=True, capture_output=True)


SLOW_INSTALL = """#!/bin/sh
case "$*" in
  *"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python;;
  *"pip install"*) echo begin >> log; sleep 1; echo end >> log;;
  *"pip --version"*) ;;
  *) exec {python} "$@";;
esac
"""


@needs_make
def test_two_makes_at_once_set_the_environment_up_once(tmp_path):
    python = shlex.quote(getattr(sys, "_base_executable", sys.executable))
    (tmp_path / "python").write_text(SLOW_INSTALL.format(python=python))
    (tmp_path / "python").chmod(0o755)
    folder = tmp_path / "a b"
    folder.mkdir()
    for name in ("pyproject.toml", "constraints.txt"):
        (folder / name).touch()
    arguments = (folder, ".venv/.test", f"PYTHON={tmp_path / 'python'}")
    with ThreadPoolExecutor() as pool:
        both = [done.result() for done in [pool.submit(recipe, *arguments, ALONE="1") for _ in range(2)]]
    assert [done.returncode for done in both] == [0, 0], both
    assert (folder / "log").read_text().split() == ["begin", "end"]
    assert sum("Another make sets the environment up here: waiting" in done.stdout for done in both) == 1
    assert recipe(*arguments).stdout.count("Installing") == 0


def test_the_package_that_makes_environments_is_named(tmp_path):
    """As on a Debian without python3-venv: the module is missing, and nothing is begun."""
    check = (ROOT / "reproduce" / "python_check.py").read_text(encoding="utf-8")
    code = f"import sys\nsys.modules['ensurepip'] = None\n{check}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 1
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    assert f"has no module ensurepip: install it (Debian and Ubuntu: sudo apt install {package})" in done.stderr
    old = code.replace("import sys\n", "import sys\nsys.version_info = (3, 10, 0)\n", 1)
    done = subprocess.run([sys.executable, "-c", old], capture_output=True, encoding="utf-8", check=False)
    assert "Python 3.11 or newer is needed" in done.stderr
    assert done.stderr.count("\n") == 1


@needs_make
def test_make_passes_profile_and_data_on_as_they_are(tmp_path):
    (tmp_path / ".venv/bin").mkdir(parents=True)
    shown = "#!/bin/sh\nprintf '%s\\n' \"$@\"\nprintf 'PYTHONHOME=%s\\n' \"$PYTHONHOME\"\n"
    (tmp_path / ".venv/bin/python").write_text(shown)
    (tmp_path / ".venv/bin/python").chmod(0o755)
    for name in ("pyproject.toml", "constraints.txt", ".venv/.made", ".venv/.reproduce"):
        (tmp_path / name).touch()
    odd = '/a {x}/it\'s "b"/$HOME `id` #1/Å'
    done = recipe(tmp_path, "reproduce", f"PROFILE={odd}.yaml", f"DATA={odd}", PYTHONHOME="/nowhere")
    assert f"--profile={odd}.yaml" in done.stdout.splitlines(), done
    assert f"--data={odd}" in done.stdout.splitlines()
    assert "PYTHONHOME=" in done.stdout.splitlines()
    done = recipe(tmp_path, "reproduce", PROFILE="other", DATA="/other")
    assert "--profile=phantom" in done.stdout.splitlines()  # variables of the shell are no arguments
    assert "--data=" in done.stdout.splitlines()
    for name in ("", "..", "../figures", "a/b"):
        done = recipe(tmp_path, "clean", f"PROFILE={name}")
        assert done.returncode
        assert "PROFILE must be a name" in done.stderr


def test_the_page_on_custom_losses_is_true(tmp_path, monkeypatch, tiny_experiment, tiny_manifest):
    """Its file beside the profile, its rows: trained, with the file's hash in run.json and in the table's note."""
    page = (ROOT / "docs" / "custom-loss.md").read_text(encoding="utf-8")
    name = re.search(r"`(\w+)\.py`:", page)[1]
    (tmp_path / f"{name}.py").write_text(re.search(r"```python\n(.*?)```", page, re.S)[1], encoding="utf-8")
    values = json.loads(tiny_experiment.model_dump_json())
    values |= yaml.safe_load(re.search(r"```yaml\n(.*?)```", page, re.S)[1])
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop(name, None)
    experiment = load_experiment(tmp_path / "mine.yaml")
    for row in experiment.losses:
        train(experiment, tiny_manifest, row, 0, tmp_path / "runs" / row / "seed0", tmp_path / "maps")
    run = json.loads((tmp_path / "runs/tversky/seed0/run.json").read_text(encoding="utf-8"))
    digest = files.file_hash(tmp_path / f"{name}.py")
    assert run["custom_loss"] == {"class": f"{name}:Tversky", "code": digest, "file": f"{name}.py"}
    note = evaluation.provenance_line(experiment, tiny_manifest, tmp_path)
    assert f" Custom loss tversky: {name}.py, SHA-256 {digest[:16]}; border: {name}.py, SHA-256 {digest[:16]}." in note
    del sys.modules[name]


def test_a_custom_loss_in_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "lab_loss.py").write_text("from shapeloss.losses import DiceLoss\nclass Mine(DiceLoss): pass\n")
    (tmp_path / "wrong_loss.py").write_text("import no_such_package\n")
    (tmp_path / "odd_loss.py").write_text("class Mine:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    load_experiment(ROOT / "reproduce/profiles/smoke.yaml")
    importlib.invalidate_caches()
    assert custom_loss_source(build_loss("lab_loss:Mine", num_classes=4))["class"] == "lab_loss:Mine"
    assert provenance(loss=torch.nn.Identity())["commit"]
    with pytest.raises(ValueError, match=r"lab_loss\.py has no class 'Mien' \(did you mean 'Mine'\?\); it has Mine"):
        build_loss("lab_loss:Mien", num_classes=4)
    with pytest.raises(ValueError, match=r"ModuleNotFoundError in its module: No module named 'no_such_package'"):
        build_loss("wrong_loss:Mine", num_classes=4)
    with pytest.raises(ValueError, match=r"IndentationError in its module: .*odd_loss\.py, line 1"):
        build_loss("odd_loss:Mine", num_classes=4)
    with pytest.raises(ValueError, match=rf"is no module gone; put gone\.py beside .* {re.escape(str(tmp_path))}"):
        build_loss("gone:Mine", num_classes=4)


def test_the_users_matplotlibrc_changes_no_figure(tmp_path):
    def drawn(name):
        path, _ = style.save_figure(figure_training(history), tmp_path / name)
        return path.read_bytes()

    history = pd.DataFrame({"loss": "ce", "seed": 0, "step": [1, 2], "train_loss": [2.0, 1.0], "val_dice": [0.1, 0.5]})
    plain = drawn("plain")
    with matplotlib.rc_context({"figure.facecolor": "red", "lines.linewidth": 9, "axes.grid": True, "font.size": 30}):
        assert drawn("odd") == plain


def test_the_note_names_the_commits_of_training_and_evaluation():
    def commits(*trained):
        return evaluation.Provenance("hash", "sagittal", ("32-true",), "b", trained).commits

    assert commits("b") == "Commit: b."
    assert commits("a", "b") == "Commit: b; trained at a, b."


def test_a_notebook_before_its_results_says_what_to_run(tmp_path, tiny_experiment):
    from shapeloss.data.manifest import read_manifest

    with pytest.raises(FileNotFoundError, match=r"cases\.json does not exist: .*run make reproduce"):
        read_manifest(tmp_path / "cases.json")
    with pytest.raises(FileNotFoundError, match=r"run\.json does not exist: .*run make reproduce .*or notebook 02"):
        evaluation.read_runs(tiny_experiment, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"per_case\.csv does not exist: run notebook 03 first"):
        evaluation.read_scores(tmp_path)


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_by_hand_no_notebook_writes_committed_figures(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parameters = next("".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", []))
    values: dict[str, object] = {}
    exec(parameters, values)
    folders = {name: value for name, value in values.items() if name in ("results", "figures")}
    smoke = ("../results/smoke", "../results/smoke-study")
    assert all(any(Path(folder).is_relative_to(place) for place in smoke) for folder in folders.values()), folders


def test_files_that_are_younger_than_the_clock_get_its_time_in_their_order(tmp_path, capsys):
    old, first, second, outside = (tmp_path / name for name in ("old", "in/first", "in/second", "outside/file"))
    tomorrow = time.time() + 86_400
    for path, moment in ((old, 1e9), (first, tomorrow), (second, tomorrow + 1), (outside, tomorrow)):
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
        os.utime(path, (moment, moment))
    (first.parent / "link").symlink_to(outside)  # not of the project
    run.bring_back(tmp_path / "in")
    assert first.stat().st_mtime < second.stat().st_mtime <= time.time()
    assert time.time() - first.stat().st_mtime < 60
    assert outside.stat().st_mtime == tomorrow
    assert f"The clock was set back: 2 files were younger than it, such as {second}" in capsys.readouterr().out
    run.bring_back(tmp_path / "in", old.parent / "nowhere")
    assert old.stat().st_mtime == 1e9
    assert not capsys.readouterr().out


def test_a_time_that_cannot_be_changed_is_named(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("")
    os.utime(path, (time.time() + 86_400,) * 2)

    def refuse(*arguments, **options):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refuse)
    said = f"{path}: is younger than the clock, which is wrong or was set back; touch it"
    with pytest.raises(ValueError, match=re.escape(said)):
        run.bring_back(tmp_path)


def test_too_little_memory_for_a_library_is_said_to_be_that(tmp_path):
    """The kernel's message is of a mapped segment, and does not tell what lacked."""
    said = said_by_notebook("raise ImportError('libtorch_cpu.so: failed to map segment from shared object')", tmp_path)
    assert "shared object (the process may not have more memory: ulimit -v)" in said


def test_a_kernel_that_was_ended_is_named_with_what_to_do(tmp_path):
    said = said_by_notebook("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", tmp_path)
    assert said.splitlines()[-1] == (
        "made.ipynb: its kernel was ended from outside, often for lack of memory (Kernel died); run the same command "
        "again, which goes on from the last checkpoint"
    )
    assert "Traceback" not in said
    assert not (tmp_path / "made.ipynb").exists()


def test_a_kernel_that_cannot_say_what_failed_is_explained(tmp_path):
    """As where even the traceback finds no memory."""
    said = said_by_notebook("get_ipython()._showtraceback = lambda *arguments: None\nraise MemoryError", tmp_path)
    assert "CellExecutionError: its kernel could not say why, often for lack of memory; run the same command" in said


def test_a_full_disk_in_a_notebook_names_the_file_and_what_to_do(tmp_path):
    file = "/somewhere/maps/it's.npy"
    said = said_by_notebook(f"import errno\nraise OSError(errno.ENOSPC, 'No space left on device', {file!r})", tmp_path)
    assert "(cell 1 of" in said
    assert said.splitlines()[-1] == (
        f"the disk is full at {file}; free space and run the same command again, which goes on from there"
    )
    said = said_by_notebook("import errno\nraise OSError(errno.ENOSPC, 'No space left on device')", tmp_path)
    assert "the disk is full at" in said.splitlines()[-1]
    said = said_by_notebook("import errno\nraise OSError(errno.EIO, 'Input/output error', 'file')", tmp_path)
    assert said.splitlines()[-1].endswith("which holds everything up to there)")


def said_by_notebook(code, folder):
    """What notebook.py says of a notebook with one cell, which fails."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbformat.write(book, folder / "book.ipynb")
    command = [sys.executable, ROOT / "reproduce" / "notebook.py", folder / "book.ipynb", folder / "made.ipynb"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode
    return done.stderr


@pytest.mark.parametrize("name", ["run.py", "population.py"])
def test_windows_is_told_what_is_needed(name):
    """Not by an AttributeError of the first signal that it lacks."""
    code = "import runpy, signal, sys; del signal.SIGHUP; sys.path.insert(0, sys.argv[1]); sys.argv = sys.argv[2:]; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, ROOT / "reproduce", ROOT / "reproduce" / name]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=os.environ | {"PYTHONPATH": str(ROOT)})
    said = f"error: {ROOT / 'reproduce' / name} needs Linux or macOS, or WSL; see docs/reproducing.md\n"
    assert (done.returncode, done.stderr) == (1, said)
