"""A DICOM archive node: C-STORE in, packs at rest, DICOMweb out."""

__version__ = "0.1.0"
