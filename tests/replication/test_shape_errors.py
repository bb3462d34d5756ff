"""Shape errors of a replication: whose, in which rows, and a page that names what was missed and what differs."""

import numpy as np
import pandas as pd
import pytest
from helpers.knees import two_test_knees

from shapeloss.data.volume import write_nifti
from shapeloss.metrics.shape import SHAPE_ERRORS, TrueShape
from shapeloss.replication.shape_errors import shape_table, write_shape_errors


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two test knees; `ce` predicts the truth, `dpce` one that is grown to the right and has no patella."""
    folder = tmp_path_factory.mktemp("shapes")
    experiment, manifest = two_test_knees(folder, shape=(16, 32, 40), spacing=(6.0, 3.5, 3.5))
    for name in manifest.names("test"):
        case = manifest.original(name)
        wider = np.where(case.labels == 0, np.roll(case.labels, 1, axis=0), case.labels)
        for loss, labels in (("dpce", np.where(wider == 3, 0, wider)), ("ce", case.labels)):
            write_nifti(folder / "runs" / loss / "seed0" / "predictions" / f"{name}.nii.gz", labels, case.affine)
    return experiment, manifest, folder


def test_each_case_loss_and_structure_has_a_row(run):
    experiment, manifest, folder = run
    table = shape_table(experiment, manifest, folder)
    assert table.groupby("loss", sort=False).size().to_dict() == {"dpce": 6, "ce": 6}
    found = table.set_index(["loss", "case", "structure"])
    assert (found.loc["ce", list(SHAPE_ERRORS)].to_numpy() == 0).all()
    name = manifest.names("test")[1]
    case, femur = manifest.original(name), next(k for k, v in manifest.classes.items() if v == "femur")
    wider = np.where(case.labels == 0, np.roll(case.labels, 1, axis=0), case.labels)
    expected = TrueShape.of(case.labels == femur, case.spacing, case.affine).errors(wider == femur)
    assert found.loc[("dpce", name, "femur"), list(SHAPE_ERRORS)].to_dict() == pytest.approx(expected, abs=1e-4)
    assert np.isinf(found.loc[("dpce", name, "patella"), list(SHAPE_ERRORS)].astype(float)).all()


def scores(dpce, ce, structure="femur"):
    return pd.DataFrame(
        {"case": f"k{case}", "loss": loss, "seed": 0, "structure": structure} | dict.fromkeys(SHAPE_ERRORS, value)
        for loss, values in (("dpce", dpce), ("ce", ce))
        for case, value in enumerate(values)
    )


def test_the_page_shows_means_by_structure_stars_and_what_was_missed(tmp_path):
    base = np.linspace(0.5, 0.6, 10)
    table = pd.concat([scores(base, base + 0.1), scores(base, [*base[:9] + 0.1, np.inf], "patella")])
    text = write_shape_errors(table, tmp_path / "shape_errors.md", "Data: these.")
    assert (tmp_path / "shape_errors.md").read_text(encoding="utf-8") == text
    lines = text.splitlines()
    assert "| dpce | +0.55 ± 0.03 | 0.55 ± 0.03 | 0.55 ± 0.03 |" in text
    (ce,) = [line for line in lines if line.startswith("| ce |")]
    cells = [cell.strip() for cell in ce.split("|")[2:-1]]
    assert cells[0] == "+0.64 ± 0.03 (1 missed)\\*"
    assert [cell.endswith("\\*") for cell in cells] == [True, True, False, False, True, True]  # shown, not tested
    assert "other than `dpce`" in text
    assert "| femur | ce | +0.65 ± 0.03 |" in text
    assert "| patella | ce | +0.64 ± 0.03 (1 missed) |" in text
    assert text.endswith("Data: these.\n")


def test_one_loss_is_compared_with_none(tmp_path):
    table = scores([0.5, -0.6], [1, 2])
    text = write_shape_errors(table[table["loss"] == "dpce"], tmp_path / "page.md", "")
    assert "Wilcoxon" not in text
    assert "| femur | dpce | −0.05 ± 0.78 |" in text
