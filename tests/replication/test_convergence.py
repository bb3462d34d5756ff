"""What a caption cites from the study, on scores whose differences are known by hand."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from shapeloss._files import write_json
from shapeloss.replication.convergence import budget_note, read_cited_study
from shapeloss.replication.profile import load_experiment

PROFILES = Path(__file__).parents[2] / "reproduce" / "profiles"
CASES = [f"case{number}" for number in range(4)]
STEPS = {"": 350, "noise": 350, "double": 700}


def scores(boundary, seed=0):
    rows = [
        {"case": case, "loss": loss, "seed": seed, "structure": structure, "boundary_dice_in_plane": value + wrong}
        | {"dice": value + 0.4}
        for loss, value in boundary.items()
        for case in CASES
        for structure, wrong in (("femur", 0.1), ("mean", 0.0))  # only the means count
    ]
    return pd.DataFrame(rows)


def study_scores(variation):
    """ce has 0.50, 0.52 and, in the noise, 0.54: an SD of 0.02. Twice the steps move it by 0.03, and dpce by 0.01."""
    if variation == "noise":
        return scores({"ce": 0.54}, seed=2)
    more = {"ce": 0.03, "dpce": 0.01} if variation == "double" else {"ce": 0.0, "dpce": 0.0}
    parts = [scores({"ce": ce + more["ce"], "dpce": 0.51 + more["dpce"]}, seed) for seed, ce in enumerate((0.50, 0.52))]
    return pd.concat(parts)


@pytest.fixture
def project(tmp_path):
    """A profile of 350 steps that names a study, and the study's measurements."""
    folder, figures = tmp_path / "reproduce" / "profiles", tmp_path / "figures" / "more"
    folder.mkdir(parents=True)
    figures.mkdir(parents=True)
    values = yaml.safe_load((PROFILES / "phantom.yaml").read_text(encoding="utf-8"))
    values |= {"name": "short", "study": "more", "training": {"steps": 350, "learning_rate": 5e-3}}
    (folder / "short.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    values |= {"name": "more", "study": "", "losses": ["ce", "dpce"], "seeds": [0, 1]}
    values["variations"] = {"noise": {"losses": ["ce"], "seeds": [2]}, "double": {"training": {"steps": 700}}}
    (folder / "more.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    experiment = load_experiment(folder / "more.yaml").model_dump(mode="json")
    write_json(figures / "evaluation.json", {"experiment": experiment, "provenance": {"data_hash": "d1"}})
    tables = {name: study_scores(name) for name in STEPS}
    tables[""].to_csv(figures / "per_case.csv", index=False)
    varied = [table.assign(variation=name) for name, table in tables.items() if name]
    pd.concat(varied).to_csv(figures / "per_case_variations.csv", index=False)
    trainings = [
        {"variation": name, "loss": loss, "seed": seed, "steps": STEPS[name], "learning_rate": 5e-3}
        for name, table in tables.items()
        for loss, seed in table.groupby(["loss", "seed"]).groups
    ]
    pd.DataFrame(trainings).to_csv(figures / "trainings.csv", index=False)
    pd.DataFrame(columns=["loss", "near", "mean"]).to_csv(figures / "weights.csv", index=False)
    return folder


def note(project, boundary, data_hash="d1"):
    experiment = load_experiment(project / "short.yaml")
    return budget_note(experiment, scores(boundary), read_cited_study(project / "short.yaml", data_hash))


def test_a_caption_says_what_the_seed_and_more_steps_change(project):
    # between one training and another: t(0.975, 2) × 0.02 × √2 = 4.3027 × 0.0283
    assert note(project, {"dpce": 0.50, "dice": 0.53, "ce": 0.46}) == (
        "The losses are compared after 350 steps, one training each. Of 3 trainings of `ce` that differ in the seed "
        "alone (profile more), two differ by 0.020 in boundary Dice in the median and by up to 0.040; one training and "
        "another differ by less than 0.122 in 95 of 100 repetitions. The largest difference between two losses here is "
        "0.070. Over 2 seeds, 700 steps change the boundary Dice: that of `ce` by +0.030 and that of `dpce` by +0.010."
    )


def test_several_seeds_say_how_much_they_differ(project):
    path = project / "short.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text(encoding="utf-8")) | {"seeds": [0, 1]}))
    # the means of ce over cases are 0.46 and 0.48: SD 0.02 / √2; of dpce twice the same
    rows = pd.concat([scores({"dpce": 0.5, "ce": 0.46}), scores({"dpce": 0.5, "ce": 0.48}, seed=1)])
    text = budget_note(load_experiment(path), rows, read_cited_study(path, "d1"))
    assert "350 steps, 2 trainings each." in text
    assert "the means of 2 trainings and of 2 others differ by less than 0.086 in" in text  # 0.122 / √2
    assert "The standard deviation over seeds is 0.000 to 0.014." in text


def test_a_study_without_more_steps_is_silent_about_them(project):
    figures = project.parents[1] / "figures" / "more"
    for name in ("per_case_variations.csv", "trainings.csv"):
        table = pd.read_csv(figures / name, keep_default_na=False)
        table[table["variation"] != "double"].to_csv(figures / name, index=False)
    assert note(project, {"dpce": 0.50, "ce": 0.46}).endswith(
        "The largest difference between two losses here is 0.040."
    )


def test_a_study_of_other_data_is_not_cited(project):
    assert note(project, {"dpce": 0.50, "ce": 0.46}, data_hash="d2") == (
        "The losses are compared after 350 steps. How much the seed and more steps move them was studied with other "
        "data (profile more), which says nothing here."
    )


def test_without_a_study_convergence_is_not_known(project):
    assert read_cited_study(project / "more.yaml", "d1") is None
    assert budget_note(load_experiment(project / "more.yaml"), scores({"ce": 0.5, "dpce": 0.6})) == (
        "The losses are compared after 350 steps; no run with more steps shows whether they have converged."
    )


@pytest.mark.parametrize(
    ("section", "values"),
    [("network", {"options": {"widths": [8, 16, 32]}}), ("training", {"steps": 350, "learning_rate": 1e-4})],
)
def test_a_study_of_other_trainings_is_refused(project, section, values):
    record = project.parents[1] / "figures" / "more" / "evaluation.json"
    content = json.loads(record.read_text(encoding="utf-8"))
    content["experiment"][section] = values
    write_json(record, content)
    with pytest.raises(ValueError, match=f"'study' names more, whose section {section} differs; make them equal"):
        read_cited_study(project / "short.yaml", "d1")


def test_a_missing_study_is_named_with_the_command_that_makes_it(project):
    (project.parents[1] / "figures" / "more" / "evaluation.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"evaluation.json: is missing; make it by make reproduce PROFILE=more"):
        read_cited_study(project / "short.yaml", "d1")
