"""The memory that an evaluation may allocate for its statistics."""

# Bytes of the largest array of features or covariances; most machines have as much memory.
STATISTICS_BYTES = 16 * 2**30
