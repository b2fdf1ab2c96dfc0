"""Posed images of objects in the layout of Scene Representation Networks."""

import pytest

from fieldloom.errors import InputError
from fieldloom.modalities.sources.srn import read_srn
from fieldloom.modalities.views import Views
from posed_images import HEIGHT, WIDTH, cars

FULL = Views(size=(HEIGHT, WIDTH))


def test_objects_of_srn_that_are_wrong(tmp_path):
    with pytest.raises(InputError, match="holds no object"):
        read_srn(FULL, str(tmp_path))
    path = tmp_path / "car"
    read = lambda: read_srn(FULL, cars_path)
    cars_path = cars(path)
    table, pose = path / "intrinsics.txt", path / "pose" / "000001.txt"
    lines, numbers = table.read_text(), pose.read_text()
    for file, text, message in (
        (table, "40 16", "must begin with 'f cx cy 0' and end with 'height width'"),
        (table, "forty", "is no file of numbers"),
        (table, lines.replace("40.0", "1.25"), "000000.png' has the focal lengths 1.25"),
        (pose, "1 2 3", "000001.txt' has 3 numbers"),
        (pose, "9 " + numbers.split(" ", 1)[1], "pose of .*000001.png"),
    ):
        before = file.read_text()
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            read()
        file.write_text(before)
    assert len(read().data) == 1
    (path / "pose" / "000003.txt").unlink()
    (path / "rgb" / "000002.png").unlink()
    with pytest.raises(InputError, match="lacks 2 of the files of its 4 frames.*000002.png"):
        read()
    for file in [*path.glob("rgb/*"), *path.glob("pose/*")]:
        file.unlink()
    with pytest.raises(InputError, match="has no frames"):
        read()
