"""A local web application that shows runs: ``fieldloom view``, and ``fieldloom.view`` in Python."""
