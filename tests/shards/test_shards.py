"""Populations in shards: how they are split, what goes into quarantine, and what a second call does."""

import errno
import json
import os
import shutil
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from shapeloss.data.volume import read_volume, write_nifti
from shapeloss.review.score_folders import score_folders, score_pair, summarise
from shapeloss.runs.predict_folder import Predictor, load_run
from shapeloss.runs.run import train
from shapeloss.shards import work
from shapeloss.shards.journal import Journal
from shapeloss.shards.plan import DONE, Options, make_plan, split
from shapeloss.shards.work import Shard

pytest.importorskip("pyarrow")
from pyarrow import parquet

from shapeloss.shards.join import join

METRICS = ("dice", "volume_error_percent")


@pytest.fixture(scope="module")
def run_folder(tiny_experiment, tiny_manifest, tmp_path_factory):
    """A trained run."""
    folder = tmp_path_factory.mktemp("trained")
    train(tiny_experiment, tiny_manifest, "ce", 0, folder / "run", folder / "maps")
    return folder / "run"


class Population:
    """A folder of images and truths, and what was made of it."""

    def __init__(self, folder, run, data, cases):
        self.run, self.images, self.truth, self.output = run, folder / "images", folder / "truth", folder / "output"
        self.original = data / "imagesTr/knee_001.nii.gz"
        for kind, place in (("imagesTr", self.images), ("labelsTr", self.truth)):
            place.mkdir()
            for number, case in enumerate(cases):
                shutil.copy(data / kind / f"knee_{number % 4 + 1:03}.nii.gz", place / f"{case}.nii.gz")

    def plan(self, truth=True, **options):
        values = {"shard_size": 2, "options": Options(metrics=METRICS)} | options
        return make_plan(self.run, self.images, self.output, self.truth if truth else None, **values)

    def bring_up_to_date(self, **options):
        """What became of it."""
        for shard in self.plan(**options).pending:
            Shard(self.output, shard).carry_out()
        return join(self.output)

    def quarantine(self):
        """Case or file → its row."""
        table = pd.read_csv(self.output / "quarantine.csv", keep_default_na=False, dtype=str)
        return {row["case"] or row["reason"].partition(":")[0]: row for row in table.to_dict("records")}

    def files(self):
        return {path: path.stat().st_mtime_ns for path in self.output.rglob("*") if path.is_file()}


@pytest.fixture
def population(run_folder, tiny_manifest, tmp_path):
    return lambda *cases: Population(tmp_path, run_folder, tiny_manifest.folder, cases)


def test_shards_are_disjoint_and_depend_on_the_names_alone():
    names = [f"knee{number}" for number in range(25)]
    shards = split(names, 10, {})
    assert split(reversed(names), 10, {}) == shards
    assert [len(cases) for cases in shards.values()] == [10, 10, 5]
    assert sorted(case for cases in shards.values() for case in cases) == sorted(names)
    more = split([*names[1:], "a", *(f"new{number}" for number in range(7))], 10, shards)
    assert [len(cases) for cases in more.values()] == [len(set(shards["00000"]) - {names[0]}), 10, 10, 3]
    assert all(set(cases) <= {*more[shard], names[0]} for shard, cases in shards.items())
    assert sorted(case for cases in more.values() for case in cases) == sorted(
        [*names[1:], "a", *(f"new{number}" for number in range(7))]
    )


def test_the_scores_are_those_of_evaluate(population, tmp_path):
    its = population(*"abcde")
    joined = its.bring_up_to_date(options=Options())
    assert (joined.volumes, joined.scored, joined.quarantined) == (5, 5, 0)
    (tmp_path / "all").mkdir()
    for path in its.output.glob("shards/*/labels/*.nii.gz"):
        shutil.copy(path, tmp_path / "all")
    expected = score_folders(tmp_path / "all", its.truth, load_run(its.run).classes, progress=False)
    found = pd.read_parquet(its.output / "scores")
    pd.testing.assert_frame_equal(found, expected.per_case, check_dtype=False, check_exact=True)
    summary = pd.read_csv(its.output / "summary.csv")
    pd.testing.assert_frame_equal(summary, summarise(expected), check_dtype=False, check_exact=False)
    assert len(list((its.output / "scores").iterdir())) == 3


