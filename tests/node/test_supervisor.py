"""The supervisor with real processes: start, restart, stop, and every way to die."""

import os
import re
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from archive.index.index import INDEX_FORMAT
from tests.kit import PROGRAM, Node, free_port

StartNode = Callable[..., Node]


@pytest.fixture
def node(start_node: StartNode) -> Node:
    """A running node with one worker of each kind, which starts sooner."""
    return start_node(settings={"DICOM_ARCHIVE_DIMSE_WORKERS": "1", "DICOM_ARCHIVE_WEB_WORKERS": "1"})


def worker_pids(node: Node) -> dict[str, int]:
    """Workers by name, as the log tells: the last process of each."""
    return {name: int(pid) for name, pid in re.findall(r": (\w+-\d+) is process (\d+)", node.log())}


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(what: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def test_it_announces_free_ports_in_one_line_and_says_nothing_else_on_stdout(tmp_path: Path) -> None:
    command = [str(PROGRAM), "serve", "--data", str(tmp_path / "data"), "--dimse-port", "0", "--http-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.fullmatch(r"ready dimse=127\.0\.0\.1:(\d+) http=http://127\.0\.0\.1:(\d+)\n", line)
            assert found, line
            for port in found.groups():
                socket.create_connection(("127.0.0.1", int(port)), 5).close()
            process.terminate()
            out, err = process.communicate(timeout=60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0
    assert out == ""
    for line in err.splitlines():
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) [\w-]+ ", line), line


def test_a_signal_ends_it_cleanly_and_in_order(start_node: StartNode) -> None:
    node = start_node(settings={"DICOM_ARCHIVE_DIMSE_WORKERS": "2", "DICOM_ARCHIVE_WEB_WORKERS": "2"})
    assert node.process is not None
    pids = worker_pids(node)
    assert sorted(pids) == ["dimse-0", "dimse-1", "packer-0", "web-0", "web-1"]
    node.process.terminate()
    assert node.process.wait(60) == 0
    assert not any(map(is_alive, pids.values()))
    assert not (node.data / "control.sock").exists()
    ends = re.findall(r": (\w+)-\d+ ended", node.log())
    assert ends == ["dimse", "dimse", "web", "web", "packer"]


def test_a_signal_to_the_whole_group_ends_it_cleanly_too(node: Node) -> None:
    """As Ctrl-C on a terminal does; the service manager's SIGTERM to a control group is the same."""
    assert node.process is not None
    os.killpg(node.process.pid, signal.SIGINT)
    assert node.process.wait(60) == 0
    assert "ERROR" not in node.log()


def test_it_stays_in_its_process_group(node: Node) -> None:
    assert node.process is not None
    assert {os.getpgid(pid) for pid in worker_pids(node).values()} == {node.process.pid}


def test_every_worker_may_open_as_many_files_as_the_node_may(start_node: StartNode) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
    try:
        node = start_node(settings={"DICOM_ARCHIVE_DIMSE_WORKERS": "1", "DICOM_ARCHIVE_WEB_WORKERS": "1"})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    workers = worker_pids(node)
    assert len(workers) == 3
    assert {resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in workers.values()} == {(before[1], before[1])}


def test_the_second_is_refused_and_told_who_serves(node: Node) -> None:
    assert node.process is not None
    done = node.cli("serve", "--dimse-port", "0", "--http-port", "0", exit_code=1)
    assert done.stdout == ""
    assert done.stderr.startswith("dicom-archive: ") and done.stderr.count("\n") == 1
    assert f"process {node.process.pid} (`dicom-archive serve`" in done.stderr


def test_a_killed_worker_is_started_again(node: Node) -> None:
    before = worker_pids(node)
    for name, pid in before.items():
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda name=name, pid=pid: worker_pids(node)[name] != pid)  # type: ignore[misc]
        assert f"{name} (process {pid}) was killed with SIGKILL" in node.log()
    node.cli("pack", "--now")  # answered by the new packer
    for port in (node.dimse_port, node.http_port):
        socket.create_connection(("127.0.0.1", port), 5).close()
    assert node.stop() == 0


def test_a_killed_supervisor_takes_every_process_with_it(node: Node) -> None:
    assert node.process is not None
    pids = worker_pids(node)
    node.process.kill()
    node.process.wait()
    wait_for(lambda: not any(map(is_alive, pids.values())), 5.0)


def test_after_a_killed_supervisor_the_next_starts_at_once(node: Node) -> None:
    """The folder stays locked until the last worker is gone, so a start at once has to wait for them, and does."""
    assert node.process is not None
    stopped = worker_pids(node)["packer-0"]
    os.kill(stopped, signal.SIGSTOP)  # it lingers: it cannot notice
    node.process.kill()
    node.process.wait()
    second = Node(node.data)
    try:
        with pytest.raises(AssertionError, match="is in use by"):
            second.start()
        os.kill(stopped, signal.SIGCONT)
        second.start()
        assert second.stop() == 0
    finally:
        second.kill()
        with suppress(ProcessLookupError):
            os.kill(stopped, signal.SIGKILL)


def test_a_hung_worker_does_not_hold_up_the_end_for_ever(node: Node) -> None:
    """A second signal cuts the wait short."""
    assert node.process is not None
    hung = worker_pids(node)["web-0"]
    os.kill(hung, signal.SIGSTOP)
    node.process.terminate()
    wait_for(lambda: "dimse-0 ended" in node.log())
    time.sleep(0.2)
    node.process.terminate()
    assert node.process.wait(30) == 0
    assert "web-0 did not end" in node.log()
    assert not is_alive(hung)


def test_a_taken_port_ends_it_before_anything_is_opened(tmp_path: Path) -> None:
    with socket.socket() as taken:
        port = free_port()
        taken.bind(("127.0.0.1", port))
        taken.listen()
        command = [str(PROGRAM), "serve", "--data", str(tmp_path / "data"), "--dimse-port", str(port), "--http-port", "0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines()[-1] == f"dicom-archive: cannot bind 127.0.0.1:{port}: Address already in use"


def test_a_signal_during_recovery_ends_it_cleanly(tmp_path: Path) -> None:
    command = [str(PROGRAM), "serve", "--data", str(tmp_path / "data"), "--dimse-port", "0", "--http-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for((tmp_path / "data" / "control.sock").exists)
        process.terminate()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out == ""


def start_with_crash(tmp_path: Path, kind: str, number: int) -> subprocess.CompletedProcess[str]:
    """Run `serve` where each process of a kind crashes as it starts, as LMDB crashes on a damaged file."""
    folder = tmp_path / "crash"
    folder.mkdir()
    code = f"import os, sys\nif 'archive.node.worker' in sys.orig_argv and {kind!r} in sys.orig_argv: os.kill(os.getpid(), {number})\n"
    (folder / "sitecustomize.py").write_text(code)
    command = [str(PROGRAM), "serve", "--data", str(tmp_path / "data"), "--dimse-port", "0", "--http-port", "0"]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


@pytest.mark.parametrize(("kind", "number"), [("recover", signal.SIGSEGV), ("recover", signal.SIGBUS), ("packer", signal.SIGABRT)])
def test_a_crash_at_the_start_says_what_to_do(tmp_path: Path, kind: str, number: signal.Signals) -> None:
    done = start_with_crash(tmp_path, kind, number)
    assert done.returncode == 1 and done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("dicom-archive: ") and number.name in last
    assert "the index is damaged: stop, delete index/ and run rebuild-index" in last


def test_a_process_that_was_killed_does_not_accuse_the_index(tmp_path: Path) -> None:
    done = start_with_crash(tmp_path, "recover", signal.SIGKILL)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "dicom-archive: recover was killed with SIGKILL"


def test_an_index_full_of_garbage_does_not_hang_it(tmp_path: Path) -> None:
    index = tmp_path / "data" / "index" / "packed"
    index.mkdir(parents=True)
    (index / "data.mdb").write_bytes(os.urandom(1 << 20))
    (tmp_path / "data" / "index" / "format").write_text(INDEX_FORMAT)  # Without its mark it would be made anew.
    done = subprocess.run(
        [str(PROGRAM), "serve", "--data", str(tmp_path / "data"), "--dimse-port", "0", "--http-port", "0"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("dicom-archive: ")
    assert "rebuild-index" in done.stderr.splitlines()[-1]
