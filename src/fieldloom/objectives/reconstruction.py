"""The reconstruction objective: encode the context, predict the target."""

from __future__ import annotations

from torch import Tensor, nn

from fieldloom.encoders import Encoder, reconstruction_loss
from fieldloom.encoders.encoder import check_codes
from fieldloom.family import Family
from fieldloom.metrics.losses import PerSignal, mse
from fieldloom.metrics.paired import INAUDIBLE
from fieldloom.objectives.objective import Logs, Objective, trainable, with_tables
from fieldloom.renderers import Looking, Renderer
from fieldloom.types import Batch, LossFn, Values


class Reconstruction(Objective):
    """Mean over signals of loss_fn(render(family(encoder(context))), target) + penalties(code).

    Depending on the encoder it is the outer loss of CAVIA (of the last inner step), or the loss of
    auto-decoding, of amortised encoders, or of fitting a single signal. Its parameters are the
    groups ``shared``, ``tables`` (of a field's grids) and ``codes`` (of auto-decoding).

    penalty: one or several regularisation terms on the codes.
    span:    high - low of the values' range; the log's PSNR is relative to it, where the loss is
             the mean squared error.
    silence: of sound, the value of silence: the log has the SNR (``metrics.paired.snr``) of the
             points seen instead of their PSNR.
    """

    per_signal = frozenset({"codes"})

    def __init__(
        self,
        family: Family,
        encoder: Encoder,
        render: Renderer,
        loss_fn: LossFn,
        penalty: nn.Module | tuple[nn.Module, ...] = (),
        span: float = 2.0,
        silence: float | None = None,
    ) -> None:
        super().__init__()
        self.family, self.encoder = family, encoder
        self.penalties = nn.ModuleList(penalty if isinstance(penalty, tuple) else [penalty])
        self.render, self.loss_fn, self.span = render, loss_fn, span
        self.silence = silence
        alone = all(p.independent for p in self.penalties)
        self.independent = encoder.independent and alone
        divisible = all(p.independent or getattr(p, "joint", False) for p in self.penalties)
        self.divisible = (encoder.independent or encoder.divisible) and divisible
        self.neighbours = max((getattr(p, "neighbours", 0) for p in self.penalties), default=0)
        self.joint = self.divisible and not alone
        self.capturable = encoder.capturable and all(
            getattr(p, "capturable", False) for p in self.penalties
        )
        self.capturable &= not isinstance(render, Looking)
        codes, tables = encoder.code_parameters(), family.conditioner.tables()
        own = {id(p) for p in codes}
        trained = [p for p in trainable([family, encoder, self.penalties]) if id(p) not in own]
        groups = with_tables("shared", trained, tables)
        self.players = {"field": {**groups, "codes": codes} if codes else groups}

    def loss(self, player: str, batch: Batch) -> tuple[Tensor, Logs]:
        code = self.encoder.training_codes(batch.context, self.family, self.render, self.loss_fn)
        check_codes(self.encoder, code, batch.context, self.family)
        if isinstance(self.render, Looking):
            self.render.look(self.family.bind(code))
        signal_loss = lambda code, signal: reconstruction_loss(
            code, signal, self.family, self.render, self.loss_fn
        )
        losses = signal_loss(code, batch.target)
        logs = {"loss": losses.detach().mean()}
        if self.loss_fn is mse:
            logs |= self._fidelity(losses.detach(), batch.target.values)
        for penalty in self.penalties:
            added = penalty(code, batch, self.encoder, signal_loss)
            name = type(penalty).__name__.lower()
            logs[name] = logs.get(name, 0) + added.detach().mean()
            losses = losses + added
        return losses.mean(), logs

    def _fidelity(self, errors: PerSignal, true: Values) -> Logs:
        """The PSNR of these squared errors in dB, of sound their SNR."""
        if self.silence is None:
            return {"psnr": -10 * (errors / self.span**2).log10().mean()}
        scale = (2 / self.span) ** 2
        power = (true - self.silence).square().flatten(1).mean(1)
        signal, noise = ((scale * x).clamp_min(INAUDIBLE).log10() for x in (power, errors))
        return {"snr": 10 * (signal - noise).mean()}
