import pytest
import torch

from m6rec import adapters
from m6rec.adapters import AdapterRouter, TaskAdapterConfig
from m6rec.errors import ConfigError
from tests import tiny


def make(model, method, **options):
    return adapters.create(TaskAdapterConfig(method=method, first_layer=2, **options), model, seed=0)


def test_foundations_differ():
    one, other = tiny.model(seed=0), tiny.model(seed=1)
    with pytest.raises(ConfigError, match=f"these belong to {one.id}, {other.id}"):
        AdapterRouter([make(one, "adapter"), make(other, "adapter")], torch.tensor([0, 1]))


def test_prompts_and_slots_follow_the_rows():
    model = tiny.model()
    tunings = [make(model, "option", num_prompts=4), make(model, "prompt", num_prompts=4)]
    torch.nn.init.ones_(tunings[1].slots_SD)
    mixture = AdapterRouter(tunings, torch.tensor([1, 0, 1]))
    assert mixture.prompts_BPD.shape == (3, 4, 32)
    assert torch.equal(mixture.prompts_BPD[1], tunings[0].prompts_PD)
    assert mixture.slots_BSD[:, 0, 0].tolist() == [1, 0, 1]


def test_numbers_of_prompts_differ():
    model = tiny.model()
    with pytest.raises(ConfigError, match=r"as many prompts each; these have \[0, 8\]"):
        _ = AdapterRouter([make(model, "option"), make(model, "lora")], torch.tensor([0, 1])).prompts_BPD


def test_a_batch_of_one_task_runs_only_that_task():
    model = tiny.model()
    idle, busy = make(model, "upper"), make(model, "upper")
    ids_BL = tiny.ids(2, 5)
    model(ids_BL, hook=AdapterRouter([idle, busy], torch.tensor([1, 1]))).sum().backward()
    assert all(parameter.grad is None for parameter in idle.module.parameters())
    assert all(parameter.grad is not None for parameter in busy.module.parameters())
