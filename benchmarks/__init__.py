"""What `make bench` runs. It is no part of the wheel."""

from pathlib import Path
from typing import Final

# Where `python -m benchmarks.…` is found.
ROOT: Final = Path(__file__).parents[1]
