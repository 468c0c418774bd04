"""What happens around a Lightning fit: recording, checkpoints, progress, pictures."""
