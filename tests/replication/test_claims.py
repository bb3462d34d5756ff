"""The paper as data, and the verdicts on its claims: constructed scores whose verdict is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from shapeloss.replication.claims import claims_markdown, evaluate_claims, findings_table, overall, write_claims
from shapeloss.replication.paper import Paper, read_paper
from shapeloss.stats.paired_tests import detectable_effect, hodges_lehmann, power_of

PAPER_FILE = Path(__file__).parents[2] / "reproduce" / "paper.yaml"
SPREAD = np.linspace(-0.004, 0.004, 10)  # ten cases, none equal


@pytest.fixture(scope="module")
def paper() -> Paper:
    return read_paper(PAPER_FILE)


def per_case(seeds: int = 1, n: int = 10, **boundary: float) -> pd.DataFrame:
    """Boundary Dice of each loss relative to dpce's, and the same relative global Dice a tenth as large."""
    rows = []
    for loss, shift in {"dpce": 0.0, **boundary}.items():
        for c in range(n):
            for s in range(seeds):
                value = 0.3 + 0.01 * c + (shift + SPREAD[c] if loss != "dpce" else 0)
                dice = 0.95 + (shift + SPREAD[c]) / 10 * (loss != "dpce")
                rows.append({"case": c, "loss": loss, "seed": s, "boundary_dice_in_plane": value, "dice": dice})
    return pd.DataFrame(rows)


def verdicts(paper: Paper, claim: str, *args: pd.DataFrame) -> dict[str, str]:
    return {f.loss: f.verdict for f in evaluate_claims(paper, *args) if f.claim == claim}


def test_the_papers_numbers(paper: Paper) -> None:
    a, b = paper.reported("A"), paper.reported("B")
    assert a["boundary_dice_in_plane"] == {
        "dpce": (0.29, 0.04), "dice": (0.27, 0.05), "pcol": (0.26, 0.03), "focal": (0.27, 0.04),
    }  # fmt: skip
    assert a["dice"] == {"dpce": (0.96, 0.08), "dice": (0.96, 0.12), "pcol": (0.95, 0.11), "focal": (0.95, 0.10)}
    assert b["boundary_dice_in_plane"]["dpce"] == (0.2883, 0.0445)
    assert b["dice"]["focal"] == (0.95, 0.01)
    assert paper.sources["B"].status == "secondary source, check against the PDF"
    assert {r.n for r in paper.results} == {10}
    with pytest.raises(ValueError, match="source must be one of A, B; got 'C'"):
        paper.reported("C")


def test_the_claims_are_fixed(paper: Paper) -> None:
    claims = {claim.id: claim for claim in paper.claims}
    assert {k: (c.test, c.margin, c.alpha, len(c.against)) for k, c in claims.items()} == {
        "boundary": ("superiority", None, 0.05, 3),
        "global": ("noninferiority", 0.01, 0.025, 3),
        "global_equal": ("equivalence", 0.01, 0.05, 1),
        "notch": ("superiority", None, 0.05, 3),
        "tibial_condyles": ("superiority", None, 0.05, 3),
        "multi_task": ("superiority", None, 0.05, 1),
    }
    assert {c.reference for c in paper.claims} == {"dpce", "mtl"}
    assert claims["multi_task"].against == ("ce",)
    assert claims["notch"].better == "lower"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("claims", 0, "margins"), 0.1, r"claims\.0\.margins: Extra inputs"),
        (("claims", 0, "margin"), 0.1, "superiority has no margin"),
        (("claims", 1, "margin"), None, "noninferiority needs a margin"),
        (("claims", 0, "alpha"), 5, r"claims\.0\.alpha"),
        (("claims", 0, "test"), "t-test", r"claims\.0\.test"),
        (("claims", 3, "landmarks"), [], "surface_error, and it needs them"),
        (("claims", 0, "against"), ["dice", "dpce"], "other losses than 'dpce'"),
        (("claims", 1, "id"), "boundary", "distinct ids"),
        (("results", 0, "printed"), "0.29 +- 0.04", r"results\.0\.printed"),
        (("results", 1, "loss"), "dpce", "reported twice: A boundary_dice_in_plane dpce"),
        (("results", 0, "source"), "C", "no such source: C"),
    ],
)
def test_faults_of_the_file_are_named(tmp_path: Path, path: tuple, value: object, message: str) -> None:
    data = yaml.safe_load(PAPER_FILE.read_text(encoding="utf-8"))
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    broken = tmp_path / "paper.yaml"
    broken.write_text(yaml.safe_dump(data))
    with pytest.raises(ValueError, match=message):
        read_paper(broken)


