import torch

from m6rec.edge.activations import record_activations
from tests import pocket


def test_the_teacher_speaks_once(tmp_path, monkeypatch):
    teacher, said = pocket.tuned(), []
    texts = ["The movie.", "The movie. The user liked it.", "He"]
    first = record_activations(teacher, texts, tmp_path, lambda *now: said.append(now))
    assert said
    said.clear()
    again = record_activations(teacher, texts, tmp_path, lambda *now: said.append(now))
    assert not said
    assert torch.equal(first.hidden_TD, again.hidden_TD)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    record_activations(teacher, texts, tmp_path, lambda *now: said.append(now))
    assert said
    states = teacher.cache.fetch(texts)
    for number, text in enumerate(texts):
        (tree, start) = next(
            (tree, start) for tree, start in zip(first.trees, first.starts, strict=False) if number in tree.paths
        )
        last = first.hidden_TD[start + tree.paths[number][-1]]
        torch.testing.assert_close(last, states.tokens_TD[states.places[text][0]])
