"""Can this system run the workflow? What run.py and population.py ask first."""

import signal
import sys

if not hasattr(signal, "SIGHUP"):
    sys.exit(f"error: {sys.argv[0]} needs Linux or macOS, or WSL; see docs/reproducing.md")
