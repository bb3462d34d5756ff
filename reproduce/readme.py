"""Fill the generated parts of README.md and of pages in docs: tables and captions (`make readme`)."""

from __future__ import annotations

import json
import re
import statistics
import textwrap
import tomllib
from pathlib import Path

import pandas as pd
import slurm_resources
import yaml
from benchmarks import accuracy, biomarkers, population

from shapeloss._files import write_text
from shapeloss.metrics import definition_table
from shapeloss.metrics.biomarkers import biomarker_table
from shapeloss.replication.convergence import budget_note, read_cited_study
from shapeloss.replication.profile import load_experiment
from shapeloss.replication.scores import read_record, read_scores

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(
        ROOT / "docs" / f"{name}.md"
        for name in (
            "deviations",
            "results",
            "metrics",
            "biomarkers",
            "known-bugs",
            "study",
            "multi-task",
            "cluster",
            "faults",
            "population",
        )
    ),
)


def blocks() -> dict[str, str]:
    """Name of each generated part and its text."""
    tables = {"table": "table1.md", "exact": "table_exact.md", "study": "study/study.md"}
    tables |= {"multi_task": "multi-task/multi_task.md"}
    texts = {name: (ROOT / "figures" / path).read_text(encoding="utf-8") for name, path in tables.items()}
    profile = ROOT / "reproduce" / "profiles" / "phantom.yaml"
    scores = read_scores(ROOT / "figures")
    data_hash = read_record(ROOT / "figures")["provenance"]["data_hash"]
    budget = budget_note(load_experiment(profile), scores, read_cited_study(profile, data_hash))
    texts |= {
        "definitions": definition_table(),
        "flavours": flavours(),
        "biomarkers": biomarker_table(),
        "measures": measures(),
        "budget": budget,
        "short": short_table(budget),
        "resources": slurm_resources.page(pd.read_csv(ROOT / "reproduce" / "slurm" / "measured.csv")),
        "cluster": cluster(),
        "chaos": chaos(),
        "versions": versions(),
    }
    texts |= population.page(json.loads(population.FILE.read_text(encoding="utf-8")))
    return texts | {f"bugs_{part}": known_bugs(*folders) for part, folders in BUGS.items()} | {"mutants": mutants()}


def cluster() -> str:
    """What the last `make test-cluster` saw."""
    path = ROOT / "tests" / "cluster" / "log.json"
    if not path.is_file():
        return "No whole run has been recorded yet."
    log = json.loads(path.read_text(encoding="utf-8"))
    killed, seconds = log["killed"], log["seconds"]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(log["versions"].items()))
    lines = ["|Step|Nodes, in order|", "|---|---|"]
    for step, nodes in log["nodes"].items():
        lines.append(f"|{step.replace('_wildcards_', ' ').replace('_', ' ')}|{', '.join(nodes)}|")
    happened = (
        f"Node {killed['node']} was killed when the training with {killed['training']} had done step "
        f"{killed['at_step']}. Slurm gave it up after {seconds['noticed']} s (SlurmdTimeout: {log['timeout']} s). "
        f"After {seconds['again']} s the training ran again on the other node, by {killed['by']}, from its checkpoint "
        f"at step {killed['from_step']}. The whole run took {seconds['all']} s. Equal byte for byte to the run on one "
        f"machine: {', '.join(log['equal'])}. Runs ended by SIGTERM and by SIGKILL left no job behind."
    )
    return "\n".join([*lines, "", happened, "", f"Commit {log['commit'][:12]}; {versions}."])


