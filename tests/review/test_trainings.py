"""What own trainings measure: correlations, noise and SDs, against SciPy, statsmodels and simulation."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from helpers.project import load_script
from scipy import special, stats

from shapeloss.replication.paper import read_paper
from shapeloss.review.audit.paper import audit_markdown, audit_paper, conclusions
from shapeloss.review.audit.trainings import (
    Noise,
    SdComparison,
    benchmark_noise,
    benchmark_text,
    fit_sd,
    measure_correlations,
    read_correlations,
    read_trainings,
    summarise_trainings,
    training_noise,
)

ROOT = Path(__file__).resolve().parents[2]
REPRODUCE = ROOT / "reproduce"
SEEDS = ROOT / "figures" / "study" / "per_case.csv"


def per_case(losses=("a", "b", "c"), seeds=3, cases=12, seed=0):
    rng = np.random.default_rng(seed)
    case = rng.normal(0.9, 0.03, cases)
    rows = [
        {"loss": loss, "seed": s, "case": f"c{c}", "structure": structure, "dice": case[c] + noise + shift}
        for structure, noise in (("mean", 0.0), ("bone", -0.1))
        for loss in losses
        for s in range(seeds)
        for shift in [rng.normal(0, 0.01)]
        for c, noise in enumerate(rng.normal(noise, 0.01, cases))
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def paper():
    return read_paper(REPRODUCE / "paper.yaml")


@pytest.fixture(scope="module")
def committed():
    return read_trainings(REPRODUCE / "trainings.csv")


def test_the_committed_tables_are_those_of_the_committed_scores():
    for name, table in load_script("benchmarks/correlations.py").tables().items():
        there = pd.read_csv(REPRODUCE / name)
        pd.testing.assert_frame_equal(there, table.round(6).reset_index(drop=True), obj=name)
    assert set(pd.read_csv(REPRODUCE / "correlations.csv")["data"]) == {"phantom", "study", "hippocampus"}


def test_correlations_are_over_cases_between_seed_averages():
    table = per_case()
    found = measure_correlations(table, "x", ["dice"])
    assert found[["data", "metric", "first", "second", "n"]].values.tolist() == [
        ["x", "dice", *pair, 12] for pair in (("a", "b"), ("a", "c"), ("b", "c"))
    ]
    mean = table[table["structure"] == "mean"].pivot_table("dice", "case", "loss")
    assert found["r"].tolist() == pytest.approx([stats.pearsonr(mean["a"], mean[x])[0] for x in "bc"] + [
        stats.pearsonr(mean["b"], mean["c"])[0]
    ])  # fmt: skip
    gap = table.copy()
    gap.loc[(gap["loss"] == "a") & (gap["case"] == "c3"), "dice"] = np.nan
    assert measure_correlations(gap, "x", ["dice"])["n"].tolist() == [11, 11, 12]
    flat = table.assign(dice=table["dice"].where(table["loss"] != "c", 0.9))
    assert measure_correlations(flat, "x", ["dice"])["second"].tolist() == ["b"]
    with pytest.raises(ValueError, match="no rows of structure 'whole'; it has mean, bone: choose one"):
        measure_correlations(table, "x", ["dice"], "whole")
    with pytest.raises(ValueError, match="per_case lacks the columns seed"):
        measure_correlations(table.drop(columns="seed"), "x", ["dice"])


def test_the_noise_of_training_is_the_residual_of_an_analysis_of_variance():
    table = per_case(seeds=4)
    table = table[~((table["loss"] == "a") & (table["seed"] == 3))]  # unequal numbers of seeds
    noise = training_noise(table, "dice")
    means = table[table["structure"] == "mean"].groupby(["loss", "seed"])["dice"].mean().reset_index()
    fit = smf.ols("dice ~ C(loss)", means).fit()
    assert noise.difference.sd == pytest.approx(np.sqrt(2 * fit.mse_resid))
    assert (noise.difference.freedom, noise.losses, noise.trainings, noise.cases) == (fit.df_resid, 3, 11, 12)
    low, high = noise.difference.interval
    assert low < noise.difference.sd < high


def test_the_noise_of_training_in_a_simulation():
    """The SD of the difference of two trainings' means, over many; its interval covers in about 95 of 100."""
    truth, covered, found = np.sqrt(2) * 0.01, [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        rows = [(loss, s, "c", "mean", x) for loss in "abcde" for s, x in enumerate(rng.normal(0, 0.01, 3))]
        noise = training_noise(pd.DataFrame(rows, columns=["loss", "seed", "case", "structure", "dice"]), "dice")
        found.append(noise.difference.sd**2)
        covered.append(noise.difference.interval[0] < truth < noise.difference.interval[1])
    assert np.sqrt(np.mean(found)) == pytest.approx(truth, rel=0.04)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.04)


