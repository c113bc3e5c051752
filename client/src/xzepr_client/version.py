"""The version, where nothing else has to be imported for it. The wheel's metadata has the same; a test compares them."""

from typing import Final

__version__: Final = "0.1.0"
