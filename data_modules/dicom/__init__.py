"""DICOM studies of any vendor to series with true geometry."""

import logging

import pydicom

# pydicom's complaints about odd values quote them, and a value may tell who the patient is. What
# is needed is checked here.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
# Its decoders log tracebacks of images that cannot be decoded; the intake gives a reason instead.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
