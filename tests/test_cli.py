"""The commands, as a user types them."""

import json
import sys

import pytest
import yaml

from shapeloss.cli import main


def call(monkeypatch, *arguments):
    """Run a command in this process; returns its exit status or message."""
    monkeypatch.setattr(sys, "argv", ["shapeloss", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


@pytest.fixture
def profile(tmp_path, tiny_experiment):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(json.loads(tiny_experiment.model_dump_json())))
    return path


def test_a_phantom_is_made_and_checked(monkeypatch, capsys, tmp_path, profile):
    assert not call(monkeypatch, "phantom", tmp_path / "data", "--profile", profile)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
        "dataset.json",
        "imagesTr",
        "labelsTr",
        "landmarks",
    ]
    assert not call(monkeypatch, "check", tmp_path / "data", "--profile", profile, "--output", tmp_path / "cases.json")
    assert "4 cases, classes femur, tibia, patella: no problem found" in capsys.readouterr().out
    assert json.loads((tmp_path / "cases.json").read_text())["name"] == "tiny"


def test_mistakes_end_in_a_message(monkeypatch, tmp_path, profile):
    assert "error: there is no profile" in call(monkeypatch, "check", tmp_path, "--profile", tmp_path / "none.yaml")
    message = call(monkeypatch, "check", tmp_path / "none", "--profile", profile)
    assert message.startswith("error: ")
    assert "there is no such folder" in message
    values = yaml.safe_load(profile.read_text())
    values["data"]["phantom"] = None
    profile.write_text(yaml.safe_dump(values))
    assert "has no section data.phantom" in call(monkeypatch, "phantom", tmp_path / "data", "--profile", profile)