def test_not_yaml(tmp_path: Path) -> None:
    (tmp_path / "paper.yaml").write_text("claims: [")
    with pytest.raises(ValueError, match="is not YAML"):
        read_paper(tmp_path / "paper.yaml")


def test_superiority(paper: Paper) -> None:
    table = per_case(dice=-0.02, pcol=0.02, focal=0.0)
    assert verdicts(paper, "boundary", table) == {
        "dice": "confirmed",
        "pcol": "contradicted",
        "focal": "inconclusive",
    }
    found = {f.loss: f for f in evaluate_claims(paper, table) if f.claim == "boundary"}
    # all ten differences on one side: 2 / 1024 two-sided, and Holm's factors 3 and 2
    assert found["dice"].p == found["pcol"].p == 2 / 1024
    assert found["dice"].p_holm == found["pcol"].p_holm == 6 / 1024
    d = 0.02 - SPREAD
    assert (found["dice"].effect, found["dice"].low, found["dice"].high) == pytest.approx(hodges_lehmann(d))
    assert found["dice"].detectable == pytest.approx(detectable_effect(d.std(ddof=1), 10, 0.05 / 3))
    assert found["dice"].power == pytest.approx(power_of(0.02, d.std(ddof=1), 10, 0.05 / 3))


def test_superiority_is_corrected_within_the_claim(paper: Paper) -> None:
    # two of ten differences, the smallest ones, on the other side: V = 52, p = 2 · 5 / 1024 < 0.05 / 3 < 2 · 9 / 1024
    table = per_case(dice=0.0, pcol=0.0, focal=0.0)
    for loss, wrong in (("dice", [1, 2]), ("pcol", [1, 3]), ("focal", [4, 5])):
        signs = np.array([-1 if i + 1 in wrong else 1 for i in range(10)])
        rows = table["loss"] == loss
        table.loc[rows, "boundary_dice_in_plane"] = 0.3 + 0.01 * np.arange(10) - 0.001 * signs * np.arange(1, 11)
    found = {f.loss: f for f in evaluate_claims(paper, table) if f.claim == "boundary"}
    assert [found[k].p * 1024 for k in ("dice", "pcol", "focal")] == [10, 14, 66]
    assert [f.p < 0.05 for f in found.values()] == [True, True, False]
    assert found["dice"].p_holm == pytest.approx(30 / 1024)
    assert found["pcol"].p_holm == pytest.approx(30 / 1024)
    assert found["focal"].verdict == "inconclusive"


def test_noninferiority_and_equivalence(paper: Paper) -> None:
    # global Dice differs by a tenth: 0.004 better, 0.004 worse (inside the margin of 0.01), 0.02 worse
    table = per_case(dice=-0.04, pcol=0.04, focal=0.2)
    assert verdicts(paper, "global", table) == {"dice": "confirmed", "pcol": "confirmed", "focal": "contradicted"}
    assert verdicts(paper, "global_equal", table) == {"dice": "confirmed"}
    # far better than Dice loss: maintained, though not the same
    better = per_case(dice=-0.2, pcol=0.0, focal=0.0)
    assert verdicts(paper, "global", better)["dice"] == "confirmed"
    assert verdicts(paper, "global_equal", better) == {"dice": "contradicted"}
    # a wide spread about the margin shows nothing, however large the p of a test for difference
    noisy = per_case(dice=0.0, pcol=0.0, focal=0.0)
    noisy.loc[noisy["loss"] != "dpce", "dice"] = 0.95 + np.tile(np.linspace(-0.1, 0.1, 10), 3)
    assert set(verdicts(paper, "global", noisy).values()) == {"inconclusive"}
    assert verdicts(paper, "global_equal", noisy) == {"dice": "inconclusive"}


