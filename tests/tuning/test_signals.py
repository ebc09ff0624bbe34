import pytest
import torch

from m6rec.tuning.signals import Signals


@pytest.mark.parametrize("count", [0, 1, 2, 7, 15])
def test_what_a_row_gives_does_not_depend_on_its_company(count):
    generator = torch.Generator().manual_seed(0)
    signals = Signals(12, 576, generator)
    torch.nn.init.normal_(signals.w3_RD, generator=generator)
    numbers_1CF = torch.randn(1, 100, 12, generator=generator)
    assert torch.equal(signals(numbers_1CF[:, :count]), signals(numbers_1CF)[:, :count])
