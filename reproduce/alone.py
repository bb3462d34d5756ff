"""Become a command that runs in this folder alone: `make` sets the environment up by it, on any Python.

    python alone.py COMMAND ...

Another such command in the folder is waited for. The lock ends with the command, however it ends.
"""

import contextlib
import os
import sys

with contextlib.suppress(ImportError):  # Windows: nothing to lock with
    import fcntl

    place = os.open("Makefile", os.O_RDONLY)
    os.set_inheritable(place, True)
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Another make sets the environment up here: waiting for it ...", flush=True)
        fcntl.flock(place, fcntl.LOCK_EX)
    except OSError:
        pass  # a disk without locks: as before there were any
os.execvp(sys.argv[1], sys.argv[1:])
