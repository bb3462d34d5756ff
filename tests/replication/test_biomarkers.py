"""Agreement by a published example and by hand, and a run's biomarkers where the phantom knows the answer."""

import numpy as np
import pandas as pd
import pytest
import pyvista as pv
from helpers.knees import two_test_knees
from scipy import optimize, stats

from shapeloss.data.volume import write_nifti
from shapeloss.metrics.agreement import LIMITS_FROM, bland_altman, pitman_morgan
from shapeloss.phantom.biomarkers import exact_biomarkers
from shapeloss.phantom.knee import make_anatomy
from shapeloss.plotting.agreement import figure_agreement, figure_surface_values
from shapeloss.replication.agreement import (
    agreement_markdown,
    agreement_matrix,
    agreement_table,
    on_common_cases,
    spread_reference,
)
from shapeloss.replication.biomarkers import (
    curved_surface,
    error_parts,
    measure_biomarkers,
    predicted_surfaces,
    shown_biomarkers,
    write_agreement,
)
from shapeloss.replication.profile import Experiment
from shapeloss.stats.paired_tests import signed_rank_test

# peak expiratory flow of 17 people by two meters (Bland & Altman, Lancet 1986, table 1: the first of each)
WRIGHT = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]


def test_bland_and_altman_s_own_example():
    """They print the bias as −2.1, the SD as 38.8, and the limits, from 2 SD, as −79.7 and 75.5 l/min."""
    found = bland_altman(np.subtract(WRIGHT, MINI))
    assert found.n == 17
    assert round(found.bias.value, 1) == -2.1
    assert round(found.sd, 1) == 38.8
    assert (round(found.bias.low, 1), round(found.bias.high, 1)) == (-22.0, 17.8)  # printed: −22.0 to 17.8
    assert found.lower.value == pytest.approx(-79.7 + 0.04 * 38.8, abs=0.1)
    assert found.upper.value == pytest.approx(75.5 - 0.04 * 38.8, abs=0.1)
    # printed for the lower limit, from a standard error of √(3/n) SD: −114.3 to −45.1; that of 1999 is a little less
    assert found.lower.high - found.lower.low == pytest.approx(114.3 - 45.1, rel=0.03)
    exact = 2.1199 * 38.7653 * np.sqrt(1 / 17 + 1.96**2 / 32)
    assert found.upper.high - found.upper.value == pytest.approx(exact, rel=1e-3)
    assert found.lower.value - found.lower.low == pytest.approx(exact, rel=1e-3)


def test_the_limits_cover_and_their_intervals_too():
    """Of 2,000 samples of 10: about 95 % of the intervals hold the true limit, bias ± 1.96."""
    rng = np.random.default_rng(0)
    samples = [bland_altman(rng.normal(0, 1, 10)) for _ in range(2000)]
    for limit, true in (("lower", -1.96), ("upper", 1.96), ("bias", 0.0)):
        covered = np.mean([getattr(s, limit).low <= true <= getattr(s, limit).high for s in samples])
        assert covered == pytest.approx(0.95, abs=0.03), limit


def test_few_cases_have_no_limits():
    assert np.isnan(bland_altman([]).bias.value)
    one = bland_altman([2.0])
    assert one.bias.value == 2
    assert np.isnan([one.bias.low, one.sd, one.upper.value]).all()
    with pytest.raises(ValueError, match="finite numbers"):
        bland_altman([1.0, np.nan])


def test_limits_are_given_where_their_interval_leaves_the_bias_out():
    """The rule behind LIMITS_FROM, at every n: an upper limit's interval begins above the bias, or does not."""
    for n in range(2, 30):
        found = bland_altman([*[0.0] * (n - 2), -1.0, 1.0])
        assert (found.upper.low > found.bias.value) == (n >= LIMITS_FROM), n


