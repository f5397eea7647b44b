"""Is what a command writes all there or not there, wherever it is stopped; and is nothing of the living swept up?"""

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from accelsim.durable import PREFIX, READY, Temporary, publish, replace, sweep_up, temporary
from accelsim.errors import OutputError, ResultsError
from accelsim.files import staged, staged_file
from accelsim.interrupts import heard, held_back
from accelsim.study import manifest
from accelsim.sweeps.store import Store

OLD, NEW = {"a": b"old a", "b": b"old b", "z": b"kept"}, {"a": b"new a", "b": b"new b", "c": b"new c"}


def filled(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def killed(work, at, before=True):
    """Runs work in a process of its own that is killed at its nth rename, removal of a folder or fsync; if it was."""
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        return os.WIFSIGNALED(status)
    left = [at]

    def deadly(call):
        def instead(*arguments):
            if before and left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            done = call(*arguments)
            if not before and left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return done

        return instead

    for name in ("replace", "fsync", "rmdir", "mkdir"):
        setattr(os, name, deadly(getattr(os, name)))
    try:
        work()
    finally:
        os._exit(0)


def write(folder, files=NEW):
    with staged(folder) as stage:
        filled(stage, files)


@pytest.mark.parametrize("before", [True, False])
def test_files_are_all_old_or_all_new_wherever_the_process_is_killed(tmp_path, before):
    results, states, points = tmp_path / "results", [], range(100)
    for at in points:
        filled(results, OLD)
        (results / "c").unlink(missing_ok=True)
        if not killed(lambda: write(results), at, before):
            break
        sweep_up(results)
        found = content(results)
        assert found in (OLD, OLD | NEW), at
        states.append(found == OLD)
    # mkdir; fsync of three files and the stage; its rename, the commit; fsync; three renames; fsync; rmdir.
    assert states == [True] * (6 if before else 5) + [False] * (6 if before else 7)


def test_a_new_folder_is_whole_or_not_there(tmp_path):
    for at in range(100):
        new = tmp_path / f"at{at}"
        if not killed(lambda new=new: write(new), at):
            break
        assert not new.exists() or content(new) == NEW
        sweep_up(tmp_path)
        assert not list(tmp_path.glob(f"{PREFIX}*"))
    assert at == 7 and content(tmp_path / "at7") == NEW


def test_what_is_written_is_on_the_disk_before_it_is_renamed(tmp_path, monkeypatch):
    filled(tmp_path / "old", OLD)
    events = []
    real = {name: getattr(os, name) for name in ("fsync", "replace")}
    path_of = lambda handle: os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))  # noqa: E731

    def synced(handle):
        events.append(("fsync", path_of(handle)))
        real["fsync"](handle)

    def renamed(beside, path):
        events.append(("rename", os.path.basename(path)))
        real["replace"](beside, path)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write(tmp_path / "old")
    write(tmp_path / "new")
    told = [(what, name if name in (*NEW, "old", "new") else "…") for what, name in events]
    folder = tmp_path.name
    inside = [*(("fsync", name) for name in "abc"), ("fsync", "…"), ("rename", "…"), ("fsync", "old")]
    moved = [*(("rename", name) for name in "abc"), ("fsync", "old")]
    beside = [*(("fsync", name) for name in "abc"), ("fsync", "…"), ("rename", "new")]
    assert told == [*inside, *moved, *beside, ("fsync", "…")] and events[-1] == ("fsync", folder)


