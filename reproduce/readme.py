"""Fill the generated parts of README.md: the results tables and the metrics' contract table (`make readme`)."""

from __future__ import annotations

import re
from pathlib import Path

from shapeloss.files import write_text
from shapeloss.metrics import contract_table

ROOT = Path(__file__).resolve().parents[1]


def filled(text: str) -> str:
    """README.md with each block between `<!-- name:begin -->` and `<!-- name:end -->` made anew."""
    tables = {"table": "table1.md", "seeds": "phantom-seeds/table1.md"}
    blocks = {name: (ROOT / "figures" / path).read_text(encoding="utf-8") for name, path in tables.items()}
    blocks["contract"] = contract_table()
    for name, block in blocks.items():
        pattern = rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)"
        text, count = re.subn(pattern, lambda match, b=block: f"{match[1]}{b.strip()}\n{match[2]}", text, flags=re.S)
        if count != 1:
            raise ValueError(f"README.md must have the markers <!-- {name}:begin --> and <!-- {name}:end --> once")
    return text


if __name__ == "__main__":
    readme = ROOT / "README.md"
    write_text(readme, filled(readme.read_text(encoding="utf-8")))
