"""LMDB behind its door: tables, transactions, values that notice a flipped bit, several processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import lmdb
import pytest

from archive.errors import Damaged, Exhausted
from archive.index.environment import Environment, Transaction
from tests.kit import ROOT
from tests.pack.build import flipped

MIB = 1 << 20
TABLES = {"plain": False, "several": True}


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    opened = Environment(tmp_path / "index", TABLES, 64 * MIB, synced=False)
    yield opened
    opened.close()


def dump(environment: Environment, table: str = "plain") -> dict[bytes, bytes]:
    with environment.reading() as t:
        return dict(t.scan(table))


def dump_of(t: Transaction) -> dict[bytes, bytes]:
    return dict(t.scan("plain"))


# --- keys and values


def test_values_come_back(environment: Environment) -> None:
    values = {b"a": b"", b"b": b"x" * 10_000, b"c": bytes(range(256))}
    with environment.writing() as t:
        for key, value in values.items():
            t.put("plain", key, value)
        assert t.get("plain", b"b") == values[b"b"]
    with environment.reading() as t:
        assert {key: t.get("plain", key) for key in values} == values
        assert t.get("plain", b"d") is None
        assert t.count("plain") == 3
        assert t.last_key("plain") == b"c"
        assert t.last_key("several") is None
    with environment.writing() as t:
        t.put("plain", b"a", b"new")
        t.delete("plain", b"b")
        t.delete("plain", b"not there")
    assert dump(environment) == {b"a": b"new", b"c": values[b"c"]}
    with environment.writing() as t:
        t.empty("plain")
    assert dump(environment) == {}


def test_a_key_may_have_several_values(environment: Environment) -> None:
    numbers = [bytes([n]) * 8 for n in range(50)]
    with environment.writing() as t:
        for number in (*numbers, numbers[0]):
            t.add("several", b"key", number)
        t.add("several", b"other", numbers[7])
    with environment.writing() as t:
        assert sorted(t.get_all("several", b"key")) == numbers
        t.remove("several", b"key", numbers[3])
        t.remove("several", b"key", b"notthere")
        assert sorted(t.get_all("several", b"key")) == numbers[:3] + numbers[4:]
        assert t.get_all("several", b"other") == [numbers[7]]
        assert t.get_all("several", b"nobody") == []


def test_scans(environment: Environment) -> None:
    with environment.writing() as t:
        for key in (b"a", b"b1", b"b2", b"b3", b"c"):
            t.put("plain", key, key.upper())
    with environment.reading() as t:
        assert [key for key, _ in t.scan("plain")] == [b"a", b"b1", b"b2", b"b3", b"c"]
        assert list(t.scan("plain", b"b")) == [(b"b1", b"B1"), (b"b2", b"B2"), (b"b3", b"B3")]
        assert [key for key, _ in t.scan("plain", b"b", b"b2")] == [b"b2", b"b3"]
        assert list(t.scan("plain", b"d")) == []
        assert t.keys_before("plain", b"b", b"b3", 10) == [b"b2", b"b1"]
        assert t.keys_before("plain", b"b", b"b9", 2) == [b"b3", b"b2"]
        assert t.keys_before("plain", b"c", b"d", 5) == [b"c"]
        assert t.keys_before("plain", b"b", b"a", 5) == []


def test_what_is_appended_out_of_order_lies_in_order(environment: Environment) -> None:
    with environment.writing() as t:
        for key in (b"b", b"d", b"a", b"c", b"d", b"e"):
            t.append("plain", key, key * len(dump_of(t)))
    assert list(dump(environment).items()) == [(b"a", b"aa"), (b"b", b""), (b"c", b"ccc"), (b"d", b"dddd"), (b"e", b"eeee")]


def test_the_last_key_up_to_another(environment: Environment) -> None:
    with environment.writing() as t:
        assert t.get_last("plain", b"x") is None
        for key in (b"b", b"d"):
            t.put("plain", key, b"of " + key)
        found = {key: t.get_last("plain", key) for key in (b"a", b"b", b"c", b"d", b"e")}
    b, d = (b"b", b"of b"), (b"d", b"of d")
    assert found == {b"a": None, b"b": b, b"c": b, b"d": d, b"e": d}


def test_values_of_a_bare_table_are_found_by_what_they_begin_with(tmp_path: Path) -> None:
    bare = Environment(tmp_path / "bare", TABLES, 64 * MIB, synced=False, bare=frozenset({"several"}))
    values = [b"%02d%02d" % (n // 10, n) for n in range(1, 1000 // 11)]
    with bare.writing() as t:
        assert t.get_from("several", b"k", b"0000", b"00") == []
        t.add_all("several", [(key, value) for value in reversed(values) for key in (b"j", b"k")])
        t.add_all("several", [(b"k", values[0])])
    with bare.reading() as t:
        for begin in (b"00", b"05", b"08", b"09", b"99"):
            assert t.get_from("several", b"k", begin + b"\0\0", begin) == [v for v in values if v.startswith(begin)]
        assert t.get_from("several", b"l", b"00\0\0", b"00") == []
        assert t.get_all("several", b"k") == values
        assert t.count("several") == 2 * len(values)
    bare.close()


def test_a_transaction_that_fails_changes_nothing(environment: Environment) -> None:
    with environment.writing() as t:
        t.put("plain", b"key", b"before")
    with pytest.raises(KeyError), environment.writing() as t:
        t.put("plain", b"key", b"after")
        raise KeyError
    assert dump(environment) == {b"key": b"before"}


def test_a_reader_sees_what_was_when_it_began(environment: Environment) -> None:
    with environment.writing() as t:
        t.put("plain", b"key", b"before")
    with environment.reading() as t:
        with environment.writing() as w:
            w.put("plain", b"key", b"after")
        assert t.get("plain", b"key") == b"before"
    assert dump(environment) == {b"key": b"after"}


# --- damage


def test_a_flipped_byte_in_a_value_is_damage_wherever_it_is_read(tmp_path: Path) -> None:
    value = b"A VALUE OF THE INDEX"
    made = Environment(tmp_path, TABLES, MIB, synced=True)
    with made.writing() as t:
        t.put("plain", b"key", value)
        t.add("several", b"key", value)
    made.close()
    file = tmp_path / "data.mdb"
    whole = file.read_bytes()
    places = [at for at in range(len(whole)) if whole.startswith(value, at)]
    assert len(places) >= 2  # one in each table
    for at in range(-4, len(value)):
        data = whole
        for place in places:
            data = flipped(data, place + at, at % 8)
        file.write_bytes(data)
        opened = Environment(tmp_path, TABLES, MIB, synced=True)
        with opened.reading() as t:
            with pytest.raises(Damaged, match=r"a value of table 'plain' does not match its CRC; .* run rebuild-index"):
                t.get("plain", b"key")
            with pytest.raises(Damaged, match="'several'"):
                t.get_all("several", b"key")
            with pytest.raises(Damaged):
                list(t.scan("plain"))
        opened.close()


def test_a_value_under_another_key_is_damage(tmp_path: Path) -> None:
    """A flipped bit in a key, or in a page's own pointers."""
    made = Environment(tmp_path, TABLES, MIB, synced=True)
    with made.writing() as t:
        t.put("plain", b"key1", b"value")
    made.close()
    with lmdb.open(str(tmp_path), max_dbs=2) as raw:
        table = raw.open_db(b"plain")
        with raw.begin(write=True) as transaction:
            transaction.put(b"key2", bytes(transaction.get(b"key1", db=table) or b""), db=table)
            transaction.put(b"key3", b"abc", db=table)
    opened = Environment(tmp_path, TABLES, MIB, synced=True)
    with opened.reading() as t:
        assert t.get("plain", b"key1") == b"value"
        for key in (b"key2", b"key3"):
            with pytest.raises(Damaged):
                t.get("plain", key)
    opened.close()


