"""Millgate beside its peers and beside the limits of the machine. See `__main__.py`."""