def test_any_table_with_seeds_serves(tmp_path, committed):
    """Per-case scores and their summary give the same; a larger study can be given later."""
    scores = pd.read_csv(SEEDS)
    for metric in ("dice", "boundary_dice_in_plane"):
        direct, summary = training_noise(scores, metric), training_noise(committed, metric)
        assert direct.difference.sd == pytest.approx(summary.difference.sd, rel=1e-3)
        assert direct.trainings == summary.trainings == len(scores[["loss", "seed"]].drop_duplicates())
    pd.testing.assert_frame_equal(read_trainings(SEEDS), summarise_trainings(scores, "study"))
    with pytest.raises(ValueError, match="several seeds of a loss, dice of mean, on one data set; none has"):
        training_noise(scores[scores["seed"] == 0], "dice")
    with pytest.raises(ValueError, match="several data sets have: study, y; give one of them"):
        training_noise(pd.concat([committed, committed.assign(data="y")]), "dice")
    (tmp_path / "t.csv").write_text("case,loss,seed,structure,x\na,b,0,mean,1\n")
    with pytest.raises(ValueError, match="none of the score columns boundary_dice_in_plane, dice"):
        read_trainings(tmp_path / "t.csv")
    (tmp_path / "r.csv").write_text("metric,r\ndice,1.2\n")
    with pytest.raises(ValueError, match="correlations between -1 and 1"):
        read_correlations(tmp_path / "r.csv")


def test_the_line_of_sd_against_mean_is_that_of_statsmodels(committed):
    for metric in ("dice", "boundary_dice_in_plane"):
        line = fit_sd(committed, metric)
        chosen = committed[committed["metric"] == metric].copy()
        chosen["x"], chosen["y"] = special.logit(chosen["mean"]), np.log(chosen["sd"])
        points = chosen.groupby(["data", "structure"])[["x", "y"]].mean()
        fit = smf.ols("y ~ x", points).fit()
        assert len(line.points) == len(points) == 9
        assert (line.slope, line.intercept) == pytest.approx((fit.params["x"], fit.params["Intercept"]))
        assert line.residual == pytest.approx(np.sqrt(fit.mse_resid))
        mean = 0.9 if metric == "dice" else 0.5
        table = fit.get_prediction(pd.DataFrame({"x": [special.logit(mean)]})).summary_frame(alpha=0.05)
        expected = np.exp(table[["mean", "obs_ci_lower", "obs_ci_upper"]].to_numpy()[0])
        assert line.expected(mean) == pytest.approx(tuple(expected))


def test_beyond_the_measured_means_nothing_is_predicted(committed):
    line = fit_sd(committed, "dice")
    means = committed.loc[committed["metric"] == "dice", "mean"]
    assert (line.lowest, line.highest) == (means.min(), means.max())
    assert line.expected(means.max()) is not None
    for mean in (means.max() + 1e-6, means.min() - 1e-6):
        assert line.expected(mean) is None
        comparison = SdComparison(mean, 0.5, line)
        assert not comparison.outside
        assert np.isnan(comparison.residuals)
        assert "lies outside the measured ones (0.843 to 0.964): nothing is predicted" in comparison.to_text()
    with pytest.raises(ValueError, match="at least four structures of data sets for a line; got 0"):
        fit_sd(committed, "hd95")


