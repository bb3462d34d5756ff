"""Predict and score one shard of a population: the command of a job of population.smk."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from shapeloss._files import os_error_message
from shapeloss.shards.work import Shard


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder that population.py made")
    parser.add_argument("shard", help="such as 00012")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, cuda:1 or mps")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the volume that is being made is not to blame
    try:
        done = Shard(arguments.output, arguments.shard, arguments.device).carry_out()
    except OSError as error:
        sys.exit(f"error: {os_error_message(error, arguments.output)}")
    except (ValueError, ModuleNotFoundError) as error:
        sys.exit(f"error: {error}")
    print(f"{done['volumes']} volumes, {done['scored']} scored, {len(done['quarantined'])} in quarantine")


if __name__ == "__main__":
    main()
