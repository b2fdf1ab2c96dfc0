"""Images of a run, and one self-contained page that shows them with the metrics."""

from fieldloom.report.files import write
from fieldloom.report.page import format_number
from fieldloom.report.pictures import tile_height

__all__ = ["format_number", "tile_height", "write"]
