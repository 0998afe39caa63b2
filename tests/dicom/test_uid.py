import pytest

from archive.dicom.uid import check_uid, uid_or_empty
from archive.errors import BadInput


@pytest.mark.parametrize("uid", ["1", "1.2.840.10008.1.2", "0.0", "1.02.3", "1" * 64])
def test_a_uid_is_returned(uid: str) -> None:
    assert check_uid(uid) == uid


@pytest.mark.parametrize(
    "uid", ["", " ", ".", "..", "1.", ".1", "1..2", "1/2", "../1", "1.2\0", "1.2\n", "1.2 ", "a.b", "1" * 65, "1.٣", "1.²"]
)
def test_anything_else_is_refused_by_name(uid: str) -> None:
    with pytest.raises(BadInput, match="StudyInstanceUID"):
        check_uid(uid, "StudyInstanceUID")


@pytest.mark.parametrize("value", ["1.2.3", "1.2.3\0", " 1.2.3 "])
def test_a_uid_in_padding_is_one(value: str) -> None:
    assert uid_or_empty(value) == "1.2.3"


@pytest.mark.parametrize("value", ["", "JOHN^DOE BORN 1970", "1.2\\1.3", "1.2,1.3", "1.2.*", "1.2.?", "1" * 65])
def test_anything_else_becomes_nothing(value: str) -> None:
    assert uid_or_empty(value) == ""
