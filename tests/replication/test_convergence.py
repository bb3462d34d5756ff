"""How far from convergence a table is, on scores whose differences are known by hand."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from shapeloss.replication.convergence import budget_note, read_longer
from shapeloss.replication.profile import load_experiment

PROFILES = Path(__file__).parents[2] / "reproduce" / "profiles"
CASES = [f"case{number}" for number in range(6)]
SHORT = {"dpce": 0.50, "dice": 0.53, "ce": 0.46}
LONG = {"dpce": 0.675, "ce": 0.674}


def scores(boundary, dice, seed=0):
    rows = [
        {"case": case, "loss": loss, "seed": seed, "structure": structure, "boundary_dice_in_plane": value + wrong}
        | {"dice": dice + wrong}
        for loss, value in boundary.items()
        for case in CASES
        for structure, wrong in (("femur", 0.1), ("mean", 0.0))  # only the means count
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def project(tmp_path):
    """A profile of 350 steps that names one of 1050, with its scores."""
    folder = tmp_path / "reproduce" / "profiles"
    folder.mkdir(parents=True)
    values = yaml.safe_load((PROFILES / "phantom.yaml").read_text(encoding="utf-8"))
    values["training"] = {"steps": 350, "learning_rate": 5e-3}
    long = values | {"name": "long", "losses": ["dpce", "ce"], "training": values["training"] | {"steps": 1050}}
    long.pop("longer", None)
    (folder / "short.yaml").write_text(yaml.safe_dump(values | {"name": "short", "longer": "long"}), encoding="utf-8")
    (folder / "long.yaml").write_text(yaml.safe_dump(long), encoding="utf-8")
    (tmp_path / "figures" / "long").mkdir(parents=True)
    scores(LONG, 0.967).to_csv(tmp_path / "figures" / "long" / "per_case.csv", index=False)
    return folder


def change(path, **values):
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def test_a_fixed_budget_is_said_with_what_more_steps_give(project):
    note = budget_note(
        load_experiment(project / "short.yaml"), scores(SHORT, 0.937), read_longer(project / "short.yaml")
    )
    assert note == (
        "The losses are compared at a fixed, small budget of 350 steps, not at convergence. With 1050 steps (profile "
        "long, seeds: 0) the boundary Dice goes, for dpce from 0.500 to 0.675 and ce from 0.460 to 0.674; the global "
        "Dice, for dpce from 0.937 to 0.967 and ce from 0.937 to 0.967. More steps move a loss by up to +0.214 in "
        "boundary Dice; the largest difference between two losses at 350 steps is 0.070. At 1050 steps the boundary "
        "Dice of dpce less that of ce is +0.001 (p = 0.031). That is one training a loss: another seed or another "
        "processor may reverse it."
        # six equal differences: p = 2 / 2⁶
    )


def test_steps_that_move_less_than_losses_differ_are_no_small_budget(project):
    note = budget_note(
        load_experiment(project / "short.yaml"),
        scores({"dpce": 0.68, "dice": 0.60, "ce": 0.67}, 0.96),
        read_longer(project / "short.yaml"),
    )
    assert note.startswith("The losses are compared at a fixed budget of 350 steps. With 1050 steps")
    assert (
        "More steps move a loss by up to -0.005 in boundary Dice; the largest difference between two losses at 350 "
        in (note)
    )


def test_several_seeds_say_how_much_they_differ(project):
    change(project / "short.yaml", seeds=[0, 1])
    # the means of ce over cases are 0.46 and 0.48: SD 0.02 / √2; of the others twice the same
    rows = pd.concat([scores(SHORT, 0.93), scores({**SHORT, "ce": 0.48}, 0.93, seed=1)])
    note = budget_note(load_experiment(project / "short.yaml"), rows, read_longer(project / "short.yaml"))
    assert "The standard deviation over seeds is 0.000 to 0.014." in note


def test_without_a_longer_run_convergence_is_not_known(project):
    assert read_longer(project / "long.yaml") is None
    assert budget_note(load_experiment(project / "long.yaml"), scores(LONG, 0.967)) == (
        "The losses are compared after 1050 steps; no run with more steps shows whether they have converged."
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {"steps": 350, "learning_rate": 5e-3}}, "has 350 steps; more than 350 were expected"),
        ({"data": {"split": {"train": 3}}}, "section data differs"),
        ({"network": {"options": {"widths": [8, 16, 32]}}}, "section network differs"),
        ({"training": {"steps": 1050, "learning_rate": 1e-4}}, "section training differs"),
    ],
    ids=["steps", "data", "network", "rate"],
)
def test_a_run_that_differs_in_more_than_its_steps_is_refused(project, values, message):
    change(project / "long.yaml", **values)
    with pytest.raises(ValueError, match=message):
        read_longer(project / "short.yaml")


def test_missing_scores_are_named_with_the_command_that_makes_them(project):
    (project.parents[1] / "figures" / "long" / "per_case.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"per_case.csv: is missing; make it by make reproduce PROFILE=long"):
        read_longer(project / "short.yaml")
    (project / "long.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no profile .*long.yaml"):
        read_longer(project / "short.yaml")
