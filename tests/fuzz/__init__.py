"""Hostile input of every kind, through the command line in this process, judged by one oracle.

oracle.py     runs a command and says what is wrong with its answer
damage.py     a good value -> a hostile variation: bytes, trees, arrays, zip and tensor files
good.py       small good runs and files, made once a session
kinds.py      a kind of input each: writes a hostile case into a folder, returns the command
found.py      what fuzzing has found, by name; always run
test_fuzz.py  these; test_oracle.py: that the oracle sees what is wrong

``pytest tests/fuzz`` takes the first cases of each kind; ``--fuzz-seconds 3600 --fuzz-seed 7`` as
many of others as there is time for; ``--fuzz-case runs:17`` one case again.
"""
