import pytest
import torch

from m6rec.edge.distillation import relations


def test_relations_of_equals_are_equal():
    generator = torch.Generator().manual_seed(0)
    heads = [torch.randn(2, 5, 12, generator=generator) for _ in range(3)]
    mask = torch.ones(2, 5, 5, dtype=torch.bool).tril()
    assert float(relations(heads, heads, mask, [5, 3], 3)) == pytest.approx(0, abs=1e-6)
    others = [head + 0.5 for head in heads[:2]] + [heads[2].roll(1, 1)]
    assert float(relations(others, heads, mask, [5, 3], 3)) > 0.01
    padded = [head.clone() for head in heads]
    for head in padded:
        head[1, 3:] = 7  # what is padding counts for nothing
    assert float(relations(padded, heads, mask, [5, 3], 3)) == pytest.approx(0, abs=1e-6)
