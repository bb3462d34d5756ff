"""Parts of the variance, and the noise of trainings: statsmodels, closed forms, simulation."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from shapeloss.stats.seeds import VarianceParts, training_noise, variance_parts


def table(y):
    """From an array (methods, seeds, cases)."""
    return pd.DataFrame(
        [{"loss": f"m{m}", "seed": s, "case": f"c{c}", "dice": value} for (m, s, c), value in np.ndenumerate(y)]
    )


def drawn(rng, k=3, r=4, n=12, case=1.0, method_case=0.5, training=0.3, rest=0.2):
    """Standard deviations → scores (k, r, n)."""
    return (
        rng.normal(0, case, n) + rng.normal(0, method_case, (k, 1, n)) + rng.normal(0, training, (k, r, 1))
        + rng.normal(0, rest, (k, r, n)) + np.arange(k)[:, None, None]
    )  # fmt: skip


def test_mean_squares_are_those_of_statsmodels():
    data = table(drawn(np.random.default_rng(0)))
    fit = ols("dice ~ C(loss) * C(case) + C(loss):C(seed)", data).fit()
    ms = anova_lm(fit)["mean_sq"]
    found = variance_parts(data, "dice")
    k, r, n = 3, 4, 12
    assert (found.methods, found.seeds, found.n) == (k, r, n)
    assert found.residual == pytest.approx(ms["Residual"])
    assert found.training == pytest.approx((ms["C(loss):C(seed)"] - ms["Residual"]) / n)
    assert found.method_case == pytest.approx((ms["C(loss):C(case)"] - ms["Residual"]) / r)
    assert found.case == pytest.approx((ms["C(case)"] - ms["C(loss):C(case)"]) / (k * r))


def test_effects_that_only_add():
    """Without interaction or noise each part is the sample variance of its effects."""
    case, training = np.array([0.0, 1.0, 5.0]), np.array([[0.0, 2.0], [3.0, 4.0]])
    found = variance_parts(table(case + training[:, :, None]), "dice")
    assert found.case == pytest.approx(case.var(ddof=1))
    assert found.training == pytest.approx(training.var(axis=1, ddof=1).mean())
    assert (found.method_case, found.residual) == pytest.approx((0, 0), abs=1e-12)


def test_the_estimates_are_unbiased():
    rng = np.random.default_rng(1)
    parts = [variance_parts(table(drawn(rng)), "dice") for _ in range(150)]
    for name, sd in (("case", 1.0), ("method_case", 0.5), ("training", 0.3), ("residual", 0.2)):
        values = [getattr(part, name) for part in parts]
        assert np.mean(values) == pytest.approx(sd**2, abs=4 * np.std(values) / np.sqrt(150))


def test_only_cases_of_every_training_count_and_the_rest_is_said():
    data = table(drawn(np.random.default_rng(2)))
    data.loc[5, "dice"] = np.nan
    found = variance_parts(data, "dice")
    assert isinstance(found, VarianceParts)
    assert found.n == 11
    assert found == variance_parts(data[data["case"] != data.loc[5, "case"]], "dice")
    fewer = data[~((data["loss"] == "m1") & (data["seed"] == 0))]
    assert variance_parts(fewer, "dice") == (
        "the methods were trained 4, 3, 4 times; give each the same number, 2 or more"
    )
    assert variance_parts(data[data["case"] == "c1"], "dice").startswith("1 case(s) of 3 method(s) have a score")
    assert variance_parts(data.drop(columns="seed"), "dice") == "each method was trained once"


def test_what_two_trainings_differ_by():
    rng = np.random.default_rng(3)
    means = rng.normal(0.9, 0.01, 5)
    pairs = [(a - b) ** 2 for i, a in enumerate(means) for b in means[:i]]
    sd = means.std(ddof=1)
    assert training_noise(sd, sd) == pytest.approx(np.sqrt(np.mean(pairs)))
    assert training_noise(sd, np.nan) == training_noise(sd, sd)
    assert np.isnan(training_noise(np.nan, np.nan))
