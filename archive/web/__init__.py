"""The HTTP wire: DICOMweb (DICOM PS3.18), the viewer, health and metrics."""