def test_margin_tests_are_not_read_from_the_wrong_side(paper: Paper) -> None:
    found = [f for f in evaluate_claims(paper, per_case(dice=0.04, pcol=0.04, focal=0.04)) if f.claim == "global"]
    assert {f.p for f in found} == {1 / 1024}  # one-sided: all ten above the margin
    assert {f.p_holm for f in found} == {3 / 1024}
    assert all(f.effect == pytest.approx(-0.004) for f in found)


def test_seeds_do_not_multiply_cases(paper: Paper) -> None:
    once = findings_table(evaluate_claims(paper, per_case(1, dice=-0.002, pcol=0.0, focal=0.001)))
    thrice = findings_table(evaluate_claims(paper, per_case(3, dice=-0.002, pcol=0.0, focal=0.001)))
    assert set(once["seeds"]) == {0, 1}
    assert set(thrice["seeds"]) == {0, 3}
    pd.testing.assert_frame_equal(once.drop(columns="seeds"), thrice.drop(columns="seeds"))


def surface(case_shift: float = 0.0) -> pd.DataFrame:
    """Errors in mm: dpce 0.5; dice 0.7 in the notch, 0.3 at the medial and 0.9 at the lateral plateau."""
    rows = []
    for c in range(10):
        for loss, at in {"dpce": (0.5, 0.5, 0.5), "dice": (0.7, 0.3, 0.9)}.items():
            for landmark, value in zip(("notch_roof", "medial_plateau", "lateral_plateau"), at, strict=True):
                error = value + 0.01 * c * (loss == "dice")
                rows.append({"case": c, "loss": loss, "seed": 0, "landmark": landmark, "error_mm": error})
    return pd.DataFrame(rows)


def test_surface_errors(paper: Paper) -> None:
    found = {(f.claim, f.loss): f for f in evaluate_claims(paper, per_case(dice=0.0), surface())}
    notch = found["notch", "dice"]
    assert notch.verdict == "confirmed"
    assert notch.mean_difference == pytest.approx(0.245)  # smaller error of dpce: in its favour
    plateaus = found["tibial_condyles", "dice"]
    assert plateaus.mean_difference == pytest.approx(0.145)
    assert np.isnan(notch.power)  # the paper reports no number
    assert found["notch", "pcol"].verdict == "not tested"
    assert found["notch", "pcol"].note == "no scores of pcol"
    worse = surface().assign(error_mm=lambda t: 1.5 - t["error_mm"])
    assert verdicts(paper, "notch", per_case(), worse)["dice"] == "contradicted"


def test_a_landmark_without_error_excludes_its_case(paper: Paper) -> None:
    errors = surface()
    errors.loc[(errors["case"] == 4) & (errors["landmark"] == "medial_plateau"), "error_mm"] = np.inf
    found = {(f.claim, f.loss): f for f in evaluate_claims(paper, per_case(), errors)}
    assert found["tibial_condyles", "dice"].n == 9
    assert found["tibial_condyles", "dice"].note == "without 4"
    assert found["notch", "dice"].n == 10


def test_surface_tables_are_checked(paper: Paper) -> None:
    with pytest.raises(ValueError, match="surface_errors lacks the columns"):
        evaluate_claims(paper, per_case(), surface().drop(columns="landmark"))
    with pytest.raises(ValueError, match="several rows"):
        evaluate_claims(paper, per_case(), pd.concat([surface(), surface().head(1)]))


def test_too_few_cases_and_missing_scores(paper: Paper) -> None:
    found = [f for f in evaluate_claims(paper, per_case(n=2, dice=-0.02)) if f.claim == "boundary"]
    assert [f.verdict for f in found] == ["inconclusive", "not tested", "not tested"]
    assert found[0].note == "2 cases are too few for any verdict at this level"
    one = [f for f in evaluate_claims(paper, per_case(n=1, dice=-0.02)) if f.claim == "boundary"]
    assert one[0].note == "1 paired cases, at least 2 needed"
    without = evaluate_claims(paper, per_case(dice=-0.02).drop(columns="dice"))
    assert {f.verdict for f in without if f.claim == "global"} == {"not tested"}


