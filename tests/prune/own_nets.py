"""Nets of one's own, as they come from elsewhere."""

import torch
from torch import nn


class HeadFirst(nn.Module):
    """Its head is defined before its body, which normalises in groups."""

    def __init__(self, groups: tuple[int, int] = (4, 8)) -> None:
        super().__init__()
        self.head = nn.Linear(16, 5)
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.norms = nn.ModuleList(nn.GroupNorm(count, 16) for count in groups)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.norms[0](self.first(pixels)))
        return self.head(torch.relu(self.norms[1](self.second(hidden))).mean((2, 3)))


class Twice(nn.Module):
    """One convolution, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.block = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.again, self.head = self.block, nn.Linear(8, 5)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.block(torch.relu(self.first(pixels))))
        return self.head(torch.relu(self.again(hidden)).mean((2, 3)))


class TwoHeads(HeadFirst):
    """Answers are the mean of two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(16, 5)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.second(torch.relu(self.first(pixels)))).mean((2, 3))
        return (self.head(hidden) + self.other(hidden)) / 2


class Halves(nn.Module):
    """Its second layer is given half of what the first one makes, and the channels are shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        left, right = self.first(pixels).chunk(2, 1)
        hidden = torch.cat([left, self.second(right)], 1)
        count, channels, height, width = hidden.shape
        hidden = hidden.view(count, 2, channels // 2, height, width).transpose(1, 2).flatten(1, 2)
        return self.head(hidden.mean((2, 3)))
