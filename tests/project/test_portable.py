"""What students and reviewers run needs no particular system: the syntax shows calls that Windows or macOS lack.

No Windows and no macOS runs these tests (docs/reproducing.md): what is found here is what can be seen without them.
"""

import ast
import errno
import os

import pytest
from helpers.project import ROOT
from pydantic import ValidationError

from shapeloss import _files
from shapeloss._closure import PACKAGE
from shapeloss.data.names import portable_name_fault
from shapeloss.replication.profile import Experiment
from shapeloss.runs import options
from shapeloss.runs.options import RunOptions

GUARDED = {
    ("_files.py", "import fcntl"): "nothing is locked where there is none, which is said",
    ("runs/device.py", "os.getuid"): "no user's number is in the name of a lock on Windows",
    ("runs/several.py", "GLOO_SOCKET_IFNAME"): "Linux's name of the loopback",
}
"""(module, what only some systems have) → what happens elsewhere. Each must lie in a `try` or behind a condition."""
MODULES = {
    *("fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "posix", "syslog", "crypt", "readline", "curses"),
    *("winreg", "winsound", "msvcrt", "_winapi"),
}
OS = {
    *("fork", "forkpty", "killpg", "kill", "getpgid", "getpgrp", "setpgid", "setsid", "getsid", "getuid", "geteuid"),
    *("getgid", "getegid", "getgroups", "setuid", "setgid", "getloadavg", "sched_getaffinity", "sched_setaffinity"),
    *("sched_yield", "nice", "getpriority", "setpriority", "uname", "mkfifo", "mknod", "chown", "lchown", "fchown"),
    *("fchmod", "chroot", "statvfs", "fstatvfs", "sysconf", "confstr", "pathconf", "sync", "fdatasync", "pread"),
    *("pwrite", "sendfile", "copy_file_range", "splice", "memfd_create", "eventfd", "posix_fadvise", "wait", "wait3"),
    *("wait4", "waitid", "openpty", "ttyname", "ctermid", "pipe2", "posix_spawn", "symlink", "startfile", "rename"),
    *("O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "O_DIRECT", "WNOHANG", "WIFEXITED", "WEXITSTATUS"),
}
"""Of `os`: what one of the systems lacks, or does otherwise (`rename` replaces no file on Windows)."""
SIGNALS = {"SIGKILL", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "SIGPIPE", "SIGSTOP", "SIGCONT"}
SIGNALS |= {"alarm", "setitimer", "pause", "pthread_kill", "pthread_sigmask", "sigwait", "siginterrupt"}
OPTIONS = {"preexec_fn", "start_new_session", "process_group", "pass_fds", "dir_fd"}
METHODS = {"symlink_to", "lchmod"}
TEXTS = ("/tmp", "/proc", "/dev/", "/etc/", "/var/", "/usr/", "/home/", "/bin/", "C:\\", "GLOO_SOCKET_IFNAME")


def _is_text(call):
    """Whether open() opens text: no mode, or one without `b`; a mode that is no literal is not judged."""
    mode = next((k.value for k in call.keywords if k.arg == "mode"), call.args[1] if len(call.args) > 1 else None)
    return mode is None or (isinstance(mode, ast.Constant) and "b" not in str(mode.value))


def _named(call, name):
    return any(keyword.arg == name for keyword in call.keywords)


def _call_faults(call):
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if isinstance(function, ast.Name) and name == "open" and _is_text(call) and not _named(call, "encoding"):
        yield "open without encoding"
    if name == "read_text" and isinstance(function, ast.Attribute) and not (call.args or _named(call, "encoding")):
        yield "read_text without encoding"
    if name == "write_text" and isinstance(function, ast.Attribute) and not _named(call, "encoding"):
        yield "write_text without encoding"
    if name == "to_csv" and not _named(call, "lineterminator"):
        yield "to_csv without lineterminator"
    if _named(call, "text") and not _named(call, "encoding"):
        yield "text without encoding"
    if name in METHODS and isinstance(function, ast.Attribute):
        yield name
    yield from (keyword.arg for keyword in call.keywords if keyword.arg in OPTIONS)
    argument = call.args[0] if call.args else None
    if name == "str" and isinstance(argument, ast.Call) and getattr(argument.func, "attr", "") == "relative_to":
        yield "str of relative_to instead of as_posix"


def _faults(node):
    """What of a node one of the systems lacks."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        yield from (f"import {name}" for name in names if name in MODULES)
        if isinstance(node, ast.ImportFrom) and node.module in ("os", "signal"):
            lacking = OS if node.module == "os" else SIGNALS
            yield from (f"{node.module}.{alias.name}" for alias in node.names if alias.name in lacking)
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        if node.attr in {"os": OS, "signal": SIGNALS}.get(node.value.id, ()):
            yield f"{node.value.id}.{node.attr}"
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(TEXTS):
        yield node.value
    elif isinstance(node, ast.Call):
        yield from _call_faults(node)


def _is_guard(node):
    """An `except ImportError`, or a condition that asks for the system or for what it has."""
    if isinstance(node, ast.Try):
        return any("ImportError" in ast.unparse(handler.type) for handler in node.handlers if handler.type)
    if isinstance(node, ast.If | ast.IfExp):
        return any(word in ast.unparse(node.test) for word in ("hasattr(", "sys.platform", "os.name"))
    return False


def find(source):
    """What a module needs that some systems lack: (what, line, whether it is guarded)."""
    found = []

    def visit(node, guarded):
        found.extend((what, getattr(node, "lineno", 0), guarded) for what in _faults(node))
        for child in ast.iter_child_nodes(node):
            visit(child, guarded or _is_guard(node))

    visit(ast.parse(source), False)
    return found


def test_no_module_needs_a_particular_system():
    """But for the places of GUARDED, each of which is there and guarded."""
    bare, guarded = [], set()
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        for what, line, safe in find(path.read_text(encoding="utf-8")):
            if safe and (name, what) in GUARDED:
                guarded.add((name, what))
            else:
                bare.append(f"shapeloss/{name}, line {line}: {what}")
    assert not bare, "some systems lack this, or do it otherwise"
    assert guarded == set(GUARDED)


def test_notebooks_need_no_particular_system():
    import nbformat

    for path in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code" and not cell.source.startswith("%"):
                assert not find(cell.source), (path.name, cell.source)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import fcntl", "import fcntl"),
        ("from resource import getrusage", "import resource"),
        ("import os\nos.killpg(1, 2)", "os.killpg"),
        ("from os import sched_getaffinity", "os.sched_getaffinity"),
        ("import signal\nsignal.SIGKILL", "signal.SIGKILL"),
        ("place = '/tmp/a'", "/tmp/a"),
        ("open('a')", "open without encoding"),
        ("open('a', 'w')", "open without encoding"),
        ("path.read_text()", "read_text without encoding"),
        ("path.write_text(text)", "write_text without encoding"),
        ("table.to_csv(path)", "to_csv without lineterminator"),
        ("subprocess.run(a, text=True)", "text without encoding"),
        ("subprocess.run(a, start_new_session=True)", "start_new_session"),
        ("path.symlink_to(other)", "symlink_to"),
        ("str(path.relative_to(folder))", "str of relative_to instead of as_posix"),
    ],
)
def test_what_some_systems_lack_is_found(source, what):
    assert [(found, guarded) for found, _, guarded in find(source)] == [(what, False)]


@pytest.mark.parametrize(
    "source",
    [
        "open('a', 'rb')",
        "open('a', encoding='utf-8')",
        "path.read_text('utf-8', 'replace')",
        "table.to_csv(path, lineterminator='\\n')",
        "os.replace(a, b)",
        "tempfile.gettempdir()",
        "path.relative_to(folder).as_posix()",
    ],
)
def test_what_every_system_has_is_let_through(source):
    assert find(source) == []


def test_a_guard_is_told_from_another_condition():
    assert find("import os\nif hasattr(os, 'fork'):\n    os.fork()") == [("os.fork", 3, True)]
    assert find("try:\n    import fcntl\nexcept ImportError:\n    pass") == [("import fcntl", 2, True)]
    assert find("import os\nif ready:\n    os.fork()") == [("os.fork", 3, False)]
    assert find("try:\n    import fcntl\nexcept OSError:\n    pass") == [("import fcntl", 2, False)]


def test_what_is_flushed_may_be_written(tmp_path, monkeypatch):
    """Windows flushes no file that is open for reading alone: nothing could be written there."""
    fcntl = pytest.importorskip("fcntl")
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE))
    _files.write_text(tmp_path / "a.txt", "a\nb\n")
    assert flushed == [os.O_RDWR]


def test_lines_end_in_the_same_byte_on_every_system(tmp_path, monkeypatch):
    opened = []
    write = type(tmp_path).write_text
    monkeypatch.setattr(
        type(tmp_path), "write_text", lambda self, *a, **k: opened.append(k["newline"]) or write(self, *a, **k)
    )
    _files.write_json(tmp_path / "a.json", {"a": 1})
    assert opened == ["\n"]


def test_a_checkout_has_the_same_bytes_on_every_system():
    """Or committed tables would have other checksums on Windows."""
    assert "* text=auto eol=lf" in (ROOT / ".gitattributes").read_text(encoding="utf-8").splitlines()


def test_a_system_without_locks_goes_on_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_files, "fcntl", None)
    with _files.locked(tmp_path / "a.lock", "waiting"), _files.try_locked(tmp_path / "a.lock") as free:
        assert free
    said = f"{tmp_path / 'a.lock'}: cannot be locked (this system has no such locks); do not start this command twice"
    assert capsys.readouterr().out == f"{said} at a time\n"


def test_a_file_that_another_program_has_open_is_named(tmp_path, monkeypatch):
    """As Windows answers: the message names the file, not the temporary one, and says what may hold it."""

    def held(source, target):
        raise PermissionError(errno.EACCES, "Access is denied", str(source), 5, str(target))

    monkeypatch.setattr(os, "replace", held)
    with pytest.raises(PermissionError) as caught:
        _files.write_text(tmp_path / "table.csv", "a")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(_files, "WINDOWS", True)
    message = _files.os_error_message(caught.value, tmp_path / "elsewhere")
    assert message.startswith(f"{tmp_path / 'table.csv'}: cannot be written")
    assert message.endswith("; change its permissions, or close the program that has it open")


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("knee:1", "has : in its name"),
        ("a\\b", r"has \ in its name"),
        ("a/b", "has / in its name"),
        ("what?", "has ? in its name"),
        ("CON", "Windows keeps for a device"),
        ("nul.nii.gz", "Windows keeps for a device"),
        ("com1", "Windows keeps for a device"),
        ("knee.", "ends in a dot"),
        ("knee ", "ends in a dot or a space"),
        ("", "is empty"),
        ("a\nb", "has a line break"),
        ("Knee", "is knee but for upper and lower case"),
    ],
)
def test_names_that_a_system_forbids(name, fault):
    assert fault in portable_name_fault(name, ["knee"])


@pytest.mark.parametrize("name", ["9000099_00m", "console", "com10", "knee.1", "Århus", "a b", ".a"])
def test_names_that_every_system_allows(name):
    assert portable_name_fault(name, ["other"]) == ""


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("../ce", "has / in its name"),
        ("aux", "is a name that Windows keeps for a device"),
        ("CE", "is ce but for upper and lower case"),
    ],
)
def test_a_row_that_cannot_be_a_folder_is_refused(row, fault):
    with pytest.raises(ValidationError, match=rf"the row '{row}' {fault}.*my_loss: {{loss: {row}}}"):
        RunOptions(losses={"ce": {}, row: {"loss": "ce"}})


def test_a_row_may_be_a_class_where_a_folder_may_have_a_colon(monkeypatch):
    """Its name is the folder's; on Windows the class is given as the option `loss`."""
    rows = {"package.module:Class": {}}
    monkeypatch.setattr(options, "WINDOWS", False)
    assert list(RunOptions(losses=rows).losses) == list(rows)
    monkeypatch.setattr(options, "WINDOWS", True)
    with pytest.raises(ValidationError, match="has : in its name"):
        RunOptions(losses=rows)
    assert RunOptions(losses={"mine": {"loss": "package.module:Class"}})


def test_a_variation_that_cannot_be_a_folder_is_refused(tiny_experiment):
    with pytest.raises(ValidationError, match="none that Windows keeps; got 'nul'"):
        Experiment.model_validate(tiny_experiment.model_dump() | {"variations": {"nul": {}}})
