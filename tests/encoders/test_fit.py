"""A fit that starts from an encoder's answer."""

from __future__ import annotations

from fieldloom.encoders import Fit, reconstruction_loss
from fieldloom.metrics.losses import mse
from fieldloom.renderers import Direct as Seen
from transformers_by_hand import encode, family, painter, picture


def test_a_fit_is_no_worse_than_the_encoder_it_starts_from() -> None:
    own, signal = family(), picture()
    start = painter()
    loss = lambda code: reconstruction_loss(code, signal, own, Seen(), mse).detach()
    before = loss(start(signal, own, Seen(), mse))
    for rate in (1e-2, 100.0):  # the second is far too large
        fit = Fit(steps=5, rate=rate, start=start)
        after = loss(fit(signal, own, Seen(), mse))
        assert (after <= before).all()
    assert (loss(Fit(steps=5, start=start)(signal, own, Seen(), mse)) < before).all()
    assert fit.reads_grid
    assert not Fit().reads_grid


def test_all_weights_are_refined_from_an_answer() -> None:
    """Test-time optimisation of the whole field that a code stands for, each signal its own."""
    own, signal = family(), picture()
    code = encode(painter(), signal).detach()
    unfolded = own.unfold(code)
    before = reconstruction_loss(code, signal, own, Seen(), mse).detach()
    refined = Fit(steps=5, rate=1e-2)(signal, unfolded, Seen(), mse)
    after = reconstruction_loss(refined, signal, unfolded, Seen(), mse).detach()
    assert (after < before).all()
