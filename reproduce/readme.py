"""Fill the generated parts of README.md and docs/deviations.md: tables and captions (`make readme`)."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pandas as pd

from shapeloss._files import write_text
from shapeloss.metrics import definition_table
from shapeloss.replication.convergence import budget_note, read_longer
from shapeloss.replication.profile import load_experiment

ROOT = Path(__file__).resolve().parents[1]


def blocks() -> dict[str, str]:
    """Name of each generated part and its text."""
    tables = {"table": "table1.md", "seeds": "phantom-seeds/table1.md"}
    texts = {name: (ROOT / "figures" / path).read_text(encoding="utf-8") for name, path in tables.items()}
    profile = ROOT / "reproduce" / "profiles" / "phantom.yaml"
    scores = pd.read_csv(ROOT / "figures" / "per_case.csv")
    budget = budget_note(load_experiment(profile), scores, read_longer(profile))
    return texts | {"contract": definition_table(), "budget": budget}


def filled(text: str) -> str:
    """A page with each part between `<!-- name:begin -->` and `<!-- name:end -->` made anew.

    Raises:
        ValueError: a marker of no known name.
    """
    texts = blocks()

    def fill(match: re.Match[str]) -> str:
        if match["name"] not in texts:
            raise ValueError(f"<!-- {match['name']}:begin --> names no generated part; known are {', '.join(texts)}")
        part = textwrap.indent(texts[match["name"]].strip(), match["indent"])
        return f"{match['begin']}{part}\n{match['end']}"

    pattern = r"(?P<begin>(?P<indent> *)<!-- (?P<name>\w+):begin -->\n).*?(?P<end> *<!-- (?P=name):end -->)"
    return re.sub(pattern, fill, text, flags=re.S)


if __name__ == "__main__":
    for page in (ROOT / "README.md", ROOT / "docs" / "deviations.md"):
        write_text(page, filled(page.read_text(encoding="utf-8")))