def test_overall(paper: Paper) -> None:
    def of(*losses: float) -> str:
        table = per_case(**dict(zip(("dice", "pcol", "focal"), losses, strict=False)))
        return overall([f for f in evaluate_claims(paper, table) if f.claim == "boundary"])

    assert of(-0.02, -0.02, -0.02) == "confirmed"
    assert of(-0.02, -0.02, 0.0) == "inconclusive"
    assert of(-0.02, -0.02, 0.02) == "contradicted"
    assert of(-0.02, -0.02) == "inconclusive"
    assert of() == "not tested"


def test_the_page_speaks_of_its_data(paper: Paper, tmp_path: Path) -> None:
    findings = evaluate_claims(paper, per_case(dice=-0.02, pcol=-0.02, focal=-0.02), surface())
    page = claims_markdown(paper, findings, "the phantom", "Profile: phantom. Seeds: 0. Commit: abc.")
    assert "| Claim | Verdict on the phantom |" in page
    assert "| Boundary Dice is higher than with each other loss | **confirmed** (3 of 3 confirmed) |" in page
    assert "Each loss was trained once" in page
    assert "Profile: phantom. Seeds: 0. Commit: abc." in page
    assert "The verdicts speak of the phantom." in page
    assert "reproduced |" not in page
    assert ", reproduced" not in page
    assert "| dice | **confirmed** | +0.0200 |" in page
    assert "margin 0.01, level 0.025, Holm over 3" in page
    assert "| pcol | **not tested** | – |" in page
    own = claims_markdown(paper, findings, "OAI knees", "", papers_own_data=True)
    assert "| Verdict on OAI knees |" in own
    assert "**confirmed**, reproduced (3 of 3 confirmed)" in own
    three = claims_markdown(paper, evaluate_claims(paper, per_case(3)), "the phantom", "")
    assert "Each loss was trained once" not in three
    write_claims(tmp_path / "claims.md", paper, findings, "the phantom", "Profile: phantom. Seeds: 0. Commit: abc.")
    assert (tmp_path / "claims.md").read_text(encoding="utf-8") == page
    for line in page.splitlines():
        if line.startswith("| dice "):
            assert line.count("|") == 12


def test_the_margin_that_equivalence_detects_passes_both_tests_four_times_in_five(paper: Paper) -> None:
    noisy = per_case(dice=0.0, pcol=0.0, focal=0.0)
    found = next(f for f in evaluate_claims(paper, noisy) if f.claim == "global_equal")
    rng = np.random.default_rng(0)
    draws = rng.normal(0, found.sd_difference, (4000, 10))
    half = stats.t.ppf(0.95, 9) * draws.std(axis=1, ddof=1) / np.sqrt(10)
    passed = (np.abs(draws.mean(axis=1)) + half < found.detectable).mean()
    assert passed == pytest.approx(0.8, abs=0.02)


def test_losses_trained_unequally_often_are_named(paper: Paper) -> None:
    table = per_case(dice=-0.02, pcol=-0.02, focal=-0.02)
    again = table[table["loss"] == "dpce"].assign(seed=1)
    found = {f.loss: f for f in evaluate_claims(paper, pd.concat([table, again])) if f.claim == "boundary"}
    assert found["dice"].seeds == 1
    assert "trainings: dpce 2, dice 1" in found["dice"].note


def signed(wrong: dict[str, list[int]], n: int = 10) -> pd.DataFrame:
    """Differences of 0.001 to 0.001 n in favour of dpce, but for the ranks that are named for a loss."""
    table = per_case(n=n, **dict.fromkeys(wrong, 0.0))
    for loss, ranks in wrong.items():
        signs = np.array([-1 if i + 1 in ranks else 1 for i in range(n)])
        rows = table["loss"] == loss
        table.loc[rows, "boundary_dice_in_plane"] = 0.3 + 0.01 * np.arange(n) - 0.001 * signs * np.arange(1, n + 1)
    return table


