"""The study's tables and sentences, on scores whose differences are known by hand, and the variations of a profile."""

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.project import ROOT

from shapeloss.replication.paper import read_paper
from shapeloss.replication.profile import load_experiment
from shapeloss.replication.study import (
    Study,
    budget_sentence,
    budget_table,
    contrast_table,
    crossed_table,
    difference_table,
    rate_table,
    read_study,
    spread_sentence,
    study_page,
)
from shapeloss.replication.study_figures import figure_budgets, figure_differences, figure_rates

BOUNDARY = "boundary_dice_in_plane"
# of each seed, about the loss's mean: their standard deviation is 0.01
SEEDS = np.array([-0.01, 0.0, 0.01, 0.0, 0.01, -0.01, 0.0, 0.01, 0.0, -0.01]) * np.sqrt(9 / 6)
VOLUMES = np.linspace(-0.02, 0.02, 6)


def trained(variation, loss, seeds, mean, steps=100, rate=0.01, dice=0.9):
    """The rows of per-case scores and of the list of trainings."""
    rng = np.random.default_rng(len(loss))
    rest = rng.normal(0, 0.001, len(VOLUMES))
    scores = [
        {"variation": variation, "loss": loss, "seed": seed, "case": f"c{v}", "structure": "mean",
         BOUNDARY: mean + SEEDS[seed] + VOLUMES[v] + rest[v] - rest.mean(),
         "dice": 0.9 + 0.1 * SEEDS[seed] + VOLUMES[v]}
        for seed in seeds
        for v in range(len(VOLUMES))
    ]  # fmt: skip
    runs = [
        {"variation": variation, "loss": loss, "seed": seed, "steps": steps, "learning_rate": rate, "best_step": steps,
         "validation_dice": dice, "commit": "0"}
        for seed in seeds
    ]  # fmt: skip
    return scores, runs


def study(*parts):
    scores = pd.DataFrame([row for part in parts for row in part[0]])
    runs = pd.DataFrame([row for part in parts for row in part[1]])
    return Study(scores, runs, pd.DataFrame([{"loss": "dpce", "near": 0.25, "mean": 1.5}]))


BASE = (
    trained("", "ce", range(5), 0.50),
    trained("", "dpce", range(5), 0.52),
    trained("", "dpce_shuffled", range(5), 0.505),
    trained("noise", "ce", range(5, 10), 0.50),
)


def test_differences_are_less_the_plain_loss_and_set_beside_the_noise():
    found = study(*BASE)
    table = difference_table(found, BOUNDARY).set_index("loss")
    assert table["difference"].to_dict() == pytest.approx({"dpce": 0.02, "dpce_shuffled": 0.005})
    assert found.noise(BOUNDARY).trainings == 10  # those of the table and of the noise
    assert found.noise(BOUNDARY).sd == pytest.approx(0.01)
    # t(9) · 0.01 · √(2 / 5) = 0.0143
    assert found.noise(BOUNDARY).between(5) == pytest.approx(2.262157 * 0.01 * np.sqrt(0.4))
    assert table["beyond"].to_dict() == {"dpce": True, "dpce_shuffled": False}
    assert table.loc["dpce", "low"] < 0.02 < table.loc["dpce", "high"]
    # the same seeds have the same part in both losses: what is left is the volumes' own
    assert table.loc["dpce", "sd_trainings"] == pytest.approx(0, abs=1e-9)


def test_contrasts_are_those_whose_losses_there_are():
    table = contrast_table(study(*BASE), BOUNDARY)
    assert table[["first", "second"]].to_numpy().tolist() == [["dpce", "ce"], ["dpce", "dpce_shuffled"]]
    assert table["difference"].tolist() == pytest.approx([0.02, 0.015])


def test_some_rows_less_a_reference():
    table = crossed_table(study(*BASE).of(), ["dpce", "dpce_shuffled"], "ce")
    assert table["difference"].tolist() == pytest.approx([0.02, 0.005, 0, 0], abs=1e-12)
    both = table["p"].tolist()[:2]
    assert table["p_holm"].tolist()[:2] == pytest.approx([2 * min(both), max(2 * min(both), max(both))])


def test_the_claimed_difference_is_that_of_the_paper():
    paper = read_paper(ROOT / "reproduce" / "paper.yaml")
    assert paper.smallest_claimed(BOUNDARY) == 0.02  # 0.29 against 0.27 of Dice and of focal
    with pytest.raises(ValueError, match="no claim of superiority about 'dice'"):
        paper.smallest_claimed("dice")


