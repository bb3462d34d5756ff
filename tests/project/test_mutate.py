"""The runner of the deliberate breaks, on a repository of one function; and that no listed break has gone stale."""

from __future__ import annotations

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
        ({"find": "x * 2"}, "broken", "0 times, not once"),
        ({"find": "x"}, "broken", "2 times, not once"),
        ({"test": "test_toy.py::test_no_such"}, "broken", ""),
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


def test_every_listed_break_fits_the_code():
    mutations = mutate.load()
    assert mutations
    for mutation in mutations:
        text = (mutate.ROOT / mutation.file).read_text(encoding="utf-8")
        assert text.count(mutation.find) == 1, f"{mutation.part}: {mutation.name}"
        assert mutation.find != mutation.replace, mutation.name
        assert (mutate.ROOT / mutation.test.split("::")[0]).exists(), mutation.name


def test_select_by_part_and_by_name():
    mutations = mutate.load()
    assert mutate.select(mutations, []) == mutations
    losses = mutate.select(mutations, ["losses"])
    assert {m.part for m in losses} >= {"losses"}
    (bug,) = mutate.select(mutations, ["unweighted loss is returned"])
    assert bug.file == "shapeloss/losses/cross_entropy.py"
