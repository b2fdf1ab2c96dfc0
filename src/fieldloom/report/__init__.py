"""Images of a run, and one self-contained page that shows them with the metrics."""

from fieldloom.report.files import write
from fieldloom.report.live import Live
from fieldloom.report.pictures import tile_height
from fieldloom.report.questions import Answer
from fieldloom.report.words import format_number

__all__ = ["Answer", "Live", "format_number", "tile_height", "write"]