def chaos() -> str:
    """What `make chaos` tried last, and what came of it."""
    path = ROOT / "tests" / "jobs" / "chaos.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    soak = record.pop("soak", None)
    lines = ["|Fault|Times|The next run|What was said, or which processes died|", "|---|---|---|---|"]
    outcomes = [outcome for trial in record.values() for outcome in trial["outcomes"]]
    for outcome in outcomes:
        cells = [outcome["tried"], outcome["times"], outcome["ended"], outcome["detail"].replace("|", r"\|")]
        lines.append(f"|{'|'.join(map(str, cells))}|")
    lost = sum(outcome["times"] for outcome in outcomes if outcome["ended"] == "lost")
    commits = ", ".join(sorted({trial["commit"] for trial in record.values()}))
    tried = sum(outcome["times"] for outcome in outcomes)
    lines += ["", f"Tried: {tried} faults; lost: {lost or 'nothing'}. Commit {commits}."]
    trials = re.search(r"^TRIALS = \((.*)\)", path.with_suffix(".py").read_text(encoding="utf-8"), re.MULTILINE)
    if trials and (missing := [name for name in trials[1].split(", ") if name not in record]):
        lines[-1] += f" Not recorded yet: {', '.join(missing)}."
    if soak is None:
        return "\n".join([*lines, "", "The soak has not been recorded yet."])
    lines += ["", f"After {soak['runs']} runs in a row, from nothing each (commit {soak['commit']}):", ""]
    lines += ["||After the first|After the last|More allowed|", "|---|---|---|---|"]
    allowed = soak["allowed"]
    lines += [f"|{name}|{value}|{soak['last'][name]}|{allowed[name]}|" for name, value in soak["first"].items()]
    return "\n".join(lines)


def versions() -> str:
    """Which versions of Python and of the direct dependencies the unit tests passed with last, by `make versions`."""
    path = ROOT / "tests" / "jobs" / "versions.json"
    if not path.is_file():
        return "No run has been recorded yet."
    runs = json.loads(path.read_text(encoding="utf-8"))
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    supported = jobs["test"]["strategy"]["matrix"]["python"]
    lines = ["|Python|Dependencies|Tests|Passed|Failed|Skipped|Commit|", "|---|---|---|---|---|---|---|"]
    for run in runs:
        cells = [run[key] for key in ("passed", "failed", "skipped", "commit")]
        first = [run["python"], run["resolution"], ", ".join(f"`{name}`" for name in run["tests"])]
        lines.append(f"|{'|'.join(map(str, [*first, *cells]))}|")
    for run in runs:
        found = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        lines += ["", f"Python {run['python']}, {run['resolution']}: {found}."]
        if raised := run.get("raised"):
            others = [f"{name} {why['taken']} for {why['declared']} ({why['why']})" for name, why in raised.items()]
            lines.append(f"Not the lower bound, but the next that can be had: {', '.join(others)}.")
        if left_out := run.get("left_out"):
            tests = [f"`{test.split('::')[-1]}` ({why})" for test, why in left_out.items()]
            lines.append(f"Left out there: {', '.join(tests)}.")
    tried = {tuple(run["python"].split(".")[:2]) for run in runs}
    missing = [python for python in supported if tuple(python.split(".")) not in tried]
    if missing:
        lines += ["", f"Not recorded yet: Python {', '.join(missing)}."]
    systems = ", ".join(sorted({run["system"] for run in runs}))
    return "\n".join([*lines, "", f"Run on {systems}; tests marked slow are left out."])


def flavours() -> str:
    """How far the mean distance of each flavour is from the truth, and what each costs, as measured."""
    found = json.loads((ROOT / "reproduce" / "benchmarks" / "accuracy.json").read_text(encoding="utf-8"))
    names = ("voxels", "elements", "mesh")
    errors = {
        (row["shape"], row["spacing"], row["gap"], row["library"]): statistics.median(row["errors"]["MASD"])
        for row in found["rows"]
        if row["library"] in names
    }
    lines = [f"|Shape|Voxel|Gap, mm|{'|'.join(name.capitalize() for name in names)}|", "|---|---|---|---|---|---|"]
    for shape, spacing, gap in dict.fromkeys(key[:3] for key in errors):
        if gap in (1, 3) and not shape.startswith(("eccentric", "shells")):
            cells = [f"{errors[shape, spacing, gap, name]:+.1f} %" for name in names]
            lines.append(f"|{shape}|{spacing}|{gap:g}|{'|'.join(cells)}|")
    cost = " and ".join(f"{found['times']['ratio'][name]:.1f} ({name})" for name in ("voxels", "mesh"))
    lines += ["", f"MASD against the truth. Time against that of the elements: {cost}.", "", accuracy.SUMMARY, ""]
    return "\n".join([*lines, *accuracy.summary(accuracy.table_of(found), list(names))])


