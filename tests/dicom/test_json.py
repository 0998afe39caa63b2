import pytest

from archive.dicom.json import dumps, loads
from archive.errors import NotUnderstood


def test_one_compact_line_of_utf8_in_the_order_of_the_keys() -> None:
    assert dumps({"b": "Buc^Jérôme\n", "a": [1, 2.5, float("nan")]}) == '{"b":"Buc^Jérôme\\n","a":[1,2.5,null]}'.encode()


def test_what_was_written_is_read() -> None:
    value = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "A^B"}]}}
    assert loads(memoryview(dumps(value))) == value


def test_what_is_not_json_is_bad_input() -> None:
    with pytest.raises(NotUnderstood):
        loads(b"{")