def test_contradictions_are_corrected_too(paper: Paper) -> None:
    # all ranks but 2 and 4 against the claim: p = 2 · 14 / 1024 = 0.027, and 0.082 for the smallest of three
    against = [1, 3, 5, 6, 7, 8, 9, 10]
    found = [f for f in evaluate_claims(paper, signed(dict.fromkeys(("dice", "pcol", "focal"), against)))
             if f.claim == "boundary"]  # fmt: skip
    assert {f.p * 1024 for f in found} == {28}
    assert {f.verdict for f in found} == {"inconclusive"}
    margin = per_case(dice=0.0, pcol=0.0, focal=0.0)
    for loss in ("dice", "pcol", "focal"):  # worse by more than the margin of 0.01, but for ranks 1 and 2
        signs = np.array([1, 1, *[-1] * 8])
        margin.loc[margin["loss"] == loss, "dice"] = 0.95 + 0.01 - 0.001 * signs * np.arange(1, 11)
    found = [f for f in evaluate_claims(paper, margin) if f.claim == "global"]
    assert {f.verdict for f in found} == {"contradicted"}  # 3 · 5 / 1024 < 0.025
    margin["dice"] = np.where(margin["loss"] == "dpce", 0.95, margin["dice"])
    for loss in ("dice", "pcol", "focal"):  # ranks 1, 2 and 4: 10 / 1024 < 0.025 < 3 · 10 / 1024
        signs = np.array([1, 1, -1, 1, *[-1] * 6])
        margin.loc[margin["loss"] == loss, "dice"] = 0.95 + 0.01 - 0.001 * signs * np.arange(1, 11)
    found = [f for f in evaluate_claims(paper, margin) if f.claim == "global"]
    assert {f.verdict for f in found} == {"inconclusive"}


def test_the_family_is_the_claims_whatever_was_trained(paper: Paper) -> None:
    # six cases on one side: p = 2 / 64 = 0.031 < 0.05 < 3 · 0.031, though one of three losses was trained
    everything = list(range(1, 7))
    findings = evaluate_claims(paper, signed({"dice": everything}, n=6))
    found = next(f for f in findings if (f.claim, f.loss) == ("boundary", "dice"))
    assert (found.p, found.p_holm) == (2 / 64, 6 / 64)
    assert found.verdict == "inconclusive"
    assert found.note == "6 cases are too few for any verdict at this level"
    assert found.detectable == pytest.approx(detectable_effect(found.sd_difference, 6, 0.05 / 3))
    page = claims_markdown(paper, findings, "the phantom", "")
    assert "level 0.05, Holm over 3 (1 tested);" in page
    ten = next(f for f in evaluate_claims(paper, per_case(dice=-0.02)) if f.claim == "boundary")
    assert (ten.p_holm, ten.verdict) == (6 / 1024, "confirmed")
    assert ten.power == pytest.approx(power_of(0.02, ten.sd_difference, 10, 0.05 / 3))


def test_the_power_of_a_margin_test_is_one_sided(paper: Paper) -> None:
    noisy = per_case(dice=0.0, pcol=0.0, focal=0.0)
    noisy.loc[noisy["loss"] != "dpce", "dice"] = 0.95 + np.tile(np.linspace(-0.015, 0.015, 10), 3)
    found = next(f for f in evaluate_claims(paper, noisy) if f.claim == "global")
    # level 0.025 / 3 on one side: the noncentral t beyond the one-sided critical value
    t = stats.nct.sf(stats.t.isf(0.025 / 3, 9), 9, np.sqrt(10) * 0.01 / found.sd_difference)
    assert found.power == pytest.approx(t, abs=1e-4)
    equal = next(f for f in evaluate_claims(paper, noisy) if f.claim == "global_equal")
    both = stats.nct.sf(stats.t.isf(0.05, 9), 9, np.sqrt(10) * 0.01 / equal.sd_difference)
    assert equal.power == pytest.approx(2 * both - 1, abs=2e-3)
