"""Weights as tokens, from fits to samples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import Tensor

import fieldloom
from fieldloom import recipe as recipes
from fieldloom.assembly import open_source
from fieldloom.codecs import CODECS
from fieldloom.codecs.tokens import cut_tokens, gather_tokens
from fieldloom.conditioners import FlatWeights
from fieldloom.engine.run import Run
from fieldloom.errors import InputError
from fieldloom.evaluation import evaluator_of
from fieldloom.evaluation.upper_bound import codec_upper_bound
from fieldloom.fields import Fourier, FourierMlp
from fieldloom.metrics.paired import psnr
from fieldloom.training import train
from vectors import same

# -- the transformer, by laws


def test_fields_of_mnist_have_the_published_lengths() -> None:
    """16 features, 16-16-1: 560 weights and, as in the report, an output's bias."""
    for bias, count in ((True, 561), (False, 560)):
        field = FourierMlp(
            2,
            1,
            width=16,
            depth=3,
            output_bias=bias,
            encoding=Fourier("octaves", count=4, pi=False),
        )
        conditioner = FlatWeights(field.slots)
        assert len(cut_tokens(conditioner.code_shape, conditioner.layout, "scalar").index) == count
        assert len(cut_tokens(conditioner.code_shape, conditioner.layout, "neuron").index) == 33


# -- a run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A finished run of weights:tiny, and what was finished when its codec was."""
    folder, finished = tmp_path_factory.mktemp("runs") / "weights", []
    train(
        recipes.load("weights:tiny"), str(folder), on_codec=lambda s, _: finished.extend(s.finished)
    )
    return folder, finished


def test_a_run_samples_by_tokens(run: tuple[Path, list[str]]) -> None:
    folder, finished = run
    assert finished == ["field", "codec"]  # before anything is trained on tokens
    system = fieldloom.load(folder)
    codec = system.prior.codec
    same(codec.center, system.family.conditioner.origin(1)[0].detach(), rtol=0, atol=0)
    codes = system.sample_codes(3, label=5, top_k=3, top_p=0.9, temperature=0.8)
    # a sample is made of entries: of each token one of the first level plus one of the second
    index = codec.index
    left = gather_tokens(codes - codec.center, index)
    sums = (codec.books[0, 0][:, None] + codec.books[0, 1]).flatten(0, 1) * (index >= 0)[:, None]
    far = (left[:, :, None] - sums).abs().amax(-1)  # (3, tokens, 15 * 15)
    assert far.amin(2).max() < 1e-6
    raw = gather_tokens(Run(folder).read_codes()[0][:3] - codec.center, index)
    assert (raw[:, :, None] - sums).abs().amax(-1).amin(2).max() > 1e-3  # unlike what was fitted
    assert system.decode(codes).shape == (3, 1, 8, 8)
    same(system.sample_codes(3, label=5, top_k=1), system.sample_codes(3, label=5, top_k=1))
    with pytest.raises(InputError, match="unknown sampling option"):
        system.sample_codes(3, guidance=2.0)


def test_interrupted_training_goes_on_as_if_it_had_not_been(
    run: tuple[Path, list[str]], tmp_path: Path
) -> None:
    half = recipes.load("weights:tiny", ["train.prior.save_every=10"])
    saved = []
    write = Run.write_state

    def stop(self: Run, stage: str, *state: object) -> None:
        write(self, stage, *state)
        saved.append(stage)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "write_state", stop)
        with pytest.raises(KeyboardInterrupt):
            train(half, str(tmp_path / "run"))
    assert saved == ["prior"]
    again = train(None, str(tmp_path / "run"), resume=True)
    whole = fieldloom.load(run[0])
    for name, tensor in whole.state_dict().items():
        same(again.state_dict()[name], tensor, rtol=0, atol=0)


def test_keys_of_before_are_read() -> None:
    """Of a variant, of --set, and of a codec inside a codec."""
    new = ["prior.codec.codebook_size=9", "prior.positions=['level']"]
    old = ["prior.codec.codes=9", "prior.places=['level']"]
    for name in ("weights:tiny", "weights:tiny-graph-words"):
        with pytest.warns(UserWarning, match=r"codes.*codebook_size.*"):
            found = recipes.load(name, old)
        assert found == recipes.load(name, new)
        assert found["prior"]["codec"]["codebook_size"] == 9
    with pytest.warns(UserWarning, match="tensors.*weight-transformer"):
        before = recipes.load("hyperdiffusion:tiny", ["prior.denoiser.name=tensors"])
    assert before == recipes.load("hyperdiffusion:tiny")


def test_recipes_choose_among_tokens_where_there_are_tokens() -> None:
    """top_k is of token ids: a prior of numbers refuses it."""
    for row in recipes.list_recipes()["weights"]:
        own = recipes.load(f"weights:{row}")
        drawn = own["prior"]["codec"]["name"] == "quantize"
        assert (own["evaluate"].get("top_k") is not None) == drawn, row


def test_the_ceiling_is_measured_on_the_signal(run: tuple[Path, list[str]]) -> None:
    folder, _ = run
    system = fieldloom.load(folder)
    source = open_source(system.recipe, system.modality)
    codes = Run(folder).read_codes()[0][:20]
    data = source.read(source.train[:20])
    own = evaluator_of(system, source)
    found = {f.name: f.value for f in codec_upper_bound(own, data, codes)}
    assert set(found) == {"ceiling.weights", "fitted.psnr", "ceiling.psnr"}
    true = data.tensor
    by_hand = [
        psnr(system.predict(c).tensor, true).mean().item() for c in (codes, coded(system, codes))
    ]
    same([found["fitted.psnr"], found["ceiling.psnr"]], by_hand, rtol=1e-6, atol=0)
    assert found["ceiling.psnr"] != found["fitted.psnr"]  # of fields that hardly know their data
    assert 0 < found["ceiling.weights"] < 1
    system.prior.codec = CODECS["identity"](system.prior.code_shape)
    exact = {f.name: f.value for f in codec_upper_bound(own, data, codes)}
    assert exact["ceiling.psnr"] == exact["fitted.psnr"]
    assert exact["ceiling.weights"] == 0


def coded(system: fieldloom.System, codes: Tensor) -> Tensor:
    return system.prior.codec.decode(system.prior.codec.encode(codes))


def test_the_command_says_the_ceiling(cli, run: tuple[Path, list[str]]) -> None:
    folder, _ = run
    done = cli("ceiling", folder, "--count", 7)
    assert "ceiling.psnr" in done.stdout
    assert "7 training data" in done.stdout + done.stderr
    names = [figure["name"] for figure in json.loads((folder / "ceiling.json").read_text())]
    assert names == ["ceiling.weights", "fitted.psnr", "ceiling.psnr"]