def test_a_second_call_does_nothing(population):
    its = population(*"abc")
    its.bring_up_to_date()
    before = its.files()
    assert its.plan().pending == ()
    assert its.files() == before


def test_a_broken_volume_is_in_quarantine_is_tried_again_and_heals(population):
    its = population(*"abcdef")
    (its.images / "a.nii.gz").write_bytes(its.original.read_bytes()[:100])
    scan = read_volume(its.original)
    write_nifti(its.images / "b.nii.gz", np.full(scan.array.shape, 3, np.int16), scan.affine)
    hole = scan.array.astype(np.float32)
    hole[0, 0, 0] = np.nan
    write_nifti(its.images / "c.nii.gz", hole, scan.affine)
    write_nifti(its.truth / "d.nii.gz", np.ones((4, 4, 4), np.uint8), scan.affine)
    (its.truth / "e.nii.gz").unlink()
    shutil.copy(its.truth / "f.nii.gz", its.truth / "surplus.nii.gz")
    joined = its.bring_up_to_date()
    assert (joined.scored, joined.predicted, joined.quarantined, joined.missing_truth, joined.files) == (1, 1, 4, 1, 1)
    assert "6 volumes: 1 scored, 1 predicted without a score, 4 in quarantine; 1 have no truth" in joined.to_text()
    rows = its.quarantine()
    assert {case: (row["step"], row["attempts"]) for case, row in rows.items() if len(case) == 1} == {
        "a": ("predict", "1"), "b": ("predict", "1"), "c": ("predict", "1"), "d": ("score", "1"),
    }  # fmt: skip
    assert "is not a valid NIfTI file" in rows["a"]["reason"]
    assert "every voxel of the image has the value 3" in rows["b"]["reason"]
    assert "c.nii.gz" in rows["c"]["reason"]
    assert "its grid is not that of" in rows["d"]["reason"]
    assert "has no image in" in rows[str(its.truth / "surplus.nii.gz")]["reason"]

    shutil.copy(its.original, its.images / "a.nii.gz")
    joined = its.bring_up_to_date()
    assert (joined.scored, joined.quarantined) == (2, 3)
    assert {case: row["attempts"] for case, row in its.quarantine().items() if len(case) == 1} == {
        "b": "2", "c": "2", "d": "2",
    }  # fmt: skip
    its.bring_up_to_date()
    assert its.plan().pending == ()  # three attempts are enough
    its.bring_up_to_date(retry_all=True)
    assert its.quarantine()["b"]["attempts"] == "4"
    shutil.copy(its.truth / "f.nii.gz", its.truth / "d.nii.gz")
    shutil.copy(its.truth / "f.nii.gz", its.truth / "e.nii.gz")
    assert its.bring_up_to_date().scored == 4


def test_what_no_check_foresaw_leaves_the_other_volumes_alone(population, monkeypatch):
    its = population(*"ab")
    predict = Predictor.predict

    def failing(self, case, path):
        if case == "a":
            raise RuntimeError("can't allocate memory: you tried to allocate 8 bytes")
        return predict(self, case, path)

    monkeypatch.setattr(Predictor, "predict", failing)
    assert its.bring_up_to_date().scored == 1
    assert its.quarantine()["a"]["reason"].endswith("a.nii.gz: RuntimeError: can't allocate memory: you tried to "
                                                    "allocate 8 bytes")  # fmt: skip


def test_a_full_disk_is_no_volumes_fault(population, monkeypatch):
    its = population(*"ab")

    def full(self, case, path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "predict", full)
        with pytest.raises(OSError, match="No space left"):
            its.bring_up_to_date()
    assert join(its.output).unfinished == ("00000",)
    assert its.bring_up_to_date().scored == 2
    assert Journal(its.output / "shards/00000/journal.jsonl").latest["a"]["attempts"] == 1


class Killed(BaseException):
    """Nothing catches it, as SIGKILL."""


def dies_at(monkeypatch, case, error):
    def score(name, *arguments):
        if name == case:
            raise error
        return score_pair(name, *arguments)

    monkeypatch.setattr(work, "score_pair", score)


