import os
import sys

# ``python -m`` puts the current folder first: a file there named as a module would be run
sys.path[:] = [place for place in sys.path if place not in ("", os.getcwd())]

from fieldloom.cli import main  # noqa: E402

main()