def measures() -> str:
    """How exact some of the biomarkers are themselves, as measured."""
    rows = pd.read_csv(ROOT / "reproduce" / "benchmarks" / "biomarkers.csv")
    names = ("notch_width_mm", "posterior_radius_medial_mm", "tibial_slope_medial_deg", "patellar_height_mm")
    return "\n".join(biomarkers.summary(rows[rows["biomarker"].isin(names)]))


BUGS = {
    "phi": ("shapeloss/distance.py",),
    "losses": ("shapeloss/losses/",),
    "metrics": ("shapeloss/metrics/",),
    "training": ("shapeloss/train.py", "shapeloss/predict.py", "shapeloss/vnet.py"),
    "statistics": ("shapeloss/stats/", "shapeloss/replication/claims.py", "shapeloss/review/audit/"),
}
"""Part of the catalogue of known bugs → the files that it is about."""


def known_bugs(*files: str) -> str:
    """The entries of tests/mutations about some files, as a table."""
    lines = ["|Bug|Why it is wrong|Seen by|", "|---|---|---|"]
    for path in sorted((ROOT / "tests" / "mutations").glob("*.toml")):
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["mutation"]:
            if entry["file"].startswith(files):
                cells = [entry["name"], entry["why"], f"`{entry['test'].split('::')[-1]}`"]
                lines.append(f"|{'|'.join(cell.replace('|', chr(92) + '|') for cell in cells)}|")
    return "\n".join(lines)


def mutants() -> str:
    """What `make mutants` counted last, as a table with totals."""
    counts = pd.read_csv(ROOT / "tests" / "mutations" / "mutmut.csv").set_index("module")
    counts = counts[counts["mutants"] > 0]
    counts.loc["all"] = counts.sum()
    lines = ["|Module|Mutants|Noticed|Not noticed|of these in messages|Not run|", "|---|---|---|---|---|---|"]
    for module, row in counts.iterrows():
        noticed = f"{row['killed']} ({row['killed'] / row['mutants']:.0%})"
        name = "all" if module == "all" else f"`{module}`"
        cells = [name, row["mutants"], noticed, row["survived"], row["in_messages"], row["not_run"]]
        lines.append(f"|{'|'.join(map(str, cells))}|")
    return "\n".join(lines)


def short_table(budget: str) -> str:
    """The means of the default run's table, for the README, and a sentence that says where they come from."""
    table = pd.read_csv(ROOT / "figures" / "table1.csv")
    lines = ["|Loss|Boundary Dice|Paper|Global Dice|Paper|", "|---|---|---|---|---|"]
    for row in table.to_dict("records"):
        cells = [str(row["loss"])]
        for metric in ("boundary_dice_in_plane", "dice"):
            cells.append(f"{row[f'{metric}_mean']:.3f} ± {row[f'{metric}_sd']:.3f}")
            paper = row[f"{metric}_paper_mean"], row[f"{metric}_paper_sd"]
            cells.append("–" if pd.isna(paper[0]) else f"{paper[0]:.2f} ± {paper[1]:.2f}")
        lines.append(f"|{'|'.join(cells)}|")
    caption = (ROOT / "figures" / "table1.md").read_text(encoding="utf-8")
    source = [f"{key.lower()} {match[1]}" for key in ("Profile", "Seeds", "Commit")
              if (match := re.search(rf"{key}: ([^.]*)\.", caption))]  # fmt: skip
    first = f"Mean ± SD over {table['n'].max()} test volumes ({', '.join(source)}). {budget.split('. ')[0]}."
    return "\n".join([*lines, "", first])


def filled(text: str) -> str:
    """A page with each part between `<!-- name:begin -->` and `<!-- name:end -->` made anew.

    Raises:
        ValueError: a marker of no known name.
    """
    texts = blocks()

    def fill(match: re.Match[str]) -> str:
        if match["name"] not in texts:
            raise ValueError(f"<!-- {match['name']}:begin --> names no generated part; known are {', '.join(texts)}")
        part = textwrap.indent(texts[match["name"]].strip(), match["indent"])
        return f"{match['begin']}{part}\n{match['end']}"

    pattern = r"(?P<begin>(?P<indent> *)<!-- (?P<name>\w+):begin -->\n).*?(?P<end> *<!-- (?P=name):end -->)"
    return re.sub(pattern, fill, text, flags=re.S)


if __name__ == "__main__":
    for page in PAGES:
        write_text(page, filled(page.read_text(encoding="utf-8")))
