"""A transformer over a code's tokens, conditioned on time and class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fieldloom.denoisers.conditions import class_rows, embed_sinusoid
from fieldloom.errors import InputError
from fieldloom.memory import checked_range
from fieldloom.nn.transformer import AdaptiveBlock, check_heads, modulate
from fieldloom.types import Code


class Dit(nn.Module):
    """The diffusion transformer DiT (arXiv:2212.09748, section 3.2, adaLN-zero) over tokens.

    Tokens are mapped to ``width``, and a fixed sine-cosine position is added to each (tokens that
    are whitened one by one are not exchangeable). ``depth`` blocks follow, whose norms and
    residuals are modulated by the sum of the embeddings of the time and the class.

    classes: the last row of their embedding is "any class"; with 0 there is no embedding.
    heads:   of attention, a divisor of ``width``.
    ratio:   hidden units of the perceptrons over ``width``.
    time:    width of the sine-cosine embedding of t, before its perceptron.

    All modulations and the last map start at zero: an untrained network predicts 0. The defaults
    are DiT-L, LA-GINR's denoiser. Raises InputError for sizes that do not fit one another.
    """

    position: Tensor

    def __init__(
        self,
        code_shape: tuple[int, int],
        classes: int = 0,
        depth: int = 24,
        width: int = 1024,
        heads: int = 16,
        ratio: float = 4.0,
        time: int = 256,
    ) -> None:
        if depth < 1 or ratio <= 0:
            raise InputError(f"dit: depth = {depth} is at least 1, ratio = {ratio:g} positive.")
        if width % 2 or time % 2 or min(width, time) < 2:
            raise InputError(f"dit: width = {width} and time = {time} are even and positive.")
        check_heads(width, heads)
        super().__init__()
        self.code_shape, self.embed_width = code_shape, time
        tokens, channels = code_shape
        self.input = nn.Linear(channels, width)
        self.register_buffer(
            "position", embed_sinusoid(torch.arange(tokens), width), persistent=False
        )
        self.time = nn.Sequential(nn.Linear(time, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.blocks = nn.ModuleList(
            AdaptiveBlock(width, heads, ratio) for _ in checked_range(depth)
        )
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.adapt = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.output = nn.Linear(width, channels)
        self._init_weights()

    def _init_weights(self) -> None:
        """Initialise as DiT's released code does."""
        linear_maps = lambda module: [m for m in module.modules() if isinstance(m, nn.Linear)]
        for layer in linear_maps(self):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        embeddings = [] if self.label is None else [self.label.weight]
        for weight in (*(layer.weight for layer in linear_maps(self.time)), *embeddings):
            nn.init.normal_(weight, std=0.02)
        last = [m for block in self.blocks for m in linear_maps(block.adapt)]
        for layer in (*last, *linear_maps(self.adapt), self.output):
            nn.init.zeros_(layer.weight)

    def forward(self, code: Code, time: Tensor, label: Tensor | None = None) -> Code:
        """code (batch, tokens, width), time and label (batch,) integers -> shaped as code.

        Raises InputError for a code of another shape.
        """
        if tuple(code.shape[1:]) != tuple(self.code_shape):
            raise InputError(f"dit: a code is {self.code_shape}, not {tuple(code.shape[1:])}.")
        condition = self.time(embed_sinusoid(time, self.embed_width).to(code))
        if self.label is not None:
            rows = class_rows(label, time, self.label.num_embeddings)
            condition = condition + self.label(rows)
        h = self.input(code) + self.position.to(code)
        for block in self.blocks:
            h = block(h, condition)
        shift, scale = self.adapt(condition).chunk(2, -1)
        return self.output(modulate(self.norm(h), shift, scale))