@pytest.mark.parametrize("data", [b"no LMDB file " * 1000, bytes(16384)])
def test_a_file_that_is_no_index_is_damage(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "data.mdb").write_bytes(data)
    with pytest.raises(Damaged, match="is damaged or unreadable"):
        Environment(tmp_path, TABLES, MIB, synced=True)


def test_a_full_map_is_said_and_can_still_be_read(tmp_path: Path) -> None:
    opened = Environment(tmp_path, TABLES, MIB, synced=False)
    with opened.writing() as t:
        t.put("plain", b"key", b"value")
    with pytest.raises(Exhausted, match="index.map_bytes_max"), opened.writing() as t:
        for number in range(1000):
            t.put("plain", b"%d" % number, bytes(10_000))
    assert dump(opened) == {b"key": b"value"}
    assert 0 < opened.size_bytes() <= MIB
    opened.close()


# --- processes

READ = """
import os
import sys
from pathlib import Path
from archive.index.environment import Environment
opened = Environment(Path(sys.argv[1]), {"plain": False, "several": True}, 64 << 20, synced=False)
"""


def start(code: str, folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", READ + code, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, cwd=ROOT)


def test_several_processes_read_whole_states_while_one_writes(environment: Environment) -> None:
    code = """
print("ready", flush=True)
seen = set()
while b"stop" not in seen:
    with opened.reading() as t:
        first, second = t.get("plain", b"first"), t.get("plain", b"second")
        assert first == second, (first, second)
        seen.add(first)
    if len(seen) == 20:
        Path(sys.argv[1], f"enough-{os.getpid()}").touch()
"""
    readers = [start(code, environment.folder) for _ in range(3)]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 30
    for number in count():
        with environment.writing() as t:
            t.put("plain", b"first", b"%d" % number)
            t.put("plain", b"second", b"%d" % number)
        if len(list(environment.folder.glob("enough-*"))) == len(readers):
            break
        assert time.monotonic() < deadline
    with environment.writing() as t:
        t.put("plain", b"first", b"stop")
        t.put("plain", b"second", b"stop")
    for reader in readers:
        reader.communicate(timeout=20)
    assert [reader.returncode for reader in readers] == [0, 0, 0]


def test_what_an_unsynced_writer_committed_outlives_its_kill(environment: Environment) -> None:
    """A killed process is no power cut: the kernel has the pages."""
    code = """
with opened.writing() as t:
    t.put("plain", b"key", b"value")
print("written", flush=True)
sys.stdin.read()
"""
    writer = start(code, environment.folder)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "written\n"
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate()
    assert dump(environment) == {b"key": b"value"}


def test_a_writer_that_is_killed_blocks_nobody_and_changes_nothing(environment: Environment) -> None:
    code = """
with opened.writing() as t:
    t.put("plain", b"key", b"half")
    print("writing", flush=True)
    sys.stdin.read()
"""
    writer = start(code, environment.folder)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writing\n"
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate()
    with environment.writing() as t:
        assert t.get("plain", b"key") is None
        t.put("plain", b"key", b"whole")
    assert dump(environment) == {b"key": b"whole"}


def test_reader_slots_of_a_killed_process_are_cleared(environment: Environment) -> None:
    code = """
with opened.reading() as t:
    print("reading", flush=True)
    sys.stdin.read()
"""
    reader = start(code, environment.folder)
    assert reader.stdout is not None
    assert reader.stdout.readline() == "reading\n"
    assert environment.check_readers() == 0  # it lives
    os.kill(reader.pid, signal.SIGKILL)
    reader.communicate()
    assert environment.check_readers() == 1
    assert environment.check_readers() == 0