@pytest.mark.parametrize("error", [Killed, KeyboardInterrupt])
def test_a_kill_between_volumes_costs_one_volume(population, monkeypatch, error):
    its = population(*"abc")
    with monkeypatch.context() as patch:
        dies_at(patch, "b", error)
        with pytest.raises(error):
            its.bring_up_to_date(shard_size=3)
    made = {path: time for path, time in its.files().items() if path.name in ("a.nii.gz", "b.nii.gz")}
    asked = []
    monkeypatch.setattr(work, "score_pair", lambda name, *rest: asked.append(name) or score_pair(name, *rest))
    assert its.bring_up_to_date(shard_size=3).scored == 3
    assert sorted(asked) == ["b", "c"]
    assert made.items() <= its.files().items()
    latest = Journal(its.output / "shards/00000/journal.jsonl").latest
    assert latest["b"]["attempts"] == (2 if error is Killed else 1)


def test_what_kills_its_process_each_time_is_put_into_quarantine_and_comes_last(population, monkeypatch):
    its = population(*"abc")
    with monkeypatch.context() as patch:
        dies_at(patch, "a", Killed)
        for _ in range(3):
            with pytest.raises(Killed):
                its.bring_up_to_date(shard_size=3)
        latest = Journal(its.output / "shards/00000/journal.jsonl").latest
        assert (latest["b"]["state"], latest["c"]["state"]) == ("scored", "scored")
        joined = its.bring_up_to_date(shard_size=3)
    assert (joined.scored, joined.quarantined) == (2, 1)
    assert "its process was ended during score, perhaps for lack of memory" in its.quarantine()["a"]["reason"]
    assert its.quarantine()["a"]["attempts"] == "3"
    assert its.plan(shard_size=3).pending == ()
    assert its.bring_up_to_date(shard_size=3, retry_all=True).scored == 3


def test_a_changed_image_is_made_again_and_a_new_time_stamp_alone_is_not(population, monkeypatch):
    its = population(*"abcd")
    its.bring_up_to_date()
    made = []
    predict = Predictor.predict
    monkeypatch.setattr(Predictor, "predict", lambda self, case, path: made.append(case) or predict(self, case, path))
    os.utime(its.images / "a.nii.gz")
    shutil.copy(its.images / "d.nii.gz", its.images / "c.nii.gz")
    before = pd.read_parquet(its.output / "scores").set_index("case")
    assert its.plan().pending == ("00000", "00001")
    assert its.bring_up_to_date().scored == 4
    assert made == ["c"]
    after = pd.read_parquet(its.output / "scores").set_index("case")
    pd.testing.assert_frame_equal(after.loc[["a", "b", "d"]], before.loc[["a", "b", "d"]])
    assert not after.loc["c"].equals(before.loc["c"])
    assert its.plan().pending == ()
    (its.output / "shards/00001/labels/d.nii.gz").unlink()
    assert its.bring_up_to_date().scored == 4
    assert made == ["c", "d"]


def test_truth_may_come_later_and_needs_no_network(population, monkeypatch):
    its = population(*"ab")
    joined = its.bring_up_to_date(truth=False)
    assert (joined.predicted, joined.missing_truth) == (2, 0)
    assert not (its.output / "scores").exists()
    monkeypatch.setattr(work, "load_run", None)
    assert its.bring_up_to_date().scored == 2
    assert its.bring_up_to_date(truth=False).scored == 0
    assert not list((its.output / "scores").iterdir())


def test_images_come_and_go(population):
    its = population(*"abc")
    its.bring_up_to_date()
    (its.images / "a.nii.gz").rename(its.images / "d.nii.gz")
    (its.truth / "a.nii.gz").rename(its.truth / "d.nii.gz")
    assert its.plan().notes == ("1 image(s) of before are gone: a; their label maps stay, their scores do not",)
    its.bring_up_to_date()
    assert sorted(set(pd.read_parquet(its.output / "scores")["case"])) == ["b", "c", "d"]
    assert its.plan().notes == ()


