"""Can this Python make the environment? What `make` asks first: nothing is begun that cannot be finished."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (this is what finds it out)
    found = ".".join(map(str, sys.version_info[:2]))
    sys.exit(f"error: Python 3.11 or newer is needed, and {sys.executable} is {found}: make PYTHON=python3.11 ...")
try:
    import ensurepip  # noqa: F401
    import venv  # noqa: F401
except ImportError as error:
    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    sys.exit(
        f"error: {sys.executable} has no module {error.name}: install it (Debian and Ubuntu: sudo apt install "
        f"{package}), and run make again"
    )
