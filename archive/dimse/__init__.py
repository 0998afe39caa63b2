"""The DIMSE wire (DICOM PS3.7 and PS3.8): associations on blocking sockets, one thread each, and the services on top."""
