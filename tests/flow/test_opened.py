"""An open instance is the one that was asked for, or nothing of it goes out."""

import pytest

from archive.errors import Damaged
from archive.flow.opened import Opened
from archive.index.located import Located, PackPlace
from tests.pack.build import Made, make_instance


class Payload:
    """Whatever lies where the index points."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    def view(self, offset: int, length: int) -> memoryview:
        return self._data[offset : offset + length]

    def views(self, offset: int, length: int) -> list[memoryview]:
        return [self.view(offset, length)]

    def whole(self) -> memoryview:
        return self._data


def open_at(asked: Made, found: Made) -> Opened:
    d = asked.descriptor
    stored = Located(
        d.study_instance_uid,
        d.series_instance_uid,
        d.sop_instance_uid,
        d.sop_class_uid,
        d.transfer_syntax_uid,
        d.length,
        d.data_set_offset,
        d.crc,
        d.digest[:32],
        d.revision,
        d.received_us,
        False,
        None,
        PackPlace(1, 64),
    )
    return Opened(stored, Payload(found.data), 1 << 20)


def test_it_is_the_one_that_was_asked_for() -> None:
    made = make_instance(1)
    assert bytes(open_at(made, made).data_set()) == made.data[made.descriptor.data_set_offset :]


@pytest.mark.parametrize("other", ["1.2.3.4.2", "1.2.3.4.10", "1.2.3.4.11", "91.2.3.4.1", "1.2.3.4.1.1", "1.2.3.4", "9.1.2.3.4.1.9"])
def test_another_object_is_refused(other: str) -> None:
    """One whose UID begins or ends with the UID that was asked for, too."""
    with pytest.raises(Damaged, match=r"where the index puts 1\.2\.3\.4\.1 is another object"):
        open_at(make_instance(1), make_instance(2, uid=other))
