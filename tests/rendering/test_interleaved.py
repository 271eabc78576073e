"""Work in turns."""

import pytest

from msth_taichi.rendering.interleaved import interleaved


def test_each_goes_on_in_turn_and_results_keep_their_order():
    seen = []

    def work(name, turns):
        for k in range(turns):
            seen.append((name, k))
            yield
        return name

    assert interleaved([work("a", 3), work("b", 0), work("c", 1)]) == ["a", "b", "c"]
    assert seen == [("a", 0), ("c", 0), ("a", 1), ("a", 2)]


def test_an_error_ends_all():
    def fails():
        yield
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        interleaved([fails(), fails()])
