"""The audit of the whole paper: the statements that the project's readers will quote."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from shapeloss.replication.paper import Paper, read_paper
from shapeloss.review.audit.dice_vs_boundary import read_relation
from shapeloss.review.audit.paper import audit_markdown, audit_paper, conclusions, write_audit

ROOT = Path(__file__).resolve().parents[2]
PAPER = ROOT / "reproduce" / "paper.yaml"


@pytest.fixture(scope="module")
def audit():
    return audit_paper(read_paper(PAPER), read_relation(None, beside=PAPER))


def changed(**values):
    """The paper with other reported results: (source, metric, loss) → printed."""
    content = yaml.safe_load(PAPER.read_text(encoding="utf-8"))
    for result in content["results"]:
        key = f"{result['source']}_{result['metric']}_{result['loss']}"
        result["printed"] = values.get(key, result["printed"])
    return Paper.model_validate(content)


def test_one_near_failure_beside_nine_near_perfect_ones(audit):
    dice = next(a for a in audit.results if a.name == "A: Global Dice of dice")
    assert dice.per_case.implication.startswith("one volume is at most 0.64, and the other nine average at least 0.99")
    assert any("one volume is at most 0.64, and the other nine average at least 0.99" in p for p in conclusions(audit))


def test_percent_lie_between_0_and_100(audit):
    assert {a.reported.unit for a in audit.results} == {1, 0.01}
    assert all(a.per_case.possible for a in audit.results)


def test_the_sources_differ_by_a_factor_of_ten(audit):
    sd = audit.sources[(audit.sources["metric"] == "dice") & (audit.sources["quantity"] == "sd")].set_index("loss")
    assert sd.loc[["dpce", "dice", "focal"], "shift"].abs().tolist() == [1, 1, 1]
    assert sd.loc["pcol", "shift"] == 0
    assert not sd["agree"].any()
    assert audit.sources.loc[audit.sources["metric"] != "dice", "agree"].all()
    text = " ".join(conclusions(audit))
    assert "disagree in 5 of 16 numbers" in text
    assert "3 of them fit a shifted decimal point" in text


def test_the_correlation_that_significantly_needs(audit):
    assert audit.correlations["boundary", "A", "dice"].printed == pytest.approx(0.83, abs=0.005)
    assert set(audit.correlations) == {("boundary", s, loss) for s in "AB" for loss in ("dice", "pcol", "focal")}
    text = next(point for point in conclusions(audit) if "No test" in point)
    assert "0.31 at least" in text.replace("0.31 at\nleast", "0.31 at least")
    assert "0.84 for the hardest" in text


def test_dice_beside_boundary_dice(audit):
    """Even displacements leave a low boundary Dice at a high Dice: each pair was seen in some reading, not in all."""
    assert all(check.seen for check in audit.relations.values())
    page = audit_markdown(audit)
    assert "contradict" not in page
    assert "cannot hold" not in page
    readings = audit.relations["A", "dice"].limits.set_index("structure")["seen"]
    assert readings.to_dict() == {"femur": True, "tibia": False, "patella": False, "mean": False, "merged": False}
    assert audit.relations["A", "dpce"].limits["seen"].all()


def test_what_was_not_seen_is_said():
    relation = read_relation(None, beside=PAPER)
    random_only = audit_paper(read_paper(PAPER), relation[relation["correlation_mm"] < 100])
    assert random_only.relations["A", "dice"].seen is False
    points = [point for point in conclusions(random_only) if "not seen together on the phantom" in point]
    assert points[0].startswith("**A, dice")
    assert "does not show that it cannot be" in points[0]


def test_what_cannot_be_audited_stops_nothing_else():
    content = yaml.safe_load(PAPER.read_text(encoding="utf-8"))
    content["results"][0]["printed"] = "0.29 ± 0.00"
    content["results"][5]["n"] = 1
    audit = audit_paper(Paper.model_validate(content), read_relation(None, beside=PAPER))
    assert len(audit.results) == 15
    page = audit_markdown(audit)
    assert "A: Global Dice of dice, 0.96 ± 0.12, n = 1, was not audited: n and values_per_case" in page
    assert "A, boundary: the correlation that dpce against pcol needs was not computed: both SDs must be above" in page
    assert ("B", "dice") in audit.relations
    assert ("A", "dice") not in audit.relations


def test_without_a_relation_that_question_is_left_out():
    audit = audit_paper(read_paper(PAPER))
    assert audit.relations == {}
    assert "Left out for 8 pair(s): no measured relation was given" in audit_markdown(audit)
    assert "`--relation`" in audit_markdown(audit)


def test_what_cannot_be_is_said():
    impossible = audit_paper(changed(A_dice_dice="0.96 ± 0.30"))
    point = next(p for p in conclusions(impossible) if "Global Dice of dice" in p)
    assert point.startswith("**A: Global Dice of dice, 0.96 ± 0.30, cannot be true**")
    assert "**impossible**" in audit_markdown(impossible)
    over_structures = audit_paper(changed(A_dice_dice="0.96 ± 0.17"))
    point = next(p for p in conclusions(over_structures) if "Global Dice of dice" in p)
    assert "cannot be an SD over 10 volumes" in point
    assert "over 30 structures it can" in point


def test_nothing_remarkable_is_not_remarked():
    quiet = changed(**{f"A_dice_{k}": v for k, v in {"dpce": "0.96 ± 0.01", "dice": "0.96 ± 0.01"}.items()})
    points = conclusions(audit_paper(quiet))
    assert not any("Global Dice of dpce" in p or "Global Dice of dice" in p for p in points)
    assert any("Global Dice of pcol" in p for p in points)


def test_the_page(audit, tmp_path):
    write_audit(tmp_path / "audit.md", audit)
    page = (tmp_path / "audit.md").read_text(encoding="utf-8")
    for a in audit.results:
        assert f"| {a.reported.source} | {a.metric} | {a.reported.loss} | {a.reported.printed} | 10 |" in page
    sample = next(line for line in page.splitlines() if "A: Global Dice of dice, 0.96 ± 0.12: mildest" in line)
    values = np.array([float(x) for x in sample.split("mildest ")[1].split(", ")])
    assert len(values) == 10
    assert round(values.mean(), 2) == 0.96
    assert round(values.std(ddof=1), 2) == 0.12


def test_the_relation_beside_the_paper(tmp_path):
    assert read_relation(None, beside=tmp_path / "paper.yaml") is None
    table = read_relation(None, beside=PAPER)
    assert {"dice", "boundary_dice", "structure", "correlation_mm", "displacement_mm"} <= set(table.columns)
    pd.testing.assert_frame_equal(read_relation(PAPER.parent / "relation.csv", beside=tmp_path / "x"), table)
