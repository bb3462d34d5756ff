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
    assert speed.check(committed, committed) == ([], [])
    slower = copy.deepcopy(committed)
    slower["rows"][3]["ratio"] *= speed.TOLERANCE * 1.01
    slower["rows"][4]["ratio"] *= speed.TOLERANCE * 0.99
    what = next(iter(slower["memory_mib"]))
    slower["memory_mib"][what] *= speed.TOLERANCE * 1.01
    worse, alone = speed.check(slower, committed)
    assert len(worse) == 2
    assert worse[0].startswith(committed["rows"][3]["what"])
    assert worse[1].startswith(f"MiB of {what}: ")
    assert alone == []


def test_the_check_says_what_it_could_not_compare(speed, committed):
    other = copy.deepcopy(committed)
    other["rows"][3] |= {"what": "a new row, which nothing is committed for", "ratio": 1e9}
    worse, (first, second) = speed.check(other, committed)
    assert worse == []
    assert first.startswith("a new row")
    assert first.endswith("now alone")
    assert second.startswith(committed["rows"][3]["what"])
    assert second.endswith("committed alone")


def test_a_missed_aim_is_listed_with_its_reason(speed, committed):
    found = copy.deepcopy(committed)
    for row in found["rows"]:
        row["aim"] = row["aim_s"] = None
    found["rows"][0] |= {"aim": 2.0, "ratio": 2.5, "why": "Because. Next: that."}
    found["rows"][1] |= {"aim": 2.0, "ratio": 1.5}
    found["singles"][0]["s"] = 100.0
    found["singles"][1]["share"] = 0.04
    (line,) = speed.missed_aims(found)
    assert "2.500" in line
    assert line.endswith("Because. Next: that.")
    found["singles"][0]["s"] = 200.0
    found["singles"][1]["share"] = 0.06
    found["rows"][2] |= {"aim_s": 1.0, "ours_s": 1.5}
    assert len(speed.missed_aims(found)) == 4
    assert "(aim: 150 s, missed)" in speed.markdown(found)


def test_plain_layers_are_pytorch_s_own(speed):
    """The same function, computed by other code; afterwards the network is ours again."""
    speed.torch.manual_seed(0)
    network = speed.VNet(1, 3, speed.VNetOptions((8, 8), (1, 1), ((2, 2, 2),)))
    image = speed.torch.rand(1, 1, 4, 8, 6)
    called = []

    def record(self, x):
        called.append(type(self).__name__)
        return plain(self, x)

    plain = speed.nn.Conv3d.forward
    speed.nn.Conv3d.forward = record
    try:
        expected = speed.PlainLayers(network)(image)
        by_plain = len(called)
        found = network(image)
    finally:
        speed.nn.Conv3d.forward = plain
    assert by_plain == len(called) > 0
    speed.torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


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