def test_a_population_has_one_run_and_one_set_of_options(population, run_folder, tmp_path):
    its = population(*"abc")
    its.bring_up_to_date()
    with pytest.raises(ValueError, match=r"was begun with other shard size, options \(its plan.json says which\)"):
        its.plan(shard_size=3, options=Options())
    shutil.copytree(run_folder, tmp_path / "other")
    values = json.loads((tmp_path / "other/run.json").read_text(encoding="utf-8"))
    del values["checksum"]
    values["experiment"]["postprocessing"]["closing_voxels"] = 3
    (tmp_path / "other/run.json").write_text(json.dumps(values))
    its.run = tmp_path / "other"
    with pytest.raises(ValueError, match="was begun with other run"):
        its.plan()
    (its.output / "plan.json").write_text("{}")
    with pytest.raises(ValueError, match=r"plan.json: is missing or not the plan of a population; choose another"):
        its.plan()


def test_arguments_that_cannot_be_used_are_named(population):
    its = population("a")
    with pytest.raises(ValueError, match="shard size and attempts must be 1 or more; got 0 and 3"):
        its.plan(shard_size=0)
    with pytest.raises(ValueError, match="plane must be auto"):
        Options(plane="oblique")
    with pytest.raises(ValueError, match="side must be left or right, got 'both'"):
        Options(side="both")
    (its.truth / "dataset.json").write_text('{"labels": {"background": 0, "tibia": 1, "femur": 2}}')
    with pytest.raises(ValueError, match=r"dataset.json contradicts the run .*: label 1 is called 'femur'"):
        its.plan()
    shutil.rmtree(its.images)
    with pytest.raises(FileNotFoundError, match="images: there is no such folder; check the name"):
        its.plan()


def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    for case, value in (("a", 1), ("b", np.float64(np.inf)), ("a", 0.1 + 0.2)):
        journal.add({"case": case, "rows": [{"dice": value}]})
    with open(journal.path, "a", encoding="utf-8") as file:
        file.write('{"case": "b", "rows": [{"di')
    again = Journal(journal.path)
    assert (again.rows("a"), again.rows("b")) == ([{"dice": 0.1 + 0.2}], [{"dice": np.inf}])
    again.add({"case": "c", "rows": []})
    again.compact()
    assert [json.loads(line)["case"] for line in journal.path.read_text(encoding="utf-8").splitlines()] == list("abc")
    assert Journal(journal.path).rows("a") == again.rows("a") == [{"dice": 0.1 + 0.2}]


def test_each_bit_of_a_journal_counts(tmp_path, capsys):
    journal = Journal(tmp_path / "journal.jsonl")
    for case, value in (("a", 1), ("b", 0.25), ("c", 3)):
        journal.add({"case": case, "state": "scored", "rows": [{"dice": value}]})
    lines = journal.path.read_bytes().splitlines(keepends=True)
    start = 8 * len(lines[0])
    for bit in range(start, start + 8 * len(lines[1])):
        content = bytearray(b"".join(lines))
        content[bit // 8] ^= 1 << bit % 8
        journal.path.write_bytes(content)
        found = Journal(journal.path)
        if found.latest.keys() == set("abc"):  # but for the name of the CRC, which is odd then
            assert "state" in found.latest["b"]
            assert len(found.latest["b"]) == 3
            assert found.rows("b") == [{"dice": 0.25}]
        else:
            assert found.latest.keys() <= set("ac")
            assert "journal.jsonl: line 2 is damaged; its volume is made again\n" in capsys.readouterr().out


def test_lines_of_a_journal_without_a_crc_are_read(tmp_path, capsys):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"case": "a", "rows": [{"dice": 0.5}]}\n[]\n', encoding="utf-8")
    journal = Journal(path)
    assert journal.rows("a") == [{"dice": 0.5}]
    assert capsys.readouterr().out == f"{path}: line 2 is damaged; its volume is made again\n"
    journal.compact()
    assert Journal(path).rows("a") == [{"dice": 0.5}]
    assert not capsys.readouterr().out


