"""Where a study's record goes besides its folder: what W&B sees, and what happens if it fails."""
