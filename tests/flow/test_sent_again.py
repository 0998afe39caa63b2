"""An object that is sent again because the copy here is no good any more (P1)."""

from pathlib import Path

import pytest

from archive.errors import Damaged
from archive.flow.recovery import recover
from tests.flow.objects import living, make_object, pack_files, settings_of

ONE, TWO = make_object(1, 1, 1), make_object(1, 1, 2)


def flip(file: Path, needle: bytes) -> None:
    file.chmod(0o640)
    data = bytearray(file.read_bytes())
    data[data.index(needle) + len(needle) // 2] ^= 0x10
    file.write_bytes(data)


@pytest.mark.parametrize("harm", ["flipped", "missing"])
def test_what_a_pack_has_lost_is_taken_in_again(data: Path, harm: str) -> None:
    settings = settings_of(data, index={"revision_refused": True})
    with living(settings) as life:
        life.send(ONE)
        life.packer.pack_now()
        life.send(TWO)
        life.packer.pack_now()
    if harm == "flipped":
        flip(pack_files(data)[0], ONE.data_set)
    else:
        pack_files(data)[0].unlink()
    with living(settings) as life:
        with pytest.raises(Damaged):
            life.received(ONE)
        assert life.send(ONE)[0].outcome == "revision"
        life.assert_served([ONE, TWO])
        assert life.send(ONE, TWO)[0].outcome == "same"
    recover(settings)
    with living(settings) as life:
        life.assert_served([ONE, TWO])
        life.packer.pack_now()
        life.assert_served([ONE, TWO])
        assert len(life.retrieval.instances(ONE.study_instance_uid)) == 2
        assert life.send(ONE)[0].outcome == "same"


def test_what_the_journal_has_lost_is_taken_in_again(data: Path) -> None:
    with living(settings_of(data)) as life:
        life.send(ONE, TWO)
        [segment] = (data / "journal/open").iterdir()
        flip(segment, ONE.data_set)
        with pytest.raises(Damaged):
            life.received(ONE)
        life.send(ONE)
        life.assert_served([ONE, TWO])
        life.packer.pack_now()
        life.assert_served([ONE, TWO])
        assert life.home.waiting() == (0, 0)
