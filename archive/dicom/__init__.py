"""What the DICOM Standard says; pure: bytes in, values out."""