def test_the_ratio_of_two_spreads_is_that_of_pitman_and_morgan():
    """Against statistic and interval from their definition: the ratio at which the correlation becomes significant."""
    rng = np.random.default_rng(1)
    b = rng.normal(0, 1, 12)
    a = 1.7 * (0.6 * b + 0.8 * rng.normal(0, 1, 12))
    found = pitman_morgan(a, b)
    assert found.ratio.value == pytest.approx(np.std(a, ddof=1) / np.std(b, ddof=1))
    # Morgan 1939: t = (F − 1) √(n − 2) / √(4 F (1 − r²)) for F = var(a)/var(b)
    f, r = found.ratio.value**2, np.corrcoef(a, b)[0, 1]
    t = (f - 1) * np.sqrt(10) / np.sqrt(4 * f * (1 - r * r))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), 10))

    def p_at(ratio):
        return stats.pearsonr(a / ratio + b, a / ratio - b).pvalue - 0.05

    low = optimize.brentq(p_at, 0.05 * found.ratio.value, found.ratio.value * 0.999)
    high = optimize.brentq(p_at, found.ratio.value * 1.001, 20 * found.ratio.value)
    assert (found.ratio.low, found.ratio.high) == (pytest.approx(low), pytest.approx(high))
    other = pitman_morgan(b, a)
    assert other.p == pytest.approx(found.p)
    assert other.ratio.high == pytest.approx(1 / found.ratio.low)


def test_the_test_of_spreads_errs_as_often_as_it_says():
    """7 pairs, correlated, of one SD, then of a double one: 5 % of 4,000 are told, and 95 % of the intervals hold."""
    rng = np.random.default_rng(2)
    for true in (1.0, 2.0):
        found = []
        for _ in range(4000):
            common = rng.normal(0, 1, 7)
            a, b = (np.sqrt(0.5) * common + np.sqrt(0.5) * rng.normal(0, 1, 7) for _ in range(2))
            found.append(pitman_morgan(true * a + 3, b))
        assert np.mean([f.ratio.low <= true <= f.ratio.high for f in found]) == pytest.approx(0.95, abs=0.012)
        told = np.mean([f.p < 0.05 for f in found])
        assert told == pytest.approx(0.05, abs=0.012) if true == 1 else told > 0.3


def test_spreads_that_cannot_be_compared():
    assert np.isnan(pitman_morgan([1.0, 2.0], [1.0, 3.0]).p)
    assert np.isnan(pitman_morgan([1.0, 2.0, 4.0], [1.0, 1.0, 1.0]).ratio.value)
    same = pitman_morgan([1.0, 2.0, 4.0], [1.0, 2.0, 4.0])
    assert (same.p, same.ratio.value) == (1.0, 1.0)
    with pytest.raises(ValueError, match="paired lists of finite numbers"):
        pitman_morgan([1.0, 2.0, 3.0], [1.0, 2.0])


def table_of(differences, loss="ce", name="notch_width_mm", seeds=(0,)):
    return pd.DataFrame([
        {"case": case, "loss": loss, "seed": seed, "structure": "knee", "biomarker": name, "unit": "mm",
         "truth": 20.0, "prediction": 20.0 + d + 0.1 * seed,
         "reason": "" if np.isfinite(d) else "prediction: femur: so"}
        for case, d in differences.items() for seed in seeds
    ])  # fmt: skip


def test_a_case_counts_once_and_one_without_a_value_is_named():
    differences = {"a": 1.0, "b": 2.0, "c": 4.0, "d": np.nan}
    row = agreement_table(table_of(differences, seeds=(-1, 0, 1))).iloc[0]
    assert (row["n"], row["left_out"]) == (3, 1)
    assert row["bias"] == pytest.approx(7 / 3)
    assert row["sd"] == pytest.approx(np.std([1, 2, 4], ddof=1))
    assert row["p_wilcoxon"] == signed_rank_test([1, 2, 4]).p == row["p_holm"]
    assert row["note"] == "without d (prediction: femur: so)"
    # a case whose seeds are not all measured is left out: the rest would be a choice by luck
    partly = table_of({"a": 1.0, "b": 2.0, "c": 4.0}, seeds=(0, 1))
    partly.loc[0, "prediction"] = np.nan
    assert agreement_table(partly).iloc[0]["n"] == 2


