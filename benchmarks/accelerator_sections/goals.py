"""What was aimed at, what was measured, and whether it is met."""

from __future__ import annotations

from typing import Any, NamedTuple

Found = dict[str, Any]


class Goal(NamedTuple):
    """A number of the results, and its aim; ``keys`` lead to it from section and part.

    sign: 1 where more is better, -1 where less is. aim: None where the number only stands beside
    one that others published (``beside``).
    """

    name: str
    keys: tuple[str, ...]
    sign: int = 1
    aim: float | None = None
    beside: str = ""

    def next_to(self, published: str) -> Goal:
        return self._replace(beside=published)


FACES = ("mnif S of faces", "laginr of faces", "ipc of faces")
CHAIRS = ("mnif of chairs, gain 1", "mnif of chairs, gain sqrt(M)")

GOALS = [
    Goal("conformance vectors that agree", ("right", "vectors", "share"), 1, 1.0),
    Goal("laws that hold", ("right", "laws", "share"), 1, 1.0),
    Goal("recipes that run", ("right", "recipes", "share"), 1, 1.0),
    Goal("mNIF S training, times plain", ("speed", "mnif S, training", "ratio"), 1, 10.0),
    Goal("mNIF S decoding, of the bound", ("speed", "mnif S, decoding", "64", "bound"), 1, 0.5),
    Goal("mNIF L decoding, of the bound", ("speed", "mnif L, decoding", "64", "bound"), 1, 0.5),
    Goal("mNIF S decoding at 1, pictures/s", ("speed", "mnif S, decoding", "1", "rate"))
    .next_to("2,959 published"),
    Goal("mNIF L decoding at 1, pictures/s", ("speed", "mnif L, decoding", "1", "rate"))
    .next_to("891 published"),
    Goal("LoE layer nearest, time over plain",
         ("speed", "loe", "ratios", "layer, nearest, random", "median"), -1, 1.2),
    Goal("bulk fits, time over the floor", ("speed", "bulk fits", "over_floor"), -1, 1.5),
    Goal("mNIF S of faces, PSNR", (FACES[0], "evaluation", "psnr"))
    .next_to("31.5 dB published: CelebA-HQ, 675,200 steps"),
    Goal("LA-GINR of faces, PSNR", (FACES[1], "evaluation", "psnr"))
    .next_to("50.74 dB published: CelebA at 178, 3.05 M steps"),
    Goal("IPC of faces, PSNR", (FACES[2], "evaluation", "psnr"))
    .next_to("35.93 dB published: CelebA at 178, 3.05 M steps"),
    Goal("chairs with gain 1, IoU", (CHAIRS[0], "evaluation", "iou")),
    Goal("chairs with gain sqrt(M), IoU", (CHAIRS[1], "evaluation", "iou")),
]  # fmt: skip


def find(sections: Found, keys: tuple[str, ...]) -> float | None:
    """A number of the results; None where it was not measured."""
    section, part, *rest = keys
    found: Any = sections.get(section, {}).get(part, {}).get("result")
    for key in rest:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, int | float) else None


def judge(sections: Found) -> list[Found]:
    """Every goal with what was measured; ``met`` is None where there is no aim, or no number.

    Aims of speed are those of a GPU: on a CPU they are not judged.
    """
    device = sections.get("speed", {}).get("bounds", {}).get("result", {}).get("device", "")
    judged = []
    for goal in GOALS:
        value = find(sections, goal.keys)
        judges = goal.keys[0] == "right" or device == "cuda"
        met = None
        if value is not None and goal.aim is not None and judges:
            met = goal.sign * value >= goal.sign * goal.aim
        judged.append({"goal": goal.name, "measured": value, "met": met} | describe(goal))
    return judged


def describe(goal: Goal) -> dict[str, str]:
    if goal.aim is None:
        return {"aim": goal.beside}
    return {"aim": f"{'at least' if goal.sign > 0 else 'at most'} {goal.aim:g}"}


def table(judged: list[Found]) -> list[str]:
    """The goals as lines of text."""
    lines = [f"{'goal':46} {'measured':>12}  met      aim"]
    for row in judged:
        measured = "-" if row["measured"] is None else f"{row['measured']:,.4g}"
        met = {True: "met", False: "NOT met", None: "-"}[row["met"]]
        lines.append(f"{row['goal']:46} {measured:>12}  {met:8} {row['aim']}")
    return lines
