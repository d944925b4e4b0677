"""DICOM studies of any vendor to series with true geometry."""
