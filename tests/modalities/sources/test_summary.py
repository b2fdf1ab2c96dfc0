"""The line and the values that say what was read."""

from fieldloom.modalities.sources.summary import Summary, count_things, describe_size, list_names


def test_the_line():
    passed = {
        "not images": ["notes.txt", ".DS_Store", "b/more.txt", "c/more.txt"],
        "unreadable": ["a.png", "b.png"],
        "hidden": [],
    }
    taken = {"classes": "3 classes (axolotl, cat, dog)", "size": "64 x 64"}
    summary = Summary("image", 27, taken, passed)
    assert summary.describe() == (
        "27 images, 3 classes (axolotl, cat, dog), 64 x 64; 6 files passed over: "
        "4 not images (.txt, .DS_Store), 2 unreadable (a.png, b.png)"
    )
    assert summary.rows()[0] == ("data", "27 images")
    assert summary.rows()[-1] == ("passed over, unreadable", "a.png, b.png")
    assert summary.facts()["passed_over"]["not images"] == {
        "count": 4,
        "names": ["notes.txt", ".DS_Store", "b/more.txt", "c/more.txt"],
    }


def test_words():
    assert count_things(1, "image") == "1 image"
    assert count_things(1000, "mesh") == "1,000 meshes"
    assert count_things(0, "class") == "0 classes"
    assert count_things(2, "datum") == "2 data"
    assert describe_size((64, 48)) == "64 x 48"
    assert describe_size((44_100,)) == "44,100 samples"
    assert list_names([str(i) for i in range(7)]) == "0, 1, 2, 3, 4 and 2 more"


def test_many_names_are_kept_short():
    summary = Summary("image", 1, {}, {"unreadable": [f"{i}.png" for i in range(1000)]})
    assert summary.describe().endswith("1,000 unreadable (0.png, 1.png, 2.png, 3.png, 4.png and "
                                       "995 more)")  # fmt: skip
    kept = summary.facts()["passed_over"]["unreadable"]
    assert (kept["count"], len(kept["names"])) == (1000, 100)
