"""Which abstract syntaxes are stored, against the Standard's own register."""

import pytest
from pydicom._uid_dict import UID_dictionary
from pynetdicom.sop_class import _NON_PATIENT_OBJECT_CLASSES, _QR_CLASSES, _STORAGE_CLASSES

from archive.dimse.abstract_syntax import is_stored

NO_OBJECTS = {"1.2.840.10008.1.3.10", "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.2"}  # "Storage" in the name alone
NAMELESS = {"1.2.840.10008.5.1.4.1.1.12.77", "1.2.840.10008.5.1.4.1.1.40"}  # retired before they got one


def test_every_registered_uid_is_stored_if_it_is_a_storage_sop_class() -> None:
    wrong = {
        uid: name
        for uid, (name, kind, *_) in UID_dictionary.items()
        if uid not in NAMELESS and is_stored(uid) != (kind == "SOP Class" and "Storage" in name and uid not in NO_OBJECTS)
    }
    assert not wrong


def test_every_storage_class_of_pynetdicom_is_stored() -> None:
    assert all(is_stored(uid) for uid in [*_STORAGE_CLASSES.values(), *_NON_PATIENT_OBJECT_CLASSES.values()])
    assert not any(is_stored(uid) for uid in _QR_CLASSES.values())


@pytest.mark.parametrize(
    "uid", ["1.3.12.2.1107.5.9.1", "1.2.840.113619.4.30", "2.25.1234", "1.2.840.10008.5.1.4.1.1.9999", "1.2.840.100080.1.1"]
)
def test_private_and_unknown_classes_are_stored(uid: str) -> None:
    assert is_stored(uid)
