"""Files and folders on disk: runs, sweeps, the store. Only modules for tensors import torch."""
