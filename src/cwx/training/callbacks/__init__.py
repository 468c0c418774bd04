"""Lightning callbacks: recording, checkpoints, progress, images."""
