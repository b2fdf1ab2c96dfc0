"""A residual perceptron, for codes of one token or a few."""

from __future__ import annotations

from torch import Tensor, nn

from fieldloom.denoisers.conditions import class_rows, embed_sinusoid
from fieldloom.errors import InputError
from fieldloom.memory import checked_range
from fieldloom.types import Code


class ResidualBlock(nn.Module):
    """x + L2(silu(norm h)) with h = L1(silu(norm x)) + Lt(silu t)."""

    def __init__(self, width: int, groups: int, time: int) -> None:
        super().__init__()
        self.norm1, self.linear1 = nn.GroupNorm(groups, width), nn.Linear(width, width)
        self.time = nn.Linear(time, width)
        self.norm2, self.linear2 = nn.GroupNorm(groups, width), nn.Linear(width, width)
        self.silu = nn.SiLU()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = self.linear1(self.silu(self.norm1(x))) + self.time(self.silu(t))
        return x + self.linear2(self.silu(self.norm2(h)))


class ResMlp(nn.Module):
    """A residual perceptron with additive skips from its first half to its second, as a U-Net's.

    depth:  blocks, an even number. width: of their hidden layers, a multiple of ``groups``.
    groups: number of groups of hidden units; each is normalised by itself.
    time:   width of the sine-cosine embedding of t, followed by one linear map.
    classes: adds an embedding of the class to that of the time; its last row is "any class".

    Source: the latent denoiser of mNIF's released code (8 blocks of 4096), which follows Functa's.
    Linear maps start Kaiming-normal with zero biases, the second map of every block at zero.
    """

    def __init__(
        self,
        code_shape: tuple[int, int],
        classes: int = 0,
        depth: int = 8,
        width: int = 4096,
        groups: int = 16,
        time: int = 64,
    ) -> None:
        super().__init__()
        uneven = depth % 2 or time % 2 or min(depth, time) < 2
        if uneven or min(width, groups) < 1 or width % groups:
            raise InputError(
                f"resmlp: depth = {depth} and time = {time} are even and positive, "
                f"width = {width} is a multiple of groups = {groups}."
            )
        size = code_shape[0] * code_shape[1]
        self.embed_width = time
        self.input = nn.Linear(size, width)
        self.time = nn.Linear(time, time)
        self.label = nn.Embedding(classes + 1, time) if classes else None
        self.blocks = nn.ModuleList(
            ResidualBlock(width, groups, time) for _ in checked_range(depth)
        )
        self.norm, self.output = nn.GroupNorm(groups, width), nn.Linear(width, size)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            assert isinstance(block, ResidualBlock)
            nn.init.zeros_(block.linear2.weight)

    def forward(self, code: Code, time: Tensor, label: Tensor | None = None) -> Code:
        """code (batch, tokens, width), time and label (batch,) integers -> shaped as code."""
        t = self.time(embed_sinusoid(time, self.embed_width).to(code))
        if self.label is not None:
            t = t + self.label(class_rows(label, time, self.label.num_embeddings))
        h, skips = self.input(code.flatten(1)), []
        half = len(self.blocks) // 2
        for i, block in enumerate(self.blocks):
            if i < half:
                skips.append(h)
            else:  # the first block of the second half receives the last skip
                h = h + skips.pop()
            h = block(h, t)
        out = self.output(nn.functional.silu(self.norm(h)))
        return out.view_as(code)
