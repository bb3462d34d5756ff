"""The evaluation protocol: what would let a score be better than it is (split, selection, scoring, pairing)."""

import json
import shutil

import numpy as np
import pytest
import torch

from shapeloss import train as loop
from shapeloss.data.grid import WorkingGrid
from shapeloss.data.layout import DatasetError
from shapeloss.data.manifest import Manifest, assign_splits, prepare
from shapeloss.data.options import Split
from shapeloss.data.volume import write_nifti
from shapeloss.replication.scores import score_runs
from shapeloss.runs import run as runs
from shapeloss.runs.run import train
from shapeloss.stats.compare_losses import compare_losses
from shapeloss.train import TrainingOptions, TrainingVolume, augment, validation_dice, volume_of_step

NAMES = [f"case{n:02d}" for n in range(20)]


@pytest.mark.parametrize("test_cases", [(), ("case03", "case07", "case19")])
@pytest.mark.parametrize("seed", range(5))
def test_no_case_is_dealt_twice(seed, test_cases):
    split = Split(train=10, validation=4, test=len(test_cases) or 5, seed=seed, test_cases=test_cases)
    dealt = assign_splits(NAMES, split)
    parts = {part: {name for name, its in dealt.items() if its == part} for part in ("train", "validation", "test")}
    assert {part: len(names) for part, names in parts.items()} == {"train": 10, "validation": 4, "test": split.test}
    assert len(set.union(*parts.values())) == 14 + split.test
    if test_cases:
        assert parts["test"] == set(test_cases)


def test_one_image_under_two_names_is_refused(tiny_experiment, tiny_manifest, tmp_path):
    shutil.copytree(tiny_manifest.folder, tmp_path / "data")
    train_case, test_case = tiny_manifest.names("train")[0], tiny_manifest.names("test")[0]
    shutil.copy(tmp_path / f"data/imagesTr/{train_case}.nii.gz", tmp_path / f"data/imagesTr/{test_case}.nii.gz")
    with pytest.raises(DatasetError, match=r"is the same image as .* remove one") as caught:
        prepare(tiny_experiment.data, tmp_path / "data", tmp_path / "cases.json")
    assert f"{test_case}, test" in str(caught.value)
    assert f"{train_case}, train" in str(caught.value)


def test_each_case_serves_for_what_it_was_dealt_for_and_test_cases_come_last(
    tiny_experiment, tiny_manifest, tmp_path, monkeypatch
):
    trained, validated, loaded, at_step = [], [], [], [0]
    load, validate = Manifest.load, validation_dice

    def watch_load(self, name, cache=None):
        loaded.append((name, at_step[0]))
        return load(self, name, cache)

    def watch_augment(volume, *arguments):
        trained.append(volume.name)
        return augment(volume, *arguments)

    def watch_validation(network, volumes, options):
        validated.extend(volume.name for volume in volumes)
        return validate(network, volumes, options)

    monkeypatch.setattr(Manifest, "load", watch_load)
    monkeypatch.setattr(loop, "augment", watch_augment)
    monkeypatch.setattr(runs, "validation_dice", watch_validation)
    train(
        tiny_experiment,
        tiny_manifest,
        "ce",
        0,
        tmp_path,
        tmp_path / "maps",
        lambda step, _: at_step.__setitem__(0, step),
    )
    assert set(trained) == set(tiny_manifest.names("train"))
    assert set(validated) == set(tiny_manifest.names("validation"))
    last = tiny_experiment.training.steps
    assert {name for name, step in loaded if step < last} == set(trained) | set(validated)
    assert {name for name, step in loaded if step == last} == set(tiny_manifest.names("test"))
    predicted = {path.name.removesuffix(".nii.gz") for path in (tmp_path / "predictions").iterdir()}
    assert predicted == set(tiny_manifest.names("test"))


def test_each_epoch_has_an_order_of_its_own():
    orders = {tuple(volume_of_step(epoch * 7 + i, 7, 0) for i in range(7)) for epoch in range(5)}
    assert len(orders) == 5


class Fixed(torch.nn.Module):
    """A network that predicts given labels, whatever it is shown."""

    def __init__(self, labels, classes):
        super().__init__()
        self.logits = torch.nn.functional.one_hot(torch.as_tensor(labels), classes).movedim(-1, 0)[None].float()

    def forward(self, image):
        return self.logits


def test_validation_is_the_mean_dice_of_the_structures_alone():
    truth = np.zeros((1, 4, 5), np.int64)
    truth[0, 0, :4], truth[0, 1, :2] = 1, 2
    found = np.zeros_like(truth)
    found[0, 0, :2], found[0, 1, :2], found[0, 3, 4] = 1, 2, 2
    volume = TrainingVolume(torch.zeros(truth.shape), torch.from_numpy(truth), (1.0, 1.0, 1.0))
    dice = validation_dice(Fixed(found, 3), [volume], TrainingOptions())
    assert dice == pytest.approx((2 * 2 / (4 + 2) + 2 * 2 / (2 + 3)) / 2)  # with the background it would be 0.77


