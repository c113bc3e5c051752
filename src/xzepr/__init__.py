"""XZepr: an event provenance server for the software supply chain."""

__version__ = "0.1.0"
