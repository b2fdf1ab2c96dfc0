"""The sections of ``accelerator.py``: each a function of a ``Plan`` and its ``Parts``."""