def test_the_training_loss_of_a_row_is_since_the_row_before(tiny_experiment, tiny_manifest, tmp_path, monkeypatch):
    values = []

    class Counting(torch.nn.Module):
        """1, 2, 3, …, with a gradient."""

        def forward(self, logits, labels, phi=None):
            values.append(float(len(values) + 1))
            return logits.sum() * 0 + values[-1]

    monkeypatch.setattr(type(tiny_experiment), "build_loss", lambda *_: Counting())
    history = train(tiny_experiment, tiny_manifest, "ce", 0, tmp_path, tmp_path / "maps")
    assert history["step"].tolist() == [4, 8, 10]
    assert history["train_loss"].tolist() == [2.5, 6.5, 9.5]


def test_of_equal_checkpoints_the_first_is_tested(tiny_experiment, tiny_manifest, tmp_path, monkeypatch):
    scores = iter([0.9, 0.9, 0.9])
    monkeypatch.setattr(runs, "validation_dice", lambda *_: next(scores))
    train(tiny_experiment, tiny_manifest, "ce", 0, tmp_path, tmp_path / "maps")
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["best_step"] == 4


@pytest.mark.parametrize("first", [1, 2])
def test_between_two_labels_the_lower_wins(first):
    labels = np.array([first, 3 - first], np.uint8).reshape(2, 1, 1)
    finer = WorkingGrid((2, 1, 1), np.eye(4), spacing=(2 / 3, 1.0, 1.0))
    assert finer.resampled_shape == (3, 1, 1)
    assert finer.labels_to_working(labels).ravel().tolist() == [first, 1, 3 - first]  # the middle lies halfway


@pytest.fixture
def predicted(tiny_experiment, tiny_manifest, tmp_path):
    """Predictions of two losses and two seeds on two test cases, each with a mask that no other has."""
    split = {"train": 1, "validation": 1, "test": 2}
    experiment = tiny_experiment.model_validate(
        tiny_experiment.model_dump() | {"seeds": (0, 1), "data": tiny_experiment.data.model_dump() | {"split": split}}
    )
    manifest = prepare(experiment.data, tiny_manifest.folder, tmp_path / "cases.json")
    expected = {}
    for row, loss in enumerate(experiment.losses):
        for seed in experiment.seeds:
            folder = tmp_path / "runs" / loss / f"seed{seed}"
            (folder / "predictions").mkdir(parents=True)
            (folder / "run.json").write_text("{}")
            for index, name in enumerate(manifest.names("test")):
                case = manifest.original(name)
                femur = np.argwhere(case.labels == 1)
                missing = femur[: len(femur) * (1 + row + 2 * seed + 4 * index) // 10]
                labels = case.labels.copy()
                labels[tuple(missing.T)] = 0
                write_nifti(folder / f"predictions/{name}.nii.gz", labels, case.affine)
                kept = len(femur) - len(missing)
                expected[loss, seed, name] = 2 * kept / (kept + len(femur))
            for part in ("train", "validation"):  # what lies there of other cases is no score
                for name in manifest.names(part):
                    write_nifti(folder / f"predictions/{name}.nii.gz", manifest.original(name).labels, case.affine)
    return experiment, manifest, tmp_path, expected


def test_each_score_is_of_its_loss_seed_and_case_against_that_case(predicted):
    experiment, manifest, folder, expected = predicted
    scores = score_runs(experiment, manifest, folder, folder / "per_case.csv")
    femur = scores[scores["structure"] == "femur"].set_index(["loss", "seed", "case"])["dice"]
    assert femur.to_dict() == pytest.approx(expected)
    assert len(set(expected.values())) == 8
    assert (scores[scores["structure"] == "tibia"]["dice"] == 1).all()


def test_pairs_are_of_one_case_whatever_the_order_of_rows(predicted):
    """Differences are taken within a case; rows in another order, or of cases by another name, change nothing else."""
    experiment, manifest, folder, expected = predicted
    rows = score_runs(experiment, manifest, folder, folder / "per_case.csv").query("structure == 'mean'")
    tests = compare_losses(rows, "dpce", ["dice"])
    shuffled = rows.sample(frac=1, random_state=1)
    assert compare_losses(shuffled, "dpce", ["dice"]).equals(tests)
    means = {
        loss: {case: np.mean([expected[loss, seed, case] for seed in (0, 1)]) for case in manifest.names("test")}
        for loss in ("dpce", "ce")
    }
    by_case = [means["dpce"][case] - means["ce"][case] for case in manifest.names("test")]
    by_case = np.array(by_case) / 3  # of three structures one differs
    assert tests["difference"].tolist() == pytest.approx([by_case.mean()])
    assert tests["sd_difference"].tolist() == pytest.approx([by_case.std(ddof=1)])
    assert tests["n"].tolist() == [2]
