"""Files and folders on disk: runs, sweeps, the store. Only what holds tensors imports torch."""