def test_a_damaged_line_is_neither_done_nor_a_kill(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    for state in ("started", "scored"):
        journal.add({"case": "a", "state": state, "attempts": 3})
    journal.path.write_bytes(journal.path.read_bytes().replace(b"scored", b"scared"))
    assert Journal(journal.path).latest == {}


def test_a_volume_whose_line_is_damaged_is_made_again(population, capsys):
    its = population("a", "b")
    its.bring_up_to_date()
    expected = pd.read_parquet(its.output / "scores")
    shard = its.output / "shards/00000"
    label_map = (shard / "labels/a.nii.gz").read_bytes()
    (shard / "labels/a.nii.gz").write_bytes(b"of which nothing is known")
    content = (shard / "journal.jsonl").read_bytes()
    (shard / "journal.jsonl").write_bytes(content.replace(b'"scored"', b'"scared"', 1))
    (shard / DONE).unlink()
    assert its.bring_up_to_date().scored == 2
    assert "journal.jsonl: line 1 is damaged" in capsys.readouterr().out
    assert (shard / "labels/a.nii.gz").read_bytes() == label_map
    pd.testing.assert_frame_equal(pd.read_parquet(its.output / "scores"), expected)


def test_damaged_scores_are_named_and_written_again(population):
    its = population("a", "b")
    its.bring_up_to_date()
    expected = (its.output / "summary.csv").read_bytes()
    path = its.output / "scores/00000.parquet"
    sound = path.read_bytes()
    chunks = parquet.read_metadata(path).row_group(0)
    pages = sum(chunks.column(i).total_compressed_size for i in range(chunks.num_columns))  # no CRC is of the footer
    said = []
    for place in range(4, 4 + pages, 61):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
        try:
            join(its.output)
        except ValueError as error:
            said.append(str(error))
        else:  # a column that is not read
            assert (its.output / "summary.csv").read_bytes() == expected
    assert said
    remedy = f"; remove it and {its.output / 'shards/00000' / DONE}, and run the same command again"
    assert all(text.startswith(f"{path}: is damaged (") and remedy in text for text in said)
    path.unlink()
    (its.output / "shards/00000" / DONE).unlink()
    its.bring_up_to_date()
    assert (its.output / "summary.csv").read_bytes() == expected
    assert path.read_bytes() == sound


def test_a_processor_without_memory_puts_a_volume_into_quarantine_with_a_remedy(population, monkeypatch):
    """PyTorch raises a plain RuntimeError there."""

    def fail(*arguments):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr("shapeloss.runs.predict_folder.predict_labels", fail)
    its = population("a")
    assert its.bring_up_to_date().quarantined == 1
    assert "there is not enough memory on cpu; train with training.patch_size" in its.quarantine()["a"]["reason"]


def test_memory_does_not_grow_with_the_number_of_volumes(population, tmp_path):
    its = population("k00")
    affine = read_volume(its.original).affine
    truth = np.zeros((16, 64, 64), np.uint8)
    truth[4:12, 16:48, 16:48] = 1
    names = [f"k{number:02}" for number in range(20)]
    peaks = []
    for count in (4, 20):
        for case in names[:count]:
            write_nifti(its.images / f"{case}.nii.gz", truth * np.int16(100), affine)
            write_nifti(its.truth / f"{case}.nii.gz", truth, affine)
        its.output = tmp_path / f"of_{count}"
        plan = its.plan(shard_size=count, options=Options(any_spacing=True, metrics=("dice",)))
        for shard in plan.pending:  # what is loaded once, beforehand
            tracemalloc.start()
            done = Shard(its.output, shard).carry_out()
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert done["scored"] == count
    assert peaks[1] - peaks[0] < truth.size * 4  # one volume, in float32


def test_the_label_maps_of_a_run_that_was_trained_again_are_not_mixed(population):
    its = population("a")
    its.plan()
    plan = its.output / "plan.json"
    values = json.loads(plan.read_text(encoding="utf-8"))
    plan.write_text(json.dumps(values | {"fingerprint": "of before"}))
    with pytest.raises(ValueError, match=r"was trained again since .* was begun; choose another output folder"):
        Shard(its.output, "00000").carry_out()
    assert not (its.output / "shards/00000" / DONE).exists()
    with pytest.raises(ValueError, match=r"order.json: is missing or not an order; remove it"):
        Shard(its.output, "00007")
