"""The detector ``points-v1``: how its weights were made, and what it ranks.

    python benchmarks/points.py train MESHES.npz --out points-v1.safetensors --results RESULTS.json
    python benchmarks/points.py judge VOXELS.npz --run mNIF=RUNS/mnif --run GASP=RUNS/gasp \
        --results RESULTS.json

``train`` reads the packed meshes that the source ``meshes`` reads, one thread, and gives the same
file for the same seed on the same machine. ``judge`` ranks known degradations of half of the
shapes by their distance to the other half, and samples of runs by their distance to the test part.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import re
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from damages import cut, mix, neighbour_means
from safetensors.torch import save as to_bytes
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from fieldloom import atomic, load
from fieldloom.assembly import make_modality, open_source
from fieldloom.evaluation.shapes import surface_clouds
from fieldloom.geometry.mesh import as_mesh, sample_surface
from fieldloom.metrics.cloud_distances import distances, find_failures, normalize_clouds
from fieldloom.metrics.cloud_features import CLOUD_DETECTORS
from fieldloom.metrics.cloud_sets import two_sample
from fieldloom.metrics.point_network import WIDTH, PointNet
from fieldloom.metrics.sets import frechet, kid, prdc
from fieldloom.modalities import Voxels
from fieldloom.modalities.sources import Source
from fieldloom.priors.closed_form import Gaussian
from fieldloom.system import System

POINTS = 2048
"""Points of each mesh that clouds are drawn from."""
HELD_POINTS = 512
"""The last of them, which training never draws: of the accuracy by mesh."""
HELD_MESHES = 44
"""Meshes that are not trained on: of the accuracy by class."""
DRAWN = (128, 256, 512, 1024)
"""Points of the clouds of a step, of which there are ``STEP_POINTS`` in all."""
STEP_POINTS = 2**14
DAMAGES = ("noise", "smoothing", "missing", "mixed")


# -- training


class Meshes:
    """Surface points (n, 2048, 3) in the unit ball, the same smoothed, and classes of meshes."""

    def __init__(self, path: Path) -> None:
        held = np.load(path)
        data = {name: held[name] for name in ("verts", "faces", "vert_offsets", "face_offsets")}
        self.kinds, kind = np.unique(held["category"], return_inverse=True)
        self.kind = torch.from_numpy(kind)
        clouds = []
        for i in range(len(kind)):
            part = lambda name, of, i=i: data[name][data[of][i] : data[of][i + 1]]
            mesh = as_mesh(part("verts", "vert_offsets"), part("faces", "face_offsets"), f"{i}")
            clouds.append(2 * sample_surface(mesh, POINTS, Generator().manual_seed(i))[0])
        self.points = torch.stack(clouds).float()
        self.smooth = torch.stack([neighbour_means(cloud, 32) for cloud in self.points])
        order = torch.randperm(len(kind), generator=Generator().manual_seed(0))
        self.test, self.train = order[:HELD_MESHES], order[HELD_MESHES:]


def draw_clouds(
    meshes: Meshes, which: Tensor, count: int, random: Generator, held: bool = False
) -> tuple[Tensor, Tensor]:
    """Damaged and placed clouds (n, count, 3) of meshes, and the damages (n, 4), each in [0, 1].

    A third of the clouds has no damage, of the others each has a random one. held: of the points
    that are held out.
    """
    n, uniform = len(which), lambda *shape: torch.rand(*shape, generator=random)
    low, high = (POINTS - HELD_POINTS, POINTS) if held else (0, POINTS - HELD_POINTS)
    index = torch.randint(low, high, (n, count), generator=random)
    kind = torch.randint(-2, 4, (n,), generator=random)
    damage = F.one_hot(kind.clamp_min(0), 4) * (kind >= 0)[:, None] * uniform(n, 1)
    noise, smoothing, missing, mixed = damage[:, :, None, None].unbind(1)
    clouds, smooth = (x[which[:, None], index] for x in (meshes.points, meshes.smooth))
    clouds = clouds + smoothing * (smooth - clouds)
    clouds = turn_and_stretch(clouds, random)
    ways = F.normalize(torch.randn(n, 3, generator=random), dim=1)
    clouds = cut(clouds, ways, 0.5 * missing[:, 0, 0], random)
    clouds = mix(clouds, clouds.roll(1, 0), ways, 0.5 * mixed[:, 0, 0])
    size = 0.005 + 0.1 * noise.square()
    clouds = clouds + size * torch.randn(clouds.shape, generator=random)
    return clouds, damage


def turn_and_stretch(clouds: Tensor, random: Generator) -> Tensor:
    """Turned about the upward axis, stretched and moved; then any axis may be the upward one."""
    n, uniform = len(clouds), lambda *shape: torch.rand(*shape, generator=random)
    angle = 2 * math.pi * uniform(n)
    matrix = torch.zeros(n, 3, 3)
    matrix[:, 0, 0], matrix[:, 0, 1] = angle.cos(), angle.sin()
    matrix[:, 1, 0], matrix[:, 1, 1] = -angle.sin(), angle.cos()
    matrix[:, 2, 2] = 1
    scale = (0.8 + 0.8 * uniform(n, 1, 1)) * (1.25 ** (2 * uniform(n, 1, 3) - 1))
    clouds = clouds * scale @ matrix + 0.03 * torch.randn(n, 1, 3, generator=random)
    axes = torch.tensor([[0, 1, 2], [1, 2, 0], [2, 0, 1]])
    chosen = axes[torch.randint(3, (n,), generator=random)]
    return clouds.gather(2, chosen[:, None].expand_as(clouds))


class Heads(nn.Module):
    """What features are trained to tell: the mesh, its class, and the damages."""

    def __init__(self, meshes: int, kinds: int) -> None:
        super().__init__()
        self.mesh = nn.Linear(WIDTH, meshes)
        self.kind = nn.Linear(WIDTH, kinds)
        self.damage = nn.Linear(WIDTH, len(DAMAGES))


def train(asked: argparse.Namespace) -> dict[str, Any]:
    """Train the network, write its weights, and return what is to be written down."""
    began = time.process_time()
    torch.manual_seed(asked.seed)
    random = Generator().manual_seed(asked.seed)
    meshes = Meshes(asked.data)
    made = time.process_time() - began
    network, heads = PointNet(), Heads(len(meshes.train), len(meshes.kinds))
    parameters = [*network.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=asked.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, asked.rate, asked.steps)
    for step in range(asked.steps):
        count = DRAWN[int(torch.randint(len(DRAWN), (), generator=random))]
        label = torch.randint(len(meshes.train), (STEP_POINTS // count,), generator=random)
        clouds, damage = draw_clouds(meshes, meshes.train[label], count, random)
        loss = training_loss(network(clouds), heads, label, meshes, damage)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            seconds = time.process_time() - began
            print(f"{step + 1}/{asked.steps}, {seconds:.0f} s, loss {loss:.3f}", flush=True)
    found = {
        "accuracy": measure_accuracy(network.eval(), heads, meshes),
        "seed": asked.seed,
        "steps": asked.steps,
        "rate": asked.rate,
        "seconds": {"data": round(made), "all": round(time.process_time() - began)},
    }
    about = {
        "name": "points-v1",
        "data": f"{asked.data.name}: {len(meshes.kind)} meshes, CC0",
        "command": f"python benchmarks/points.py train {asked.data.name} --steps {asked.steps} "
        f"--rate {asked.rate} --seed {asked.seed}",
        "seed": asked.seed,
    }
    # one entry: several would come in any order, and equal files would differ
    atomic.write_bytes(to_bytes(network.state_dict(), {"fieldloom": json.dumps(about)}), asked.out)
    return {"train": found}


def training_loss(
    features: Tensor, heads: Heads, label: Tensor, meshes: Meshes, damage: Tensor
) -> Tensor:
    """Cross-entropies of mesh and class, and ten times the squared error of the damages."""
    mesh = F.cross_entropy(heads.mesh(features), label, label_smoothing=0.1)
    kind = F.cross_entropy(heads.kind(features), meshes.kind[meshes.train][label])
    return mesh + kind + 10 * F.mse_loss(heads.damage(features), damage)


@torch.no_grad()
def measure_accuracy(network: PointNet, heads: Heads, meshes: Meshes) -> dict[str, float]:
    """Of clouds of 512 points, damaged and placed as in training, 4 of each mesh.

    mesh: among all meshes that were trained on, of points that were not. class: of meshes that
    were not trained on. damage: correlation of the told damages with the true ones, of these.
    """
    random, rounds = Generator().manual_seed(1), 4

    def features(which: Tensor, held: bool) -> tuple[Tensor, Tensor]:
        clouds, damage = draw_clouds(meshes, which, 512, random, held)
        return torch.cat([network(part) for part in clouds.split(32)]), damage

    right = torch.zeros(2)
    told, true = [], []
    for _ in range(rounds):
        found, _ = features(meshes.train, held=True)
        right[0] += (heads.mesh(found).argmax(1) == torch.arange(len(found))).float().mean()
        found, damage = features(meshes.test, held=False)
        right[1] += (heads.kind(found).argmax(1) == meshes.kind[meshes.test]).float().mean()
        told.append(heads.damage(found))
        true.append(damage)
    pairs = zip(torch.cat(told).T, torch.cat(true).T, strict=True)
    damages = [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs]
    mesh, kind = (right / rounds).tolist()
    return {"mesh": mesh, "class": kind} | dict(zip(DAMAGES, damages, strict=True))


# -- ranking

CLOUD = 2048
"""Points of the clouds that are judged, as the protocols have them."""
DRAWS = 3
"""Random halves of the shapes, or draws of samples."""

SEVERITIES: dict[str, tuple[float, ...]] = {
    "noise": (0, 0.005, 0.01, 0.02, 0.04),  # standard deviation, of the cube's side
    "smoothing": (0, 8, 32, 128),  # nearest points whose mean a point moves to
    "missing": (0, 0.1, 0.2, 0.4),  # share of a shape
    "mixed": (0, 0.25, 0.5, 1),  # share of the shapes that are halves of two
    "fewer": (1, 0.25, 1 / 16, 1 / 64),  # share of the shapes, repeated
    "copies": (0, 0.25, 0.5, 1),  # share of the samples that are copies of the reference
}


def damage(
    name: str, severity: float, clouds: Tensor, reference: Tensor, random: Generator
) -> Tensor:
    """A set of clouds with a damage of ``SEVERITIES``; the first severity leaves it as it is."""
    n, k = len(clouds), round(severity * len(clouds))
    ways = F.normalize(torch.randn(n, 3, generator=random), dim=1).to(clouds)
    if name == "noise":
        return clouds + severity * torch.randn(clouds.shape, generator=random)
    if name == "smoothing" and severity:
        return torch.stack([neighbour_means(cloud, int(severity)) for cloud in clouds]).double()
    if name == "missing":
        return cut(clouds, ways, torch.full((n,), severity), random)
    if name == "mixed":
        halves = mix(clouds, clouds.roll(1, 0), ways, torch.full((n,), 0.5))
        return torch.cat([halves[:k], clouds[k:]])
    if name == "fewer":
        return clouds[torch.arange(n) % max(1, k)]
    if name == "copies":
        return torch.cat([reference[:k], clouds[k:]])
    return clouds


def compare(real: Tensor, made: Tensor) -> dict[str, float]:
    """Of two sets of features: the Frechet distance, KID, and the ball metrics."""
    return {"frechet": frechet(real, made), "kid": kid(real, made)} | prdc(real, made)


def rank_damages(clouds: Tensor) -> dict[str, Any]:
    """Frechet distance and KID of half of the clouds, damaged, from the other half: draws of each.

    ordered: in how many draws every step of the severity raised the Frechet distance.
    """
    detectors = {name: kind(0.5) for name, kind in CLOUD_DETECTORS.items()}
    rows: dict[str, Any] = {name: {} for name in SEVERITIES}
    for draw in range(DRAWS):
        random = Generator().manual_seed(draw)
        order = torch.randperm(len(clouds), generator=random)
        half = len(clouds) // 2
        reference, others = clouds[order[:half]], clouds[order[half : 2 * half]]
        known = {name: detector(reference) for name, detector in detectors.items()}
        for name, severities in SEVERITIES.items():
            for severity in severities:
                made = damage(name, severity, others, reference, random)
                for which, detector in detectors.items():
                    found = compare(known[which], detector(made))
                    row = rows[name].setdefault(which, {"severity": severities})
                    for metric in ("frechet", "kid"):
                        row.setdefault(metric, [[] for _ in range(DRAWS)])[draw].append(
                            found[metric]
                        )
        print(f"draw {draw + 1} of {DRAWS}", flush=True)
    for row in (row for found in rows.values() for row in found.values()):
        row["ordered"] = sum(sorted(values) == values for values in row["frechet"])
    return rows


def rank_runs(runs: Mapping[str, Path]) -> dict[str, Any]:
    """Metrics of each run's samples, and of training shapes, against the test shapes.

    As many as test shapes, ``DRAWS`` times. 1nna: of squared Chamfer distances of 256 points, each
    cloud less its mean and over one deviation.
    """
    systems = {name: load(str(path)) for name, path in runs.items()}
    first = next(iter(systems.values()))
    source = open_source(first.recipe, first.modality, quiet=True)
    cloud = lambda data, modality: surface_clouds(modality, data, CLOUD)
    test = cloud(source.read(source.test).tensor, first.modality)
    detectors = {name: kind(0.5) for name, kind in CLOUD_DETECTORS.items()}
    known = {name: detector(test) for name, detector in detectors.items()}
    few = lambda clouds: normalize_clouds(clouds[:, :256], "cloud")
    apart = lambda a, b: distances(a, b, "chamfer", True)
    real = few(test)
    within = apart(real, real)
    rows: dict[str, Any] = {}
    for draw in range(DRAWS):
        order = torch.randperm(len(source.train), generator=Generator().manual_seed(draw))
        sets = {"data": source.read(source.train[order[: len(test)]]).tensor}
        sets |= {
            name: draw_samples(system, source, len(test), draw) for name, system in systems.items()
        }
        for name, data in sets.items():
            made = cloud(data, first.modality)
            made = made[~find_failures(made)]
            row = rows.setdefault(name, {})
            row.setdefault("failures", []).append(len(test) - len(made))
            own = few(made)
            accuracy = two_sample(within, apart(real, own), apart(own, own))["1nna"]
            row.setdefault("1nna", []).append(accuracy)
            for which, detector in detectors.items():
                for metric, value in compare(known[which], detector(made)).items():
                    row.setdefault(which, {}).setdefault(metric, []).append(value)
        print(f"draw {draw + 1} of {DRAWS}", flush=True)
    for name, system in systems.items():
        rows[name]["recipe"] = system.settings.title
        stages = system.settings.stages
        rows[name]["steps"] = {stage: stages[stage].steps for stage in system.finished}
        rows[name]["prior"] = "as trained" if system.generates else "a Gaussian of the codes"
    return rows


def draw_samples(system: System, source: Source, count: int, seed: int) -> Tensor:
    """Samples of a run; where its prior is not trained, of a Gaussian of its codes."""
    if system.generates:
        return system.sample(count, seed=seed).tensor
    random = Generator().manual_seed(0)
    codes = []
    for part in source.train.split(32):
        batch = system.modality.observe(source.read(part), points=1024, generator=random)
        codes.append(system.encode_signal(batch.context))
    prior = Gaussian(system.family.code_shape)
    prior.fit(torch.cat(codes))
    return system.decode(prior.sample(count, generator=Generator().manual_seed(seed))).tensor


def judge(asked: argparse.Namespace) -> dict[str, Any]:
    """Rank damages of the shapes, then samples of the runs, each where asked for."""
    found: dict[str, Any] = {}
    if asked.data:
        system = {"name": "voxel", "size": 32, "coords": {"place": "centre"}}
        modality = cast(Voxels, make_modality(system))
        spec = {"name": "voxels", "path": str(asked.data), "split": [1.0, 0.0]}
        source = open_source({"source": spec, "known": {}}, modality, quiet=True)
        data = source.read(source.train[: asked.count]).tensor
        clouds = surface_clouds(modality, data, CLOUD)
        shapes = f"{len(clouds)} of {asked.data.name}, in halves"
        found["damages"] = {"shapes": shapes} | rank_damages(clouds)
    if asked.run:
        runs = dict(one.split("=", 1) for one in asked.run)
        found["runs"] = rank_runs({name: Path(path) for name, path in runs.items()})
    return found


# -- what is written down


def command(verb: str) -> str:
    """The command, without the folders of its paths."""
    words = [re.sub(r"[^=]*/", "", word) for word in sys.argv[2:]]
    return " ".join(["python benchmarks/points.py", verb, *words])


def write_results(asked: argparse.Namespace, found: Mapping[str, Any]) -> None:
    """Add what a verb found to the results, each part with its command; runs by their names."""
    held = json.loads(asked.results.read_text()) if asked.results.is_file() else {}
    about = {
        "command": command(asked.verb),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, one thread, torch "
        f"{torch.__version__}",
    }
    runs = {name: about | row for name, row in found.get("runs", {}).items()}
    held |= {name: about | part for name, part in found.items() if name != "runs"}
    if runs:
        held["runs"] = held.get("runs", {}) | runs
    atomic.write_text(json.dumps(held, indent=1) + "\n", asked.results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("train", help="train the network on packed meshes")
    one.add_argument("data", type=Path)
    one.add_argument("--out", type=Path, required=True, help="the file of weights")
    one.add_argument("--steps", type=int, default=1800)
    one.add_argument("--rate", type=float, default=3e-3)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--results", type=Path)
    two = verbs.add_parser("judge", help="rank known damages, and samples of runs")
    two.add_argument("data", type=Path, nargs="?", help="packed voxels")
    two.add_argument("--count", type=int, default=146, help="of the shapes that are damaged")
    two.add_argument("--run", action="append", metavar="NAME=FOLDER", help="a finished run")
    two.add_argument("--results", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = {"train": train, "judge": judge}[asked.verb](asked)
    print(json.dumps(found, indent=1))
    if asked.results:
        write_results(asked, found)


if __name__ == "__main__":
    main()
