"""How much the agreement of sampled digits with asked labels depends on what classifier judges it.

    python benchmarks/judges.py runs/mnif-digits --out benchmarks/results/judges.json

Every classifier of scikit-learn here is fitted on the real training digits. Samples are judged as
they are, and rounded to the 17 grey levels that the data have; real test digits for comparison.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from numpy import ndarray
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import fieldloom
from fieldloom.assembly import open_source

JUDGES: dict[str, ClassifierMixin] = {
    "svm": SVC(gamma="scale"),
    "svm, standardised": make_pipeline(StandardScaler(), SVC(gamma="scale")),
    "logistic": LogisticRegression(max_iter=2000),
    "logistic, standardised": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
    "3 nearest neighbours": KNeighborsClassifier(3),
    "forest": RandomForestClassifier(random_state=0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a finished run of mnif:digits")
    parser.add_argument("--count", type=int, default=640)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    system = fieldloom.load(arguments.run)
    source = open_source(system.recipe, system.modality)
    flat = lambda data: data.tensor.flatten(1).numpy()
    truth = lambda part: source.labels[part].numpy()
    labels = torch.arange(arguments.count) % len(source.names)
    samples = flat(system.sample(arguments.count, label=labels, seed=0))
    rows = []
    for name, judge in JUDGES.items():
        judge.fit(flat(source.read(source.train)), truth(source.train))
        agrees = lambda x, judge=judge: float((judge.predict(x) == labels.numpy()).mean())
        levels: ndarray = (samples * 16).round() / 16
        test = float(judge.score(flat(source.read(source.test)), truth(source.test)))
        rows.append({"judge": name, "samples": agrees(samples), "rounded": agrees(levels)})
        rows[-1]["test"] = test
        print("{judge:24s} samples {samples:.3f}  rounded {rounded:.3f}  test {test:.3f}".format(
            **rows[-1]))  # fmt: skip
    if arguments.out:
        arguments.out.write_text(
            json.dumps({"samples": arguments.count, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
