"""Where the command `shapeloss` begins: says which extra a command needs, where its libraries are not installed."""

from __future__ import annotations

import sys

from shapeloss._extras import EXTRAS, install_command

COMMANDS = {
    "predict": "train", "check": "train", "phantom": "train", "evaluate": "review", "compare": "review",
    "audit": "review", "import": "import",
}  # fmt: skip
"""Command → the extra that it needs."""


def main() -> None:
    """Run a command."""
    try:
        from shapeloss.cli.main import main as run

        run()
    except ModuleNotFoundError as error:
        if not any((error.name or "").partition(".")[0] in modules for modules in EXTRAS.values()):
            raise
        extra = next((COMMANDS[word] for word in sys.argv[1:] if word in COMMANDS), "review")
        sys.exit(f"error: this command needs {error.name}, which is not installed: {install_command(extra)}")


if __name__ == "__main__":
    main()
