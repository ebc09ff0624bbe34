import pytest
import torch

from m6rec.adapters.features import FeatureEncoder


def signals():
    made = FeatureEncoder(3, 8, torch.Generator().manual_seed(0))
    with torch.no_grad():
        made.w3_RD.fill_(1.0)
    return made


def test_mean_and_spread_of_the_training_part_are_normed_away():
    numbers_NF = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    plain, moved = signals(), signals()
    plain.fit(numbers_NF)
    moved.fit(100 * numbers_NF - 7)
    torch.testing.assert_close(plain(numbers_NF[None]), moved(100 * numbers_NF[None] - 7), rtol=1e-4, atol=1e-3)


def test_where_nothing_or_one_was_observed_numbers_stay_as_they_are():
    for count in (0, 1):
        made = signals()
        made.fit(torch.ones(count, 3))
        assert torch.equal(made(torch.ones(1, 2, 3)), signals()(torch.ones(1, 2, 3)))


@pytest.mark.parametrize("count", [0, 1, 2, 7, 15])
def test_what_a_row_gives_does_not_depend_on_its_company(count):
    generator = torch.Generator().manual_seed(0)
    signals = FeatureEncoder(12, 576, generator)
    torch.nn.init.normal_(signals.w3_RD, generator=generator)
    numbers_1CF = torch.randn(1, 100, 12, generator=generator)
    assert torch.equal(signals(numbers_1CF[:, :count]), signals(numbers_1CF)[:, :count])
