"""Evaluations of parts of a study, put together: what a run of the whole would have written, byte for byte."""

import pandas as pd
import pytest
from helpers.commands import call
from helpers.project import ROOT

from shapeloss.data.checksums import read_checked_json, write_checked_json
from shapeloss.replication.analysis import read_evaluation, record_measured
from shapeloss.replication.combine import TABLES, combine
from shapeloss.replication.profile import Variation
from shapeloss.replication.scores import RECORD
from shapeloss.replication.study import TRAININGS, VARIATIONS, WEIGHTS

WHOLE = ROOT / "figures" / "study"


def part(folder, seeds, losses=(), variations=True):
    """The committed study, less some of its trainings."""
    folder.mkdir()
    evaluation = read_evaluation(WHOLE)
    experiment = evaluation.experiment
    rows = {row: options for row, options in experiment.losses.items() if row in (losses or experiment.losses)}
    experiment = experiment.model_copy(
        update={"losses": rows, "seeds": seeds, "variations": experiment.variations if variations else {}}
    )
    for table in TABLES:
        values = pd.read_csv(WHOLE / table.name, dtype=str, keep_default_na=False)
        varied = values["variation"] != "" if "variation" in values else pd.Series(False, values.index)
        of_table = values["loss"].isin([*rows, "reader"])
        if "seed" in values:
            of_table &= values["seed"].isin([str(seed) for seed in seeds])
        kept = values[(of_table & ~varied) | (varied & variations)]
        if len(kept):
            kept.to_csv(folder / table.name, index=False)
    record_measured(folder, experiment, evaluation.provenance)
    return folder


@pytest.fixture(scope="module")
def whole():
    return read_evaluation(WHOLE).experiment


def test_parts_give_what_one_run_would_have_written(tmp_path, whole):
    """Other seeds in one part, other rows in another, in an order that is not the table's."""
    late = part(tmp_path / "late", seeds=(2, 3, 4))
    others = part(
        tmp_path / "others", seeds=(0, 1), losses=("pcol", "mtl", "dice", "focal", "dpce_constant"), variations=False
    )
    first = part(
        tmp_path / "first", seeds=(0, 1), losses=("ce", "dpce", "dpce_reversed", "dpce_shuffled"), variations=False
    )
    combine(whole, [late, others, first], tmp_path / "made")
    for table in TABLES:
        if table.name != WEIGHTS:  # a row of it has no seed
            assert (tmp_path / "made" / table.name).read_bytes() == (WHOLE / table.name).read_bytes(), table.name
    assert (tmp_path / "made" / WEIGHTS).read_bytes() == (WHOLE / WEIGHTS).read_bytes()
    made, committed = (read_evaluation(folder) for folder in (tmp_path / "made", WHOLE))
    assert made.experiment == committed.experiment
    assert made.provenance.trained == committed.provenance.trained


def test_the_machines_of_all_parts_are_kept_once(tmp_path, whole):
    folders = [
        part(tmp_path / f"of{seeds[0]}", seeds=seeds, variations=2 in seeds) for seeds in ((0,), (1,), (2, 3, 4))
    ]
    gpu, cpu = ({"node": "a", "processor": "GPU", "versions": {"torch": "2"}}, {"node": "b", "processor": "AVX2"})
    for folder, machines in zip(folders, ([gpu], [gpu, cpu], None), strict=True):
        record = read_checked_json(folder / RECORD)
        del record["provenance"]["machines"]
        if machines:
            record["provenance"]["machines"] = machines  # else as an earlier version wrote it
        write_checked_json(folder / RECORD, record)
    combine(whole, folders, tmp_path / "made")
    assert read_evaluation(tmp_path / "made").provenance.machines == (gpu, cpu)


def test_what_is_in_no_part_is_named(tmp_path, whole):
    few = part(tmp_path / "few", seeds=(0, 1, 2, 3))
    with pytest.raises(ValueError, match=r"per_case.csv: no part has ce \(seed 4\), dpce \(seed 4\), .*train the rest"):
        combine(whole, [few], tmp_path / "made")
    more = whole.model_copy(
        update={"seeds": (0, 1), "variations": whole.variations | {"late": Variation(losses=("ce",), seeds=(11,))}}
    )
    with pytest.raises(ValueError, match=rf"{VARIATIONS}: no part has ce \(seed 11, variation late\)"):
        combine(more, [few], tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_a_training_that_differs_between_parts_is_named(tmp_path, whole):
    one, two = part(tmp_path / "one", seeds=whole.seeds), part(tmp_path / "two", seeds=(2,), variations=False)
    combine(whole, [one, two], tmp_path / "made")  # equal ones are no problem
    table = pd.read_csv(two / TRAININGS, dtype=str, keep_default_na=False)
    table.assign(commit="another").to_csv(two / TRAININGS, index=False)
    combine(whole, [one, two], tmp_path / "made")  # nor is another commit
    table["best_step"] = table["best_step"].where(table["loss"] != "dice", "1")
    table.to_csv(two / TRAININGS, index=False)
    with pytest.raises(ValueError, match=r"two.trainings.csv: dice \(seed 2\) is not what .*one.trainings.csv has"):
        combine(whole, [one, two], tmp_path / "made")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda r: r["experiment"]["training"].update(steps=1), "differs from study in training"),
        (lambda r: r["provenance"].update(data_hash="0"), "is of other data than .*one: its data_hash is '0'"),
        (lambda r: r["provenance"].update(precisions=["32-true"]), "is of another precision than .*not .'bf16-mixed'"),
        (
            lambda r: r["experiment"]["losses"].update(focal={"gamma": 9.0}),
            "focal has other options than in the profile",
        ),
    ],
)
def test_a_part_of_another_kind_is_refused(tmp_path, whole, change, problem):
    one, two = part(tmp_path / "one", seeds=(0, 1, 2)), part(tmp_path / "two", seeds=(0,))
    record = read_checked_json(two / RECORD)
    change(record)
    write_checked_json(two / RECORD, record)
    with pytest.raises(ValueError, match=problem):
        combine(whole, [one, two], tmp_path / "made")


def test_the_command_writes_everything_that_follows_from_the_scores(tmp_path, monkeypatch):
    """The smaller profile: cross-entropy and the penalty, three seeds, no variations but the noise."""
    profile = tmp_path / "few.yaml"
    text = (ROOT / "reproduce" / "profiles" / "study.yaml").read_text(encoding="utf-8")
    head, _, rest = text.partition("losses:")
    network = rest[rest.index("network:") : rest.index("variations:")]
    varied = "variations:\n  noise: {losses: [ce], seeds: [5, 6, 7]}\n"
    profile.write_text(f"{head}losses: {{ce: {{}}, dpce: {{}}}}\nseeds: [0, 1]\n{network}{varied}", encoding="utf-8")
    made = tmp_path / "made"
    assert not call(monkeypatch, "combine", WHOLE, "--profile", profile, "--output", made)
    assert "| dpce |" in (made / "study.md").read_text(encoding="utf-8")
    for name in ("table1.md", "claims.md", "differences.png", "scores.png"):
        assert (made / name).is_file(), name
    assert not call(monkeypatch, "reanalyze", made)