def test_losses_are_compared_on_the_cases_that_all_of_them_have():
    cases = {str(i): float(i * i) for i in range(8)}
    rows = pd.concat([table_of(cases | {"0": np.nan}), table_of(cases | {"0": np.nan, "7": np.nan}, "dice")])
    rows.loc[rows["case"] == "0", ["truth", "reason"]] = np.nan, "truth: femur: cut"
    table = agreement_table(rows).set_index("loss")
    assert table["n"].tolist() == [6, 6]
    assert table["measured"].tolist() == [7, 6]
    assert table["left_out"].tolist() == [2, 2]
    assert table["bias"].tolist() == [pytest.approx(np.mean([i * i for i in range(1, 7)]))] * 2
    assert table["p_wilcoxon"].tolist() == [signed_rank_test([i * i for i in range(1, 7)]).p] * 2
    assert table["note"].unique().tolist() == ["without 0 (truth: femur: cut); 7 of dice (prediction: femur: so)"]
    kept = on_common_cases(rows)
    assert kept[kept["prediction"].notna()].groupby("loss")["case"].apply(list).tolist() == [list("123456")] * 2
    assert kept["truth"].equals(rows["truth"])


def test_spreads_are_compared_with_cross_entropy():
    rng = np.random.default_rng(3)
    narrow = dict(zip("abcdefghij", rng.normal(0, 1, 10), strict=True))
    wide = {case: 8 * d for case, d in zip("abcdefghij", rng.normal(0, 1, 10), strict=True)}
    other = dict(zip("abcdefghij", reversed(narrow.values()), strict=True))  # of the same SD
    rows = pd.concat([table_of(wide, "dpce"), table_of(narrow), table_of(other, "dice")])
    table = agreement_table(rows).set_index("loss")
    expected = pitman_morgan(list(wide.values()), list(narrow.values()))
    assert table.loc["dpce", "sd_ratio"] == pytest.approx(expected.ratio.value)
    assert table.loc["dpce", "p_spread"] == pytest.approx(expected.p)
    assert table.loc["dpce", "p_spread_holm"] == pytest.approx(2 * expected.p)
    assert np.isnan(table.loc["ce", "p_spread"])
    text = agreement_matrix(table.reset_index())
    assert text.count("†") == 1
    assert "†" in text.splitlines()[2].split("|")[4]  # the first loss
    assert spread_reference(["dice", "mtl"]) == "dice"


def test_few_cases_have_a_bias_and_no_limits():
    cases = {str(i): float(i) for i in range(LIMITS_FROM)}
    rows = pd.concat([table_of(cases, "a"), table_of(cases, "b")])
    assert "| 6 | +2.50 (−1.17 to +6.17) | +2.50 (−1.17 to +6.17) |" in agreement_matrix(agreement_table(rows))
    few = rows[rows["case"] != "5"]
    assert "| 5 | +2.00 | +2.00 |" in agreement_matrix(agreement_table(few))
    assert np.isfinite(agreement_table(few)["upper_high"]).all()  # the table of numbers is whole
    one = agreement_table(few[few["loss"] == "a"].drop(columns="loss"))
    assert "| 5 | +2.00 [+0.04, +3.96] | – | – |" in agreement_markdown(one)
    axes = figure_agreement(few, [("knee", "notch_width_mm")]).axes[0]
    assert len(axes.lines) == 3  # zero, cases, bias
    assert "±" not in axes.texts[0].get_text()


