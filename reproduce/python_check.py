"""Can this Python make the environment? What `make` asks first: nothing is begun that cannot be finished."""

import sys

if sys.version_info < (3, 11):
    found = ".".join(map(str, sys.version_info[:2]))
    sys.exit("error: Python 3.11 or newer is needed, and {} is {}: make PYTHON=python3.11 ...".format(sys.executable, found))
try:
    import ensurepip  # noqa: F401
    import venv  # noqa: F401
except ImportError as error:
    package = "python{}.{}-venv".format(*sys.version_info[:2])
    sys.exit(
        "error: {} has no module {}: install it (Debian, Ubuntu: sudo apt install {}), and run make again".format(
            sys.executable, error.name, package
        )
    )
