"""Small objects made by hand, a node's settings over a test folder, and the way in and out of it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword

from archive.config import Settings
from archive.disk import LOCAL_DISK, Disk
from archive.flow.home import Home
from archive.flow.ingest import Accepted, Ingest, Reception
from archive.flow.packing import Packer
from archive.flow.retrieve import Retrieval
from tests.dicom.build import element

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
NAME = "test-node"
LARGE_BYTES = 64 * 1024
"""The least that `journal.large_bytes` may be: what is larger streams to a segment of its own."""


@dataclass(frozen=True)
class Object:
    """One object to send."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    data_set: bytes = field(repr=False)
    sop_class_uid: str = CT
    transfer_syntax_uid: str = EXPLICIT


def encoded(keyword: str, value: str | int) -> bytes:
    """One element of explicit VR little endian, its text in UTF-8."""
    tag = tag_for_keyword(keyword)
    assert tag is not None
    vr = dictionary_VR(tag)
    data = value.to_bytes(2, "little") if isinstance(value, int) else value.encode()
    padding = b"" if len(data) % 2 == 0 else b"\0" if vr in ("UI", "OB") else b" "
    return element(tag, vr, data + padding)


def make_object(
    study: int = 1, series: int = 1, number: int = 1, *, pixels: bytes = b"", pixel_bytes: int = 128, sop: str = "", **attributes: Any
) -> Object:
    """An object of study, series and instance with these numbers.

    Parameters
    ----------
    pixels : bytes
        Value of PixelData; made from the numbers, `pixel_bytes` long, where there is none.
    sop : str
        The SOP Instance UID where it shall be another.
    **attributes
        Further values by keyword; they win over those made here, an empty one leaves the attribute out.
    """
    study_uid, series_uid = f"1.2.{study}", f"1.2.{study}.{series}"
    sop_uid = sop or f"{series_uid}.{number}"
    if not pixels:
        seed = f"{study}/{series}/{number}/{sorted(attributes.items())} ".encode()
        pixels = (seed * (pixel_bytes // len(seed) + 1))[: pixel_bytes // 2 * 2]
    values: dict[str, str | int] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": CT,
        "SOPInstanceUID": sop_uid,
        "StudyDate": f"20200{1 + study % 9}15",
        "Modality": "CT",
        "PatientName": f"PATIENT^{study}",
        "PatientID": f"P{study}",
        "StudyInstanceUID": study_uid,
        "SeriesInstanceUID": series_uid,
        "SeriesNumber": str(series),
        "InstanceNumber": str(number),
        "Rows": 8,
        "Columns": len(pixels) // 8 if len(pixels) < 1 << 19 else 1 << 15,
        "BitsAllocated": 8,
        **attributes,
    }
    data_set = b"".join(encoded(keyword, values[keyword]) for keyword in sorted(values, key=_tag) if values[keyword] != "")
    return Object(study_uid, series_uid, sop_uid, data_set + element(0x7FE00010, "OB", pixels))


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    return tag


def settings_of(data: Path, **sections: dict[str, Any]) -> Settings:
    """Small segments and buffers, a short patience; `packer={"quiet_seconds": 0}` and the like change a section."""
    defaults: dict[str, dict[str, Any]] = {
        "node": {"data": data, "name": NAME},
        "journal": {"segment_bytes": 1 << 20, "large_bytes": LARGE_BYTES, "free_bytes_min": 0},
        "index": {"map_bytes_max": 64 << 20},
        "packer": {"packs_at_once_max": 1},  # What a seed tells happens again.
    }
    return Settings.model_validate({name: defaults.get(name, {}) | sections.get(name, {}) for name in {*defaults, *sections}})


def begin(ingest: Ingest, sent: Object, source: str = "test") -> Reception:
    return ingest.begin(
        sop_class_uid=sent.sop_class_uid,
        sop_instance_uid=sent.sop_instance_uid,
        transfer_syntax_uid=sent.transfer_syntax_uid,
        source=source,
    )


def begin_at_once(ingests: Sequence[Ingest], sent: Object) -> list[Reception]:
    """The same object by several ways in, each of which looks whether it is known before any of them has it; to be committed."""
    receptions = [begin(ingest, sent) for ingest in ingests]
    try:
        for reception in receptions:
            reception.write(sent.data_set)
            reception._hash(reception._used)
        looks = [reception._known(reception._describe(reception._buffer[: reception._used])) for reception in receptions]
    except BaseException:
        for reception in receptions:
            reception.abort()
        raise
    for reception, known in zip(receptions, looks, strict=True):
        reception._known = lambda _, known=known: known  # type: ignore[method-assign, misc]
    return receptions


def send(ingest: Ingest, sent: Object, source: str = "test") -> Accepted:
    """The whole way in."""
    reception = begin(ingest, sent, source)
    try:
        reception.write(sent.data_set)
        return reception.commit()
    finally:
        reception.abort()


def received(retrieval: Retrieval, sent: Object) -> bytes:
    """The data set that comes out under an object's UIDs."""
    (stored,) = retrieval.instances(sent.study_instance_uid, sent.series_instance_uid, sent.sop_instance_uid)
    with retrieval.open(stored) as opened:
        return b"".join(opened.chunks(stored.data_set_offset, stored.length - stored.data_set_offset))


@dataclass
class Life:
    """One life of one process that does everything: the way in, the packer, the way out."""

    home: Home

    def __post_init__(self) -> None:
        self.ingest, self.packer, self.retrieval = Ingest(self.home), Packer(self.home), Retrieval(self.home)

    def send(self, *objects: Object) -> list[Accepted]:
        return [send(self.ingest, one) for one in objects]

    def received(self, sent: Object) -> bytes:
        return received(self.retrieval, sent)

    def assert_served(self, objects: Sequence[Object]) -> None:
        for one in objects:
            assert self.received(one) == one.data_set, one


@contextmanager
def living(settings: Settings, disk: Disk = LOCAL_DISK) -> Iterator[Life]:
    """A process over a data folder that is in order, or new."""
    with Home(settings, "test-0", disk) as home:
        yield Life(home)


def pack_files(data: Path) -> list[Path]:
    """The packs of the embedded tier, in order; not what is in flight or in quarantine."""
    return sorted(path for path in (data / "packs").rglob("*.zip") if not path.parent.name.startswith("."))


def files_below(folder: Path) -> list[str]:
    """Names of all files, relative, in order."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