def test_holm_s_family_is_the_losses_of_one_biomarker():
    steady = {str(i): 1.0 + 0.1 * i for i in range(8)}
    mixed = {str(i): (-1.0) ** i * (i + 1) for i in range(8)}
    rows = pd.concat([table_of(steady, "a"), table_of(mixed, "b"), table_of(steady, "a", "notch_width_index")])
    found = agreement_table(rows).set_index(["biomarker", "loss"])
    single = signed_rank_test(list(steady.values())).p
    assert found.loc[("notch_width_mm", "a"), "p_holm"] == 2 * single
    assert found.loc[("notch_width_index", "a"), "p_holm"] == single
    text = agreement_markdown(found.reset_index())
    assert "| knee | `notch_width_mm` (mm) | a | 8 | +1.35 [" in text
    assert "| knee | `notch_width_index` | a | 8 | +1.350 [" in text


def test_parts_of_an_error_add_up():
    rows = table_of({"a": 1.0, "b": 2.0}).assign(surface=[18.0, 19.0], mask=[18.5, 19.0], truth=[19.0, 20.0])
    rows["prediction"] = [20.0, 22.0]
    (parts,) = error_parts(rows).to_dict("records")
    assert parts["n"] == 2
    assert (parts["measure_bias"], parts["reader_bias"], parts["segmentation_bias"]) == (0.25, 0.75, 1.5)
    assert parts["total_bias"] == 2.5
    assert parts["measure_sd"] == pytest.approx(0.5 / np.sqrt(2))
    assert len(error_parts(rows.assign(surface=np.nan))) == 0
    # a truth that is refused takes the exact mask of its case with it
    refused = rows.assign(truth=[np.nan, 20.0], mask=[12.0, 19.0])
    (parts,) = error_parts(refused).to_dict("records")
    assert (parts["n"], parts["measure_bias"]) == (1, 0)
    # and a case that one loss lacks counts for none
    two = pd.concat([rows, rows.assign(loss="dice", prediction=[np.nan, 22.0])])
    assert error_parts(two)["n"].tolist() == [1, 1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three knees, two of them for testing; `ce` predicts the truth, `dpce` one dilated towards the right."""
    folder = tmp_path_factory.mktemp("biomarkers")
    experiment, manifest = two_test_knees(folder, shape=(50, 64, 64), spacing=(2.2, 2.2, 2.2), reader_mm=0.5)
    for name in manifest.names("test"):
        case = manifest.original(name)
        wider = np.where(case.labels == 0, np.roll(case.labels, 1, axis=0), case.labels)
        for loss, labels in (("dpce", wider), ("ce", case.labels)):
            write_nifti(folder / "runs" / loss / "seed0" / "predictions" / f"{name}.nii.gz", labels, case.affine)
    rows = measure_biomarkers(experiment, manifest, folder, folder / "biomarkers.csv")
    return folder, manifest, rows


def test_a_run_is_measured_against_its_truth_and_the_exact_surfaces(run):
    folder, manifest, rows = run
    written = pd.read_csv(folder / "biomarkers.csv")
    assert written["reason"].astype(object).fillna("").tolist() == rows["reason"].tolist()
    np.testing.assert_allclose(written["truth"], rows["truth"])
    assert rows["case"].unique().tolist() == manifest.names("test")
    assert (rows[rows["loss"] == "ce"]["truth"].dropna() == rows[rows["loss"] == "ce"]["prediction"].dropna()).all()
    for name in manifest.names("test"):
        exact = exact_biomarkers(make_anatomy(int(name[-3:]) - 1))
        found = rows[(rows["case"] == name) & (rows["loss"] == "ce")].set_index("biomarker")
        width = found.loc["tibial_width_mm"]
        assert width["surface"] == exact["tibial_width_mm"].value
        assert width["mask"] == pytest.approx(width["surface"], abs=2.2)
        assert width["truth"] != width["mask"]  # a reader drew it
        dilated = rows[(rows["case"] == name) & (rows["loss"] == "dpce")].set_index("biomarker").loc["tibial_width_mm"]
        assert dilated["prediction"] - dilated["truth"] == pytest.approx(2.2, abs=0.4)
    assert set(exact) <= set(rows["biomarker"])  # its side is known from the landmarks


def test_the_page_has_agreement_and_parts(run, tmp_path):
    _, _, rows = run
    table = write_agreement(rows, tmp_path / "biomarkers.md")
    text = (tmp_path / "biomarkers.md").read_text(encoding="utf-8")
    assert "## Where the errors come from" in text
    assert len(table) == rows.groupby(["structure", "biomarker", "loss"]).ngroups
    assert text.count("| femur | `volume_cm3` (cm³) |") == 1  # a column for each loss
    assert "| structure | biomarker | n | dpce | ce |" in text
    assert "With fewer than 6 cases no limits are given" in text
    assert "Spread: with fewer than 6 cases" in text
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "biomarkers_agreement.csv")[["bias", "n"]], table[["bias", "n"]]
    )
    assert ("knee", "notch_width_mm") in shown_biomarkers(rows)
    assert shown_biomarkers(rows.assign(truth=np.nan)) == [("femur", "volume_cm3")]
    known = rows.drop(columns=["surface", "mask"]).assign(surface=np.nan, mask=np.nan)
    write_agreement(known, tmp_path / "real.md")
    assert "## Where" not in (tmp_path / "real.md").read_text(encoding="utf-8")


def test_curved_and_predicted_surfaces_are_those_of_the_case(run):
    folder, manifest, rows = run
    experiment = Experiment(name="x", description="x", losses=["dpce", "ce"], data={"split": {}}, seeds=(0,))
    name = rows["case"].iloc[0]
    truth, curvature = curved_surface(manifest, name, 2)
    np.testing.assert_allclose(truth["gaussian_10mm"], 10 * curvature.gaussian)
    assert truth.n_points == len(curvature.mean)
    found = predicted_surfaces(experiment, manifest, folder, name, 2, truth)
    assert np.abs(found["ce"]["error_mm"]).max() < 1e-3
    assert found["dpce"]["error_mm"].max() > 1.5


def test_a_sign_shows_as_red_or_blue():
    """Out of scale on both sides, and 0: the colours of the scale's ends, and its middle."""
    panels = {}
    for title, value in (("above", 5.0), ("zero", 0.0), ("below", -5.0)):
        mesh = pv.Sphere(radius=10)
        mesh["v"] = np.full(mesh.n_points, value)
        panels[title] = mesh, "v"
    figure = figure_surface_values(panels, 1.0, "mm", (0, -1, 0))
    red, white, blue = (
        axes.images[0].get_array()[400:800, 400:800].reshape(-1, 3).mean(axis=0) for axes in figure.axes[:3]
    )
    assert red[0] > 2 * red[2]
    assert blue[2] > 2 * blue[0]
    assert np.ptp(white) < 5
    assert mesh["v"][0] == -5  # the caller's mesh stays


def test_panels_show_each_case_the_bias_and_the_limits():
    differences = {str(i): float(d) for i, d in enumerate((1, 2, 4, 3, 1, 2, 3))}
    rows = pd.concat([table_of(differences), table_of(differences | {"0": np.nan}, "dice")])
    figure = figure_agreement(rows, [("knee", "notch_width_mm"), ("knee", "absent")])
    first, second = figure.axes
    x, y = first.lines[1].get_data()
    assert sorted(y) == [1, 1, 2, 2, 3, 3, 4]
    assert sorted(x) == [20.5, 20.5, 21, 21, 21.5, 21.5, 22]
    found = bland_altman(list(differences.values()))
    drawn = [line.get_ydata()[0] for line in first.lines[2:]]
    assert drawn == pytest.approx([found.bias.value, found.lower.value, found.upper.value])
    assert "n = 6 of 7" in second.texts[0].get_text()
    assert first.get_ylim() == second.get_ylim()
    with pytest.raises(ValueError, match="none of the biomarkers"):
        figure_agreement(rows, [("femur", "notch_width_mm")])
