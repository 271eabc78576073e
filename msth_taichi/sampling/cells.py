"""Pictures cut into squares, the cells of a map.

Letters: G pictures, B edge of a cell in pixels, M cells of all pictures, N pixels, W width, H height.
"""

import math

import torch

from msth_taichi.errors import ConfigError

MB = 1e6


class Cells:
    """Numbers for the cells of G pictures: picture after picture, row after row.

    A picture of W x H pixels has ceil(W / B) x ceil(H / B) cells; those at its right and lower edge may be smaller.

    Args:
        sizes: (G, 2) int64 width and height of each picture.
        edge: B.
        device: where `index` and `place` work.

    Example:
        >>> cells = Cells(torch.tensor([[5, 3]]), 2, torch.device("cpu"))
        >>> cells.total, cells.pixels().tolist()
        (6, [4, 4, 2, 2, 2, 1])
    """

    def __init__(self, sizes: torch.Tensor, edge: int, device: torch.device):
        self.edge, self.device = edge, device
        along = -(-sizes.cpu() // edge)
        counts = along.prod(1)
        ends = counts.cumsum(0)
        self.total, self.most = int(ends[-1]), int(counts.max())
        self.starts: list[int] = (ends - counts).tolist()
        self.most_pixels = int(sizes.prod(1).max())
        self.counts, self.ends = counts.to(device), ends.to(device)
        self.first = self.ends - self.counts
        self._across, self._sizes = along[:, 0].to(device), sizes.to(device)

    def index(self, picture: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
        """(N,) int64 cells that N pixels of pictures lie in."""
        return self.first[picture] + row // self.edge * self._across[picture] + column // self.edge

    def pixels(self) -> torch.Tensor:
        """(M,) int64 pixels of each cell."""
        picture = torch.repeat_interleave(torch.arange(len(self.counts), device=self.device), self.counts)
        local = torch.arange(self.total, device=self.device) - self.first[picture]
        _, extent = self._corner(picture, local)
        return extent.prod(1)

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """(rows, columns) int64 sums over the cells of a picture, or of a strip that begins with a row of cells.

        Args:
            values: (H, W) integers.
        """
        height, width = values.shape
        padded = torch.nn.functional.pad(values, (0, -width % self.edge, 0, -height % self.edge))
        along = (padded.shape[0] // self.edge, self.edge, padded.shape[1] // self.edge, self.edge)
        return padded.view(along).sum((1, 3), dtype=torch.int64)

    def place(
        self, picture: torch.Tensor, local: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A pixel's row and column, (N,) int64 each, drawn evenly from a cell.

        Args:
            picture: (N,) int64.
            local: (N,) int64, number of the cell within its picture.
            generator: on the device.
        """
        corner, extent = self._corner(picture, local)
        random = torch.rand(extent.shape, generator=generator, device=self.device)
        # float32 rounding may reach the upper end
        inside = torch.minimum((random * extent).long(), extent - 1)
        column, row = (corner + inside).unbind(1)
        return row, column

    def _corner(self, picture: torch.Tensor, local: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 2) int64 column and row of a cell's first pixel, and its width and height."""
        across = self._across[picture]
        corner = torch.stack([local % across, local // across], dim=1) * self.edge
        return corner, (self._sizes[picture] - corner).clamp(max=self.edge)


def finest_edge(sizes: torch.Tensor, bytes_per_cell: int, memory: float, edge: int = 1) -> int:
    """The smallest B, of `edge` or more, with which all cells stay within a bound.

    Args:
        sizes: (G, 2) int64 width and height.
        bytes_per_cell: that a map keeps for each.
        memory: `sampler.map_memory`, MB.
        edge: the least B.
    Raises:
        ConfigError: one cell for each picture is too much already.

    Example:
        >>> finest_edge(torch.tensor([[1352, 1014]]).expand(5700, 2), 4, 256)  # 19 cameras, 300 frames
        12
    """
    kinds, counts = sizes.cpu().unique(dim=0, return_counts=True)
    bound, longest = memory * MB / bytes_per_cell, int(kinds.max())
    if len(sizes) > bound:
        needed = math.ceil(len(sizes) * bytes_per_cell / MB)
        raise ConfigError(
            f"sampler.map_memory={memory:g} MB does not hold one cell for each of {len(sizes)} pictures; "
            f"set it to {needed} or more"
        )
    edge = max(edge, math.isqrt(int((kinds.prod(1) * counts).sum() / bound)))  # cells are no fewer than this says
    while edge < longest and int(((-(-kinds // edge)).prod(1) * counts).sum()) > bound:
        edge += 1
    return edge
