"""The benchmark's page and its check, on made-up and on committed measurements; no time is measured here."""

import copy
import json

import pytest
from helpers.project import load_script


@pytest.fixture(scope="module")
def speed():
    return load_script("benchmarks/speed.py")


@pytest.fixture(scope="module")
def committed(speed):
    return json.loads(speed.FILE.read_text(encoding="utf-8"))


def test_the_page_is_made_from_the_measurements(speed, committed):
    assert speed.FILE.with_suffix(".md").read_text(encoding="utf-8") == speed.markdown(committed)


def test_the_check_finds_what_became_slower(speed, committed):
    assert speed.check(committed, committed) == []
    slower = copy.deepcopy(committed)
    slower["rows"][3]["ratio"] *= speed.TOLERANCE * 1.01
    slower["rows"][4]["ratio"] *= speed.TOLERANCE * 0.99
    (line,) = speed.check(slower, committed)
    assert line.startswith(committed["rows"][3]["what"])
    slower["rows"][3]["what"] = "a new row, which nothing is committed for"
    assert speed.check(slower, committed) == []


def test_a_missed_aim_is_listed_with_its_reason(speed, committed):
    found = copy.deepcopy(committed)
    for row in found["rows"]:
        row["aim"] = None
    found["rows"][0] |= {"aim": 2.0, "ratio": 2.5, "why": "Because. Next: that."}
    found["rows"][1] |= {"aim": 2.0, "ratio": 1.5}
    found["singles"][0]["s"] = 100.0
    (line,) = speed.missed_aims(found)
    assert "2.500" in line
    assert line.endswith("Because. Next: that.")
    found["singles"][0]["s"] = 200.0
    assert len(speed.missed_aims(found)) == 2
    assert "(aim: 150 s, missed)" in speed.markdown(found)


def test_a_peer_with_other_work_is_measured_by_its_share(speed, monkeypatch):
    """Ours takes 3 s, the peer 4 s for twice the work: 1.5 times its time. By a clock that the calls set."""
    now = [0.0]
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])

    def take(seconds):
        def call():
            now[0] += seconds

        return call

    row = speed.Row("x", take(3), {"peer": take(4), "other": take(6)}, aim=1.0, peer_work={"peer": 2.0}, why="so")
    first, second = speed.measure(row, 1, 3)
    assert (first["ours_s"], first["peer_s"], first["ratio"], first["aim"]) == (3, 2, 1.5, 1.0)
    assert (second["peer_s"], second["ratio"], second["aim"], second["why"]) == (6, 0.5, None, "")
    assert first["quartiles"] == [1.5, 1.5]