def test_a_disk_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    results = filled(tmp_path / "results", OLD)
    before = content(results)

    def full(handle):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="cannot write: Input/output error"):
        write(results)
    with pytest.raises(OutputError, match="cannot write: Input/output error"):
        write(tmp_path / "new")
    assert content(results) == before and [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_rename_that_fails_before_any_has_worked_undoes_it(tmp_path, monkeypatch):
    results, real = filled(tmp_path / "results", OLD), os.replace

    def full(beside, path):
        if Path(path).name == "a":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(beside, path)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        write(results)
    assert content(results) == OLD


def test_a_folder_in_the_way_of_a_file_is_refused_before_anything_moves(tmp_path):
    results = filled(tmp_path / "results", OLD)
    (results / "c").mkdir()
    with pytest.raises(OutputError, match="Is a directory"):
        write(results)
    (results / "c").rmdir()
    assert content(results) == OLD


def test_what_a_live_process_writes_is_not_swept_up_and_what_a_dead_one_wrote_is(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from accelsim.durable import Temporary\n"
        "made = [Temporary(Path(sys.argv[1]), folder=f) for f in (False, True)]\n"
        "(made[1].path / 'x').write_text('x'); print(flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    other.stdout.readline()
    with temporary(tmp_path) as mine:
        sweep_up(tmp_path)
        assert mine.exists() and len(list(tmp_path.iterdir())) == 3
        other.kill()
        other.communicate()
        sweep_up(tmp_path)
        assert list(tmp_path.iterdir()) == [mine]
    assert not list(tmp_path.iterdir())


def test_clocks_and_names_of_processes_do_not_matter(tmp_path):
    """Neither of a file from the future nor of an old one is its date asked for."""
    with temporary(tmp_path) as mine:
        for when in (0, 2**33):
            os.utime(mine, (when, when))
            sweep_up(tmp_path)
            assert mine.exists()
    for when in (0, 2**33):
        dead = tmp_path / f"{PREFIX}{when}"
        dead.touch()
        os.utime(dead, (when, when))
    sweep_up(tmp_path)
    assert not list(tmp_path.iterdir())


def test_links_pipes_and_the_files_of_others_are_left_alone(tmp_path):
    mine = filled(tmp_path / "mine", OLD)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / f"{PREFIX}link").symlink_to(mine)
    (tmp_path / f"{READY}link").symlink_to(mine)
    (tmp_path / ".other.tmp").touch()
    before = sorted(tmp_path.iterdir())
    with staged_file(tmp_path / "t") as stage:
        stage.touch()
    (tmp_path / "t").unlink()
    assert sorted(tmp_path.iterdir()) == before and content(mine) == OLD


def test_a_file_without_locks_is_never_swept_up(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("accelsim.durable.fcntl.flock", none)
    (tmp_path / f"{PREFIX}x").touch()
    write(tmp_path)
    assert content(tmp_path) == NEW | {f"{PREFIX}x": b""}


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        write(tmp_path / "new")
        with temporary(tmp_path) as beside:
            replace(beside, tmp_path / "file")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("new", "new/a", "file")]
    assert modes == [0o777 & ~mask, 0o666 & ~mask, 0o666 & ~mask]


def test_another_s_half_moved_folder_is_moved_only_for_its_owner(tmp_path, monkeypatch):
    filled(tmp_path / f"{READY}1", NEW)
    monkeypatch.setattr(os, "geteuid", lambda: -1)
    sweep_up(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{READY}1"]
    monkeypatch.undo()
    sweep_up(tmp_path)
    assert content(tmp_path) == NEW


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path):
    folder = filled(tmp_path / "results", OLD)
    manifest.write(folder)
    assert manifest.read(folder, ("a",)) == OLD
    (folder / "a").unlink()
    os.mkfifo(folder / "a")
    with pytest.raises(ResultsError, match="a: cannot read: is a pipe or a device"):
        manifest.read(folder, ("a",))
    (folder / manifest.NAME).unlink()
    os.mkfifo(folder / manifest.NAME)
    with pytest.raises(ResultsError, match=r"manifest.sha256: must be there.*: is a pipe or a device"):
        manifest.read(folder, ("a",))
    store = Store(tmp_path / "store")
    os.mkfifo(tmp_path / "store" / "points" / "key.point")
    assert store.get("key") is None and not store.known()  # to be computed again


def test_a_link_that_leads_nowhere_is_refused_and_one_in_the_place_of_a_file_is_replaced(tmp_path):
    (tmp_path / "out").symlink_to("nowhere")
    with pytest.raises(OutputError, match="out: must be a folder, but is a link to nowhere, which is not there"):
        write(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    mine = filled(tmp_path / "mine", {"a": b"mine"}) / "a"
    folder = filled(tmp_path / "results", {})
    (folder / "a").symlink_to(mine)
    write(folder)
    assert mine.read_bytes() == b"mine" and content(folder) == NEW and not (folder / "a").is_symlink()


def test_a_folder_that_cannot_be_made_is_named_and_no_temporary_one(tmp_path, monkeypatch):
    mkdir = Path.mkdir

    def refuse(path, *how, **more):
        if path.name.startswith(PREFIX):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        mkdir(path, *how, **more)

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match=rf"^{tmp_path}/out: cannot write: Permission denied"):
        write(tmp_path / "out")


def forked(work):
    """A process that does it and ends; its number."""
    pid = os.fork()
    if not pid:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def test_of_many_who_write_one_folder_at_once_it_holds_one_s_files(tmp_path):
    """A new one at first; results, with their digests, are whole whenever all have ended."""
    for _ in range(5):
        names = [f"{number:02}" for number in range(20)]

        def results(number, names=names):
            with staged(tmp_path / "out") as stage:
                filled(stage, {name: bytes([number]) * 100 for name in names})
                manifest.write(stage)

        pids = [forked(lambda number=number: results(number)) for number in range(6)]
        assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 6
        assert set(content(tmp_path / "out")) == {*names, manifest.NAME}
        files = manifest.read(tmp_path / "out", tuple(names))
        assert len(set(files.values())) == 1
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_who_holds_a_folder_for_ever_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("accelsim.durable.PATIENCE_SECONDS", 0.05)
    stranger = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(stranger, fcntl.LOCK_EX)
        write(tmp_path)
    finally:
        os.close(stranger)
    assert content(tmp_path) == NEW


def test_what_a_killed_process_had_begun_does_not_come_over_what_the_next_one_wrote(tmp_path):
    """The next one had swept up, and was at work, when the other one began."""
    filled(tmp_path, OLD)
    with staged(tmp_path) as stage:
        filled(stage, dict.fromkeys(NEW, b"newest"))
        assert killed(lambda: write(tmp_path), at=8)
        assert len(list(tmp_path.glob(f"{READY}*"))) == 1
    sweep_up(tmp_path)
    assert content(tmp_path) == {"z": b"kept", **dict.fromkeys(NEW, b"newest")}


def test_publishing_twice_at_once_gives_one_or_the_other(tmp_path):
    made = [Temporary(tmp_path, folder=True) for _ in range(2)]
    for number, each in enumerate(made):
        filled(each.path, {"x": bytes([number])})
        publish(each.path, tmp_path)
    assert content(tmp_path) == {"x": b"\1"}


# Digests -----------------------------------------------------------------------------------------------------------


def test_no_bit_of_results_is_believed_that_was_not_written(tmp_path):
    with staged(tmp_path / "results") as stage:
        filled(stage, NEW)
        manifest.write(stage)
    results = tmp_path / "results"
    assert manifest.read(results, ("a", "c")) == NEW
    check = subprocess.run(["sha256sum", "--check", "--quiet", manifest.NAME], cwd=results, capture_output=True)
    assert check.returncode == 0, check.stderr
    for path in list(results.iterdir()):
        whole = path.read_bytes()
        for at in range(0, 8 * len(whole), 3):
            flipped = bytearray(whole)
            flipped[at // 8] ^= 1 << at % 8
            path.write_bytes(flipped)
            try:
                found = manifest.read(results, ("a", "c"))
            except ResultsError as error:
                assert str(results) in str(error)
            else:  # the name of one that nobody needs
                assert path.name == manifest.NAME and found == {name: NEW[name] for name in ("a", "c")}
        path.write_bytes(whole)


# Signals -----------------------------------------------------------------------------------------------------------


def test_what_is_held_back_is_done_to_its_end():
    done = []
    with heard() as ending, pytest.raises(KeyboardInterrupt):
        with held_back():
            with held_back():
                os.kill(os.getpid(), signal.SIGTERM)
                done.append(1)
            done.append(2)
        done.append(3)
    assert done == [1, 2] and ending.number == signal.SIGTERM


def test_a_batch_system_that_repeats_itself_is_heard_once_and_ctrl_c_each_time():
    with heard():
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGINT):
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
                time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)


THROUGH_A_TEXT = """
import os, signal, sys
from accelsim.interrupts import heard
with heard() as ending:
    try:
        exec("os.kill(os.getpid(), signal.SIGTERM); over = 1")
    except KeyboardInterrupt:
        sys.exit(128 + ending.number)
"""


def test_a_signal_while_a_library_makes_its_dataclasses_gives_the_exit_code_of_that_signal(tmp_path):
    (tmp_path / "through.py").write_text(THROUGH_A_TEXT)
    ended = subprocess.run([sys.executable, "-m", "through"], cwd=tmp_path, check=False)
    assert ended.returncode == 128 + signal.SIGTERM
    with heard(), pytest.raises(KeyboardInterrupt) as raised:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert raised.type is not KeyboardInterrupt


def test_handlers_are_given_back_and_what_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with heard() as ending:
            with suppress(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGHUP)  # as under nohup
                time.sleep(0.01)
            assert not ending.came
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_beside_the_main_thread_signals_are_nobody_s_business():
    found = []

    def work():
        with heard(), held_back():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL]
