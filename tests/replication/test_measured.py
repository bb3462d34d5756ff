"""What was measured is read as it was written, or the file and the remedy are named."""

import pandas as pd
import pytest

from shapeloss.replication.scores import RECORD, SCORES, read_measured, read_record, read_scores, write_record


@pytest.fixture
def figures(tmp_path):
    rows = [{"loss": "ce", "case": f"00{case}", "structure": "mean", "dice": 0.5 + case / 100} for case in range(9)]
    pd.DataFrame(rows).to_csv(tmp_path / SCORES, index=False)
    write_record(tmp_path, {"source": "here"}, [SCORES, "histories.csv"])
    return tmp_path


def test_sound_scores_are_read(figures):
    assert read_record(figures)["source"] == "here"
    assert set(read_record(figures)["sha256"]) == {SCORES}
    assert list(read_scores(figures)["case"])[:2] == ["000", "001"]


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "truncated":
        del data[data.index(b"\n", len(data) // 2) + 1 :]  # at the end of a row: it is a valid table
    else:
        data[data.index(b"0.5") + 2] ^= 1  # another digit
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["truncated", "flipped"])
def test_damaged_scores_are_refused_with_a_remedy(figures, how):
    damage(figures / SCORES, how)
    for read in (lambda: read_scores(figures), lambda: read_measured(figures / SCORES)):
        with pytest.raises(
            ValueError, match=r"per_case\.csv: is not what evaluation\.json recorded.*; remove .*03_eva"
        ):
            read()


def test_a_damaged_record_is_refused_with_a_remedy(figures):
    path = figures / RECORD
    path.write_text(path.read_text(encoding="utf-8").replace("here", "herf"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"evaluation\.json: is damaged, or was edited.*; remove .*03_evaluate"):
        read_scores(figures)


def test_scores_without_a_record_or_checksums_are_read_as_they_are(figures):
    (figures / RECORD).write_text("{}", encoding="utf-8")
    damage(figures / SCORES, "flipped")
    assert len(read_scores(figures)) == 9
    (figures / RECORD).unlink()
    assert len(read_scores(figures)) == 9