def test_the_page_answers_in_words():
    page = study_page(study(*BASE), 0.02, "from here")
    assert "10 trainings of `ce` that differ in the seed alone have means with a standard deviation of 0.0100" in page
    shuffled = next(line for line in page.splitlines() if "`dpce` less `dpce_shuffled`" in line)
    assert "| +0.0150 |" in shuffled
    assert shuffled.endswith("| higher; below the claimed 0.02 |")
    plain = next(line for line in page.splitlines() if "`dpce` less `ce`" in line)
    assert plain.endswith("| higher |")  # its interval goes beyond 0.02
    assert f"| dpce | {0.52 + SEEDS[:5].mean():.3f} | +0.0200 |" in page
    assert "| 25% | 1.50 |" in page
    assert "from here" in page
    assert "## More steps" not in page  # none were trained


STILL = (
    "From {} to {} steps no loss's boundary Dice moves by more than the noise of training. "
    "The table's 100 steps are {}."
)


@pytest.mark.parametrize(
    ("means", "sentence"),
    [
        # noise of five against five: 0.0143; of three against three: 0.0185
        ((0.50, 0.51, 0.52), STILL.format(100, 200, "that budget")),
        ((0.50, 0.52, 0.53), STILL.format(200, 400, "fewer")),
        (
            (0.50, 0.52, 0.54),
            "Even from 200 to 400 steps the boundary Dice of a loss moves by 0.0200, more than the noise of training: "
            "the table's 100 steps are no convergence.",
        ),
        # at 0.0170 the change of three trainings lies within their noise, beyond that of five
        ((0.50, 0.52, 0.537), STILL.format(200, 400, "fewer")),
    ],
)
def test_the_budget_is_the_one_whose_increase_moves_nothing(means, sentence):
    _, double, fourfold = means
    found = study(
        *BASE, trained("double", "ce", range(5), double, 200), trained("fourfold", "ce", range(3), fourfold, 400)
    )
    table = budget_table(found, BOUNDARY)
    assert table["steps"].tolist() == [100, 200, 400]
    assert table["seeds"].tolist() == [5, 5, 3]
    # the change is over the seeds that both have: the seeds' own parts leave it
    assert table["change"].tolist()[1:] == pytest.approx([double - 0.50, fourfold - double])
    assert table["noise"].tolist()[1:] == pytest.approx([2.262157 * 0.01 * np.sqrt(2 / n) for n in (5, 3)])
    assert budget_sentence(found) == sentence
    assert sentence in study_page(found, 0.02, "")


@pytest.mark.parametrize(("change", "moves"), [(0.0100, False), (0.0105, True), (-0.0105, True)])
def test_the_stricter_measure_is_the_spread_of_a_loss_s_own_trainings(change, moves):
    """The seeds' own parts have a standard deviation of 0.01025."""
    found = study(*BASE, trained("double", "ce", range(5), 0.50 + change, 200))
    spread = SEEDS[:5].std(ddof=1)
    assert (abs(change) > spread) == moves
    said = "200 steps none moves by more than the standard deviation of the means of its own trainings"
    if moves:
        said = f"200 move `ce` by {change:+.4f} (standard deviation {spread:.4f}), more than"
    assert said in spread_sentence(found)
    assert said in study_page(found, 0.02, "")


def test_the_rate_is_chosen_by_validation_and_compared_on_the_test_cases():
    found = study(
        *BASE[1:3],
        BASE[3],
        trained("", "ce", range(5), 0.50, dice=0.93),
        trained("slow", "ce", range(2), 0.49, rate=0.005, dice=0.91),
        trained("fast", "ce", range(2), 0.51, rate=0.02, dice=0.92),  # better on the test cases, not chosen
        trained("slow", "dpce", range(2), 0.53, rate=0.005, dice=0.95),
        trained("fast", "dpce", range(2), 0.54, rate=0.02, dice=0.92),
        trained("more", "dpce", range(2), 0.6, steps=200, dice=0.99),  # another number of steps is no other rate
    )
    table = rate_table(found, BOUNDARY)
    best = table[table["best"]].set_index("loss")
    assert best["learning_rate"].to_dict() == {"ce": 0.01, "dpce": 0.005}
    assert best.loc["dpce", "difference"] == pytest.approx(0.53 - 0.50)
    assert best.loc["dpce", "noise"] == pytest.approx(2.262157 * 0.01)  # of two trainings
    assert table[table["loss"] == "ce"]["learning_rate"].tolist() == [0.005, 0.01, 0.02]
    assert "| dpce | 0.525 | 0.515 | 0.535 | 0.005 | +0.0300 | 0.0226 |" in study_page(found, 0.02, "").replace(
        f"{0.53 + SEEDS[:2].mean():.3f}", "0.525"
    ).replace(f"{0.52 + SEEDS[:2].mean():.3f}", "0.515").replace(f"{0.54 + SEEDS[:2].mean():.3f}", "0.535")


