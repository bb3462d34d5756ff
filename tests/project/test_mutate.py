"""The runner of the deliberate breaks, on a repository of one function; stale entries are reported."""

from __future__ import annotations

import warnings

import mutate
import pytest

HALF = mutate.Mutation("toy", "no half", "toy.py", "x / 2", "x", "test_toy.py::test_half", "halves")


@pytest.fixture
def toy(tmp_path):
    (tmp_path / "toy.py").write_text("def half(x):\n    return x / 2\n")
    (tmp_path / "test_toy.py").write_text(
        "from toy import half\ndef test_half():\n    assert half(4) == 2\ndef test_zero():\n    assert half(0) == 0\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "colour", "detail"),
    [
        ({}, "red", "test_toy.py::test_half"),
        ({"test": "test_toy.py::test_zero"}, "green", "test_toy.py::test_zero"),
        ({"replace": "x /"}, "broken", ""),
    ],
)
def test_colour_of_a_break(toy, changes, colour, detail):
    mutation = mutate.Mutation(**(vars(HALF) | changes))
    result = mutate.try_tests([mutation.test], mutation, toy)
    assert result.colour == colour
    assert detail in result.detail
    assert "x / 2" in (toy / "toy.py").read_text(encoding="utf-8")  # the break stays in its copy


def test_a_run_fails_for_a_green_break_and_for_a_test_that_is_red_anyway(toy, capsys):
    assert mutate.run([HALF], toy, jobs=1)
    assert "1 of 1 breaks were seen" in capsys.readouterr().out
    blind = mutate.Mutation(**(vars(HALF) | {"test": "test_toy.py::test_zero"}))
    assert not mutate.run([HALF, blind], toy, jobs=2)
    (toy / "toy.py").write_text("def half(x):\n    return x / 2 + 1\n")
    assert not mutate.run([HALF], toy, jobs=1)
    assert "not green without a break: test_toy.py::test_half" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"find": "x * 2"}, "holds 'x * 2' 0 times, not once"),
        ({"find": "x"}, "holds 'x' 2 times, not once"),
        ({"file": "other.py"}, "other.py does not exist"),
        ({"test": "test_toy.py::test_no_such"}, "there is no test test_toy.py::test_no_such"),
        ({"test": "test_other.py"}, "there is no test test_other.py"),
        ({}, ""),
    ],
)
def test_an_entry_that_does_not_apply_is_reported_and_fails_nothing(toy, changes, reason, capsys):
    entry = mutate.Mutation(**(vars(HALF) | {"name": "the other"} | changes))
    assert mutate.stale(entry, toy).endswith(reason)
    assert mutate.run([HALF, entry], toy, jobs=1)
    shown = capsys.readouterr().out
    assert ("1 of 1 breaks were seen; 1 stale" if reason else "2 of 2 breaks were seen\n") in shown
    assert reason in shown


def test_every_listed_break_changes_something_and_those_that_are_stale_are_reported():
    mutations = mutate.load()
    assert mutations
    assert not [mutation.name for mutation in mutations if mutation.find == mutation.replace]
    for mutation in mutations:
        if reason := mutate.stale(mutation):
            warnings.warn(
                f"stale entry in tests/mutations/{mutation.part}.toml: {mutation.name}: {reason}", stacklevel=1
            )


def test_select_by_part_and_by_name():
    mutations = mutate.load()
    assert mutate.select(mutations, []) == mutations
    losses = mutate.select(mutations, ["losses"])
    assert {m.part for m in losses} >= {"losses"}
    (bug,) = mutate.select(mutations, ["unweighted loss is returned"])
    assert bug.file == "shapeloss/losses/cross_entropy.py"
