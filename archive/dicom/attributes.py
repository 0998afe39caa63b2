"""The attributes that searches know, and the dictionary of all others (DICOM PS3.6, PS3.18 10.6.3, PS3.4 C.6)."""

import re
from functools import lru_cache
from typing import Literal

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from archive.errors import BadInput

ATTRIBUTES_VERSION = 1
"""Grows whenever the tables below or the decoding of values change; packs written before keep what they hold."""

_is_tag = re.compile("[0-9A-Fa-f]{8}").fullmatch

Level = Literal["patient", "study", "series", "instance"]

PATIENT_ATTRIBUTES = (
    "00100010",  # PatientName
    "00100020",  # PatientID
    "00100021",  # IssuerOfPatientID
    "00100022",  # TypeOfPatientID
    "00100024",  # IssuerOfPatientIDQualifiersSequence
    "00100030",  # PatientBirthDate
    "00100032",  # PatientBirthTime
    "00100040",  # PatientSex
    "00101000",  # OtherPatientIDs
    "00101001",  # OtherPatientNames
    "00101002",  # OtherPatientIDsSequence
    "00102160",  # EthnicGroup
    "00102201",  # PatientSpeciesDescription
    "00102292",  # PatientBreedDescription
    "00102297",  # ResponsiblePerson
    "00104000",  # PatientComments
)

STUDY_ATTRIBUTES = (
    "00080020",  # StudyDate
    "00080030",  # StudyTime
    "00080050",  # AccessionNumber
    "00080051",  # IssuerOfAccessionNumberSequence
    "00080090",  # ReferringPhysicianName
    "00080201",  # TimezoneOffsetFromUTC
    "00081030",  # StudyDescription
    "00081032",  # ProcedureCodeSequence
    "00081048",  # PhysiciansOfRecord
    "00081060",  # NameOfPhysiciansReadingStudy
    "00081080",  # AdmittingDiagnosesDescription
    "00101010",  # PatientAge
    "00101020",  # PatientSize
    "00101030",  # PatientWeight
    "00102180",  # Occupation
    "001021B0",  # AdditionalPatientHistory
    "0020000D",  # StudyInstanceUID
    "00200010",  # StudyID
    "00321032",  # RequestingPhysician
    "00321033",  # RequestingService
    "00321060",  # RequestedProcedureDescription
    "00380010",  # AdmissionID
)

SERIES_ATTRIBUTES = (
    "00080021",  # SeriesDate
    "00080031",  # SeriesTime
    "00080060",  # Modality
    "00080070",  # Manufacturer
    "00080080",  # InstitutionName
    "00081010",  # StationName
    "0008103E",  # SeriesDescription
    "0008103F",  # SeriesDescriptionCodeSequence
    "00081040",  # InstitutionalDepartmentName
    "00081050",  # PerformingPhysicianName
    "00081070",  # OperatorsName
    "00081090",  # ManufacturerModelName
    "00180015",  # BodyPartExamined
    "00181000",  # DeviceSerialNumber
    "00181020",  # SoftwareVersions
    "00181030",  # ProtocolName
    "00185100",  # PatientPosition
    "0020000E",  # SeriesInstanceUID
    "00200011",  # SeriesNumber
    "00200052",  # FrameOfReferenceUID
    "00200060",  # Laterality
    "00400244",  # PerformedProcedureStepStartDate
    "00400245",  # PerformedProcedureStepStartTime
    "00400253",  # PerformedProcedureStepID
    "00400254",  # PerformedProcedureStepDescription
    "00400275",  # RequestAttributesSequence
)

INSTANCE_ATTRIBUTES = (
    "00080005",  # SpecificCharacterSet
    "00080008",  # ImageType
    "00080012",  # InstanceCreationDate
    "00080013",  # InstanceCreationTime
    "00080016",  # SOPClassUID
    "00080018",  # SOPInstanceUID
    "00080022",  # AcquisitionDate
    "00080023",  # ContentDate
    "0008002A",  # AcquisitionDateTime
    "00080032",  # AcquisitionTime
    "00080033",  # ContentTime
    "00200012",  # AcquisitionNumber
    "00200013",  # InstanceNumber
    "00204000",  # ImageComments
    "00280002",  # SamplesPerPixel
    "00280004",  # PhotometricInterpretation
    "00280008",  # NumberOfFrames
    "00280010",  # Rows
    "00280011",  # Columns
    "00280100",  # BitsAllocated
    "0040A032",  # ObservationDateTime
    "0040A043",  # ConceptNameCodeSequence
    "0040A491",  # CompletionFlag
    "0040A493",  # VerificationFlag
    "00420010",  # DocumentTitle
    "00420012",  # MIMETypeOfEncapsulatedDocument
    "00700080",  # ContentLabel
    "00700081",  # ContentDescription
    "00700084",  # ContentCreatorName
    "30060002",  # StructureSetLabel
    "300A0002",  # RTPlanLabel
)

DATE_AND_TIME = (
    ("00080012", "00080013"),  # InstanceCreationDate
    ("00080020", "00080030"),  # StudyDate
    ("00080021", "00080031"),  # SeriesDate
    ("00080022", "00080032"),  # AcquisitionDate
    ("00080023", "00080033"),  # ContentDate
    ("00100030", "00100032"),  # PatientBirthDate
    ("00400244", "00400245"),  # PerformedProcedureStepStartDate
)
"""Dates with the attribute that holds the time of the same moment."""

_LEVELS: dict[str, Level] = {
    **dict.fromkeys(PATIENT_ATTRIBUTES, "patient"),
    **dict.fromkeys(STUDY_ATTRIBUTES, "study"),
    **dict.fromkeys(SERIES_ATTRIBUTES, "series"),
    **dict.fromkeys(INSTANCE_ATTRIBUTES, "instance"),
}


def level_of(tag: str) -> Level:
    """Level of the information model that an attribute belongs to; what is in no table belongs to the instance."""
    return _LEVELS.get(tag, "instance")


@lru_cache(maxsize=8192)
def vr_of(tag: str) -> str:
    """Value representation of a standard attribute, as PS3.6 has it (`US or SS` for some); UN for private and unknown ones.

    Parameters
    ----------
    tag : str
        Eight hexadecimal digits.
    """
    try:
        return dictionary_VR(int(tag, 16))
    except KeyError:
        return "UL" if tag.endswith("0000") else "UN"


def keyword_of(tag: str) -> str:
    """Keyword of a standard attribute; empty for private and unknown ones."""
    return keyword_for_tag(int(tag, 16))


def parse_attribute_path(text: str) -> tuple[str, ...]:
    """The tags that an attribute of a query names, from the outermost sequence inwards (DICOM PS3.18 8.3.4.1).

    Parameters
    ----------
    text : str
        Keywords or tags of eight hexadecimal digits, joined by dots: `PatientName`, `00400275.00400007`.

    Raises
    ------
    BadInput
        A part is neither, or an attribute that is no sequence has another one inside.
    """
    parts = text.split(".")
    if len(parts) > 8:
        raise BadInput(f"attribute {text[:64]!r} is nested too deep")
    path = tuple(_tag_of(part) for part in parts)
    for tag in path[:-1]:
        if vr_of(tag) not in ("SQ", "UN"):
            raise BadInput(f"attribute {text!r}: {tag} is not a sequence")
    return path


def _tag_of(part: str) -> str:
    if _is_tag(part):
        return part.upper()
    tag = tag_for_keyword(part) if part else None
    if tag is None:
        raise BadInput(f"there is no attribute {part[:64]!r}")
    return f"{tag:08X}"
