"""Measure this project on a GPU."""

import os

# Before PyTorch is imported: whether there is a GPU is asked without beginning to use it, so that
# a process for each part can begin for itself.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
