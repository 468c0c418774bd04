"""Where the repository keeps what tests read."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