def test_what_is_written_is_read_again(tmp_path):
    made = study(*BASE)
    made.of().drop(columns="variation").assign(extra=1).to_csv(tmp_path / "per_case.csv", index=False)
    made.scores[made.scores["variation"] != ""].to_csv(tmp_path / "per_case_variations.csv", index=False)
    made.trainings.to_csv(tmp_path / "trainings.csv", index=False)
    made.weights.to_csv(tmp_path / "weights.csv", index=False)
    assert study_page(read_study(tmp_path), 0.02, "") == study_page(made, 0.02, "")


def test_the_pictures_show_every_row():
    found = study(
        *BASE, trained("double", "ce", range(5), 0.51, 200),
        trained("fast", "ce", range(2), 0.51, rate=0.02), trained("fast", "dpce", range(2), 0.51, rate=0.02),
    )  # fmt: skip
    boundary, _ = figure_differences(found).axes
    names = [label.get_text() for label in boundary.get_yticklabels()]
    assert names == ["Cross-entropy, two trainings", "Distance-penalised CE", "with φ shuffled"]
    dots = boundary.lines[1].get_xdata()
    assert len(dots) == 2 * 45  # every two of ten, both ways
    rows = [line.get_xdata()[0] for line in boundary.lines[2:] if line.get_marker() == "o"]
    assert rows == pytest.approx([0.02, 0.005])
    assert len(figure_budgets(found).axes) == 2
    assert [t.get_text() for t in figure_rates(found).axes[0].get_yticklabels()] == [
        "Cross-entropy",
        "Distance-penalised CE",
    ]


@pytest.fixture
def profile(tmp_path):
    values = yaml.safe_load((ROOT / "reproduce" / "profiles" / "smoke-study.yaml").read_text(encoding="utf-8"))

    def write(**changes):
        path = tmp_path / "profile.yaml"
        path.write_text(yaml.safe_dump(values | changes, sort_keys=False), encoding="utf-8")
        return path

    return write


def test_a_variation_changes_what_it_names_and_nothing_else(profile):
    experiment = load_experiment(profile())
    double, noise = experiment.variation("double"), experiment.variation("noise")
    assert (list(double.losses), double.seeds, double.training.steps) == (["ce"], (0, 1), 40)
    assert (list(noise.losses), noise.seeds) == (["ce"], (2,))
    for varied in (double, noise):
        for section in ("data", "network", "postprocessing"):
            assert varied.canonical_json(section) == experiment.canonical_json(section)
    assert noise.canonical_json("training") == experiment.canonical_json("training")
    assert (experiment.runs_folder, double.runs_folder) == ("runs", "variations/double")
    assert experiment.variation("") is experiment


@pytest.mark.parametrize(
    ("variations", "message"),
    [
        ({"more": {"losses": ["dpec"]}}, r"variations\.more\.losses: dpec is no row of losses: ce, dpce"),
        (
            {"more": {"training": {"stepz": 3}}},
            r"variations\.more\.training has no key stepz; known keys: steps, learning",
        ),
        ({"more": {"training": {"steps": 0}}}, r"variations\.more\.training: steps must be 1 or more, got 0"),
        ({"more": {"seed": [1]}}, r"variations\.more\.seed: unknown key; did you mean 'seeds'\?"),
        ({"a/b": {}}, r"names of letters, digits, _ and -, .*; got 'a/b'"),
    ],
)
def test_faults_of_a_variation_are_named(variations, message, profile):
    with pytest.raises(ValueError, match=message):
        load_experiment(profile(variations=variations))


def test_a_variation_that_there_is_not(profile):
    with pytest.raises(ValueError, match="no variation 'triple'; profile smoke-study has noise, double, fast"):
        load_experiment(profile()).variation("triple")
