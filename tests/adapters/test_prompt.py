import pytest
import torch

from m6rec import adapters
from m6rec.adapters import TaskAdapterConfig
from m6rec.errors import ConfigError
from m6rec.foundation import checkpoint
from tests import tiny


def make(model, method="option", **options):
    options_CD = options.pop("options_CD", None)
    return adapters.create(
        TaskAdapterConfig(method=method, first_layer=2, **options), model, seed=0, options_CD=options_CD
    )


def test_the_last_prompts_are_the_rows_of_the_softmax():
    t = make(tiny.model(), num_classes=3)
    normed_BD = torch.randn(5, 32)
    torch.testing.assert_close(t.score(normed_BD), normed_BD @ t.prompts_PD[-3:].T)
    t.score(normed_BD).square().sum().backward()
    untouched, rows = t.prompts.weight_PD.grad.split([5, 3])
    assert not untouched.any()
    assert rows.abs().min() > 0


def test_a_fresh_prompt_has_the_spread_of_the_embeddings():
    model = tiny.model()
    with torch.no_grad():
        model.embed_tokens.weight.mul_(0.05)
    assert make(model, num_prompts=64).prompts_PD.std().item() == pytest.approx(0.05, rel=0.1)


def test_options_start_from_answer_words():
    model = tiny.model()
    words_CD = model.embed_tokens.weight[torch.tensor([7, 9])]
    t = make(model, options_CD=words_CD)
    assert torch.equal(t.prompts_PD[-2:], words_CD)
    assert t.prompts_PD.requires_grad
    normed_BD = torch.randn(1, 32)
    torch.testing.assert_close(t.score(normed_BD), model.logits(normed_BD)[:, [7, 9]])


def test_options_that_do_not_fit():
    model = tiny.model()
    with pytest.raises(ConfigError, match=r"shape \(2, 31\).*width 32"):
        make(model, options_CD=torch.zeros(2, 31))
    with pytest.raises(ConfigError, match=r"at most 2 rows"):
        make(model, num_prompts=2, options_CD=torch.zeros(3, 32))
    with pytest.raises(ConfigError, match="'prompt' has no option rows"):
        make(model, method="prompt", options_CD=torch.zeros(2, 32))


def test_gemma_scales_prompts_like_its_tokens(tmp_path):
    tiny.hf_folder("gemma3", tmp_path)
    model = checkpoint.load(str(tmp_path), dtype="float32").model
    t = make(model, options_CD=model.embed_tokens.weight[torch.tensor([7, 9])])
    torch.testing.assert_close(t.prompts_PD[-2:], model.embed(torch.tensor([[7, 9]]))[0])