def test_a_printed_sd_beside_the_predicted_one(committed):
    line = fit_sd(committed, "dice")
    sd, low, high = line.expected(0.95)
    above = SdComparison(0.95, sd * np.exp(2 * line.residual), line)
    assert above.residuals == pytest.approx(2)
    assert "2.0 residual SDs above the line" in above.to_text()
    assert "3.0 residual SDs below the line" in SdComparison(0.95, sd * np.exp(-3 * line.residual), line).to_text()
    assert [SdComparison(0.95, x, line).outside for x in (low * 0.99, low * 1.01, high * 0.99, high * 1.01)] == [
        True, False, False, True,
    ]  # fmt: skip


def test_the_benchmark_s_differences_are_noise_under_a_condition(paper):
    (benchmark,) = paper.benchmarks
    assert benchmark.differences == (-0.0017, 0.0235, 0.0137, -0.0134)
    noise = benchmark_noise(benchmark)
    assert noise.sd == pytest.approx(np.sqrt((0.0017**2 + 0.0235**2 + 0.0137**2 + 0.0134**2) / 4))
    assert noise.sd == pytest.approx(0.0152, abs=5e-5)
    # the mean is known to be zero: four values, four degrees of freedom
    assert noise.interval == pytest.approx(tuple(noise.sd * np.sqrt(4 / stats.chi2.ppf([0.975, 0.025], 4))))
    text = benchmark_text(benchmark)
    assert "If the benchmark ran that class, these differences are the noise of two trainings: SD 0.015" in text
    assert text.endswith("Which code was run is not known here.")
    rng = np.random.default_rng(0)
    inside = [
        low < 1 < high for x in rng.normal(size=(2000, 4)) for low, high in [Noise(np.sqrt((x**2).mean()), 4).interval]
    ]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


def test_the_audit_holds_the_paper_against_the_trainings(paper, committed):
    audit = audit_paper(paper, trainings=committed)
    page, points = audit_markdown(audit), conclusions(audit)
    noise = audit.noise["boundary_dice_in_plane"]
    for source, loss, size in (("A", "pcol", 0.03), ("B", "pcol", 0.0302)):  # percent are shares here
        times = f"{size / noise.difference.sd:.1f} times that"
        assert f"{source}, boundary, against {loss}: the claimed difference is {size:.4g}, {times}." in page
    assert noise.to_text() in page
    assert benchmark_text(paper.benchmarks[0]) in page
    far = [key for key, sd in audit.sds.items() if sd.outside]
    assert far == [("A", "dice", loss) for loss in ("dpce", "dice", "pcol", "focal")]
    assert any(p.startswith("**4 of 4 SDs of source A that could be compared lie beyond") for p in points)
    assert any("SDs of source B that could be compared lie within" in p for p in points)
    assert "B, dpce: 0.2883" in page  # below the least measured mean
    assert audit.problems == ()


def test_without_trainings_only_the_benchmark_is_told(paper):
    page = audit_markdown(audit_paper(paper))
    assert "The SD that a mean predicts" not in page
    assert "of the same loss differ by" not in page
    assert "Loss odyssey" in page
    assert "two trainings" not in audit_markdown(audit_paper(paper.model_copy(update={"benchmarks": ()})))


def test_trainings_that_do_not_suffice_are_a_problem_and_stop_nothing(paper, committed):
    few = committed[(committed["structure"] == "mean") & (committed["seed"] == 0)]
    audit = audit_paper(paper, trainings=few)
    assert sum("the noise of training was not computed" in p for p in audit.problems) == 2
    assert sum("the SD that a mean predicts was not computed" in p for p in audit.problems) == 2
    assert len(audit.results) == 16
