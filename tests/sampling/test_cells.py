import pytest
import torch

from msth_taichi.errors import ConfigError
from msth_taichi.sampling.cells import Cells, finest_edge
from tests.sampling import tables


@pytest.mark.parametrize("edge", [1, 2, 3, 50])
def test_every_pixel_has_its_cell(device, edge):
    sizes = torch.tensor(tables.SIZES)
    cells = Cells(sizes, edge, device)
    picture, row, column = (
        torch.tensor([(g, y, x) for g, (w, h) in enumerate(tables.SIZES) for y in range(h) for x in range(w)])
        .to(device)
        .unbind(1)
    )
    index = cells.index(picture, row, column)
    assert torch.equal(torch.bincount(index, minlength=cells.total), cells.pixels()) and cells.pixels().min() > 0
    if edge == 50:
        assert cells.total == 2 and cells.pixels().tolist() == [35, 24]
    # sums over cells, of whole pictures and of strips
    values = torch.arange(len(index), device=device, dtype=torch.int32)
    expected = torch.zeros(cells.total, dtype=torch.int64, device=device).index_add_(0, index, values.long())
    sums = [cells.sums(part.view(h, w)) for part, (w, h) in zip(values.split([35, 24]), tables.SIZES, strict=True)]
    assert torch.equal(torch.cat([s.flatten() for s in sums]), expected)
    first = values[:35].view(5, 7)
    assert torch.equal(torch.cat([cells.sums(part) for part in first.split(edge)]), sums[0])


@pytest.mark.parametrize("edge", [1, 2, 4])
def test_places_lie_evenly_in_their_cell(device, edge):
    cells = Cells(torch.tensor(tables.SIZES), edge, device)
    generator = torch.Generator(device).manual_seed(0)
    torch.manual_seed(0)
    cell = torch.multinomial(cells.pixels().float().cpu(), 12_000, replacement=True)
    cell = cell.to(device)
    picture = torch.searchsorted(cells.ends, cell, right=True)
    row, column = cells.place(picture, cell - cells.first[picture], generator)
    assert torch.equal(cells.index(picture, row, column), cell)
    pixel = (picture * 6 + row) * 7 + column
    counts = torch.bincount(pixel)
    tables.assert_drawn_by((counts > 0).double(), counts)
    assert (counts > 0).sum() == 35 + 24


def test_cells_are_as_fine_as_memory_allows():
    sizes = torch.tensor(tables.SIZES)[[0] * 3 + [1] * 5]
    pixels = 3 * 35 + 5 * 24
    assert finest_edge(sizes, 4, pixels * 4e-6) == 1
    assert finest_edge(sizes, 4, (pixels * 4 - 1) * 1e-6) == 2
    for memory in (40e-6, 100e-6, 300e-6):
        edge = finest_edge(sizes, 4, memory)

        def taken(edge: int) -> int:
            return 4 * Cells(sizes, edge, torch.device("cpu")).total

        assert taken(edge) <= memory * 1e6 < taken(edge - 1)
    assert finest_edge(sizes, 4, 1, edge=3) == 3
    with pytest.raises(ConfigError, match=r"sampler\.map_memory=2e-05 MB.*8 pictures; set it to 1 or more"):
        finest_edge(sizes, 4, 20e-6)


def test_a_data_set_of_the_usual_size_keeps_to_the_bound():
    sizes = torch.tensor([[1352, 1014]]).expand(19 * 300, 2)
    edge = finest_edge(sizes, 4, 256)
    assert edge == 12 and 4 * 5700 * 113 * 85 < 256e6
