"""Subgroups: each is tested by itself, and corrected with all the others."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from shapeloss.stats.subgroups import compare_subgroups

RNG = np.random.default_rng(6)
CASES = [f"c{i}" for i in range(26)]
GROUPS = dict(zip(CASES, ["10"] * 12 + ["2"] * 9 + ["none"] * 4, strict=False))  # c25 has none
SCORES = {loss: RNG.normal(shift, 1, 26) for loss, shift in (("a", 0), ("b", 1), ("c", 2))}
TABLE = pd.DataFrame(
    [
        {"loss": loss, "case": c, "dice": v}
        for loss, values in SCORES.items()
        for c, v in zip(CASES, values, strict=True)
    ]
)


def test_each_group_is_tested_by_itself_and_all_are_corrected_together():
    found = compare_subgroups(TABLE, GROUPS, "a", ["dice"])
    assert found["group"].tolist() == ["2", "2", "10", "10", "none", "none"]
    assert found["n"].tolist() == [9, 9, 12, 12, 4, 4]
    places = {"2": slice(12, 21), "10": slice(0, 12), "none": slice(21, 25)}
    p = []
    for row in found.to_dict("records"):
        one, two = (SCORES[loss][places[row["group"]]] for loss in ("a", row["loss"]))
        assert (row["mean_reference"], row["mean_loss"]) == pytest.approx((one.mean(), two.mean()))
        walsh = [((one - two)[i] + (one - two)[j]) / 2 for i in range(len(one)) for j in range(i + 1)]
        assert row["difference"] == pytest.approx(np.median(walsh))
        if row["group"] == "none":
            assert np.isnan([row["p"], row["p_holm"]]).all()
            assert np.isinf([row["low"], row["high"]]).all()
        else:
            p.append(stats.wilcoxon(one, two, method="exact").pvalue)
            assert row["p"] == pytest.approx(p[-1])
    np.testing.assert_allclose(found["p_holm"].dropna(), multipletests(p, method="holm")[1])


def test_metrics_are_corrected_apart():
    table = TABLE.assign(hd95=TABLE["dice"])
    both = compare_subgroups(table, GROUPS, "a", ["dice", "hd95"])
    one = compare_subgroups(TABLE, GROUPS, "a", ["dice"])
    np.testing.assert_allclose(both.loc[both["metric"] == "dice", "p_holm"], one["p_holm"])
