"""A tuned ranking task → a small one: a student of the lower half, fewer tokens, a pruned upper half (M6-Rec, 3.5).

The student is a small model that reads a text as the lower layers do: its states, widened, are those of the teacher, so
the upper layers and all that the tuning adds work on them. Each technique is a switch of the ``Recipe``:

- one set of weights run several times, or a few; a narrow width; a factorised table of tokens; fewer tokens;
- learning from the teacher: its states, its attention relations (MiniLM), its scores; or from labels alone;
- gradual magnitude pruning (Zhu and Gupta, 2017), and fewer neurons and heads in the upper layers;
- an exit after each layer of the student, trained with weights that grow with its depth (PABEE).

Rounding to 8 and 4 bits is a matter of ``edge.export``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from m6rec.data.log import Log
from m6rec.data.split import TRAIN, VALID
from m6rec.domains.domain import Domain
from m6rec.edge.activations import Progress, padded, record_activations
from m6rec.edge.distillation import distil
from m6rec.edge.model_card import model_card
from m6rec.edge.pruning import copy_upper, pruning, upper_parts
from m6rec.edge.recipe import Recipe
from m6rec.errors import ConfigError
from m6rec.evaluation.metrics import auc
from m6rec.features.interactions import without_neighbours
from m6rec.foundation import checkpoint
from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.config import ModelConfig, RopeConfig
from m6rec.foundation.model import Block, Model
from m6rec.foundation.states import StateCache, States
from m6rec.readouts import ScoreModel
from m6rec.readouts.scoring import fit_numbers
from m6rec.tasks.task import Task
from m6rec.tasks.task import texts as texts_in
from m6rec.text import prefixes
from m6rec.text.batch import Batch, Example, pack, pad, size
from m6rec.text.vocabulary import trim
from m6rec.training import TrainConfig, fit

CARD, RECIPE = "card.json", "recipe.json"
FOUNDATION, RUN = "foundation", "run"
MOST_ITEMS, MOST_WORDINGS = 20_000, 12
"""Items that the student learns from, and ways to word what a user did with one."""


def shrink(
    teacher: ScoreModel,
    log: Log,
    rows: Mapping[int, Sequence[Example]],
    recipe: Recipe,
    folder: Path,
    *,
    lessons: Path | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Makes a small model of a tuned ranking task.

    Args:
        teacher: The task, with the foundation that it was tuned on.
        log: Items, users and events, by which texts are worded; of events only the wording is read.
        rows: Questions of the parts TRAIN and VALID.
        recipe: What to do.
        folder: Takes ``foundation/`` and ``run/``, which are used like any others, and ``card.json``. One where work
            was interrupted goes on from its checkpoints.
        lessons: A folder that keeps what the teacher said, for other recipes.
        progress: Called with (stage, done, total).

    Returns:
        The card.

    Raises:
        ConfigError: The task ranks nothing, or its lower layers are tuned, or the folder holds another recipe's work.
    """
    _require(teacher, folder, recipe)
    if (folder / CARD).exists():
        card: dict[str, Any] = json.loads((folder / CARD).read_text())
        return card
    learned, held_out = texts_of(teacher.task, teacher.domain, log, recipe)
    student, kept = _student(teacher, [*learned, *held_out], recipe, rows[TRAIN])
    if recipe.distils:
        said = record_activations(teacher, learned, lessons, progress)
        distil(student, kept, teacher, said, recipe, folder / "distilling", progress)
    small = _tune(student, teacher, rows, recipe, folder / "tuning", progress)
    card = model_card(small, teacher, learned, held_out, _asked(rows[VALID], recipe), recipe)
    _write(small, folder, card)
    return card


def at_exit(tuned: ScoreModel, num_layers: int) -> ScoreModel:
    """A small model that leaves its student after so many of its layers; the weights are shared.

    Raises:
        ConfigError: The foundation was not shrunk, or its student has fewer layers.
    """
    foundation = tuned.foundation
    reader = foundation.model.config.reader
    if reader is None or not 0 < num_layers <= reader.num_layers:
        has = "is not a distilled one" if reader is None else f"has a student of {reader.num_layers} layers"
        raise ConfigError(f"can't exit after {num_layers} layers: the foundation {has}")
    if num_layers == reader.num_layers:
        return tuned
    shorter = replace(
        reader,
        num_layers=num_layers,
        windows=reader.windows[:num_layers],
        blocks=reader.blocks[:num_layers],
    )
    with torch.device("meta"):
        model = Model(replace(foundation.model.config, reader=shorter))
    state = foundation.model.state_dict()
    model.load_state_dict({name: state[name] for name in model.state_dict()}, assign=True)
    model.requires_grad_(False)
    model.id = f"{foundation.model.id}@{num_layers}"
    left = Foundation(model, foundation.tokenizer, foundation.source)
    cache = StateCache(left, tuned.cache.config)
    return ScoreModel(tuned.config, left, tuned.adapter, cache, tuned.seed, exit_after=tuned.exit_after)


def texts_of(task: Task, domain: Domain, log: Log, recipe: Recipe) -> tuple[list[str], list[str]]:
    """(texts to learn from, texts of the items that are held out): each item in every wording, and every user."""
    wordings: dict[str, Any] = {}
    for event in log.events:
        if len(wordings) < MOST_WORDINGS:
            wordings.setdefault(domain.action(event), event)
    order = np.random.default_rng([recipe.seed, 0]).permutation(len(log.items))[:MOST_ITEMS]
    cut = int(len(order) * recipe.held_out)
    items = list(log.items.values())

    def of_items(numbers: NDArray[np.int64]) -> Iterator[str]:
        for number in numbers:
            item = items[number]
            yield from (segment.text for segment in task.candidate(item, domain))
            yield from (task.event_text(event, item, domain).text for event in wordings.values())

    users = (segment.text for user in log.users.values() for segment in task.profile(user, domain))
    learned = dict.fromkeys([*users, *of_items(order[cut:])])
    return list(learned), [text for text in dict.fromkeys(of_items(order[:cut])) if text not in learned]


def alone(row: Example) -> Example:
    """A row as a device asks it."""
    return replace(row, features=without_neighbours(row.features))


def _asked(rows: Sequence[Example], recipe: Recipe) -> list[Example]:
    """The rows as the small model is asked them."""
    return [alone(row) if recipe.alone else row for row in rows]


def _require(teacher: ScoreModel, folder: Path, recipe: Recipe) -> None:
    config = teacher.foundation.model.config
    both = config.num_heads * config.head_width, config.num_kv_heads * config.head_width
    if recipe.relation and any(width % recipe.num_heads for width in both):
        raise ConfigError(
            f"relations need as many heads on both sides, but the teacher's {both[0]} queries and {both[1]} keys can't "
            f"be parted into num_heads {recipe.num_heads}; give another number, or relation=0"
        )
    if config.narrow or teacher.adapter.config.first_layer != teacher.cache.config.depth:
        raise ConfigError("only a task can be shrunk that tunes the upper layers, of a foundation that was not shrunk")
    if teacher.method in ("upper", "full", "lora"):
        raise ConfigError(f"method {teacher.method!r} tunes weights that shrinking changes; tune by option-adapter")
    if not recipe.distils and teacher.cache.config.keep != 1:
        raise ConfigError("a student that learns by the task alone keeps one token of a text; tune with keep=1")
    if teacher.cache.config.depth in (0, config.num_layers):
        raise ConfigError(f"a split at layer {teacher.cache.config.depth} leaves nothing to shrink; give one between")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / RECIPE
    told = {"recipe": asdict(recipe), "model": teacher.foundation.model.id, "tuning": teacher.adapter.digest()}
    if file.exists() and json.loads(file.read_text()) != told:
        raise ConfigError(f"{folder} holds the work of another recipe or teacher; give another folder, or remove it")
    file.write_text(json.dumps(told, indent=1) + "\n")


# The student, and the upper layers beneath it


def _student(
    teacher: ScoreModel, texts: Sequence[str], recipe: Recipe, rows: Sequence[Example]
) -> tuple[Foundation, Sequence[int]]:
    """(a student above which the upper layers are pruned, the ids that the teacher has for its tokens).

    Its table is the teacher's, squeezed; the rest of it is random.
    """
    old = teacher.foundation
    tokenizer, kept = old.tokenizer, list(range(old.model.config.vocab_size))
    if recipe.vocab_size:
        tokenizer, kept = trim(old.tokenizer, texts, recipe.vocab_size)
    upper, neurons, heads = upper_parts(teacher, recipe, rows)
    reader = _reader(len(kept), recipe)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = Model(replace(upper, vocab_size=len(kept), reader=reader, tied=True))
        for block in model.reader.layers:
            assert isinstance(block, Block)
            for linear in (block.o_proj, block.down_proj):  # what the layers add up grows with their number
                linear.weight.div_((2 * recipe.num_layers) ** 0.5)
        nn.init.normal_(model.widen.weight, std=recipe.width**-0.5)
        nn.init.zeros_(model.widen.bias)
    table_VD = old.model.embed_tokens.weight.float()[torch.tensor(kept)]
    width = reader.embed_width or reader.width
    _, _, basis_DD = torch.linalg.svd(table_VD - table_VD.mean(0), full_matrices=False)
    squeezed = table_VD @ basis_DD[:width].T
    model.reader.embed_tokens.weight.zero_()[:, : squeezed.shape[1]] = squeezed / squeezed.std()
    copy_upper(old.model, model, teacher.cache.config.depth, neurons, heads)
    model.id = "student"
    return Foundation(model, tokenizer, "student"), kept


def _reader(vocab_size: int, recipe: Recipe) -> ModelConfig:
    """The student's shape: a Llama."""
    head_width = recipe.width // recipe.num_heads
    rope = RopeConfig(theta=1e4)
    return ModelConfig(
        family="llama",
        vocab_size=vocab_size,
        width=recipe.width,
        ffn_width=recipe.ffn_width,
        num_layers=recipe.num_layers,
        num_heads=recipe.num_heads,
        num_kv_heads=recipe.num_heads,
        head_width=head_width,
        activation="silu",
        norm_eps=1e-5,
        rope=rope,
        local_rope=rope,
        windows=(None,) * recipe.num_layers,
        attention_scale=head_width**-0.5,
        blocks=tuple(layer % recipe.num_blocks for layer in range(recipe.num_layers)),
        embed_width=recipe.embed_width,
    )


# The task on the student


def _tune(
    student: Foundation,
    teacher: ScoreModel,
    rows: Mapping[int, Sequence[Example]],
    recipe: Recipe,
    folder: Path,
    progress: Progress,
) -> ScoreModel:
    """The teacher's tuning on the student, and trained on."""
    config = replace(teacher.config, foundation="student", depth=0)
    small = ScoreModel.create(config, student, seed=recipe.seed)
    small.adapter.load_state_dict(teacher.adapter.state_dict())
    if not recipe.tuning_epochs:
        return small
    asked = {part: _asked(rows[part], recipe) for part in (TRAIN, VALID)}
    said = teacher.scores(rows[TRAIN]) if recipe.logits else np.zeros(sum(len(row.labels) for row in rows[TRAIN]))
    told = np.split(said, np.cumsum([len(row.labels) for row in rows[TRAIN]])[:-1])
    if recipe.alone:
        fit_numbers(small.adapter, asked[TRAIN], asked[VALID])
    model = student.model
    trained: list[nn.Module] = [small.adapter]
    touched = recipe.sparsity or recipe.upper_neurons < 1 or recipe.upper_heads < 1
    if touched:
        trained.append(model.layers.requires_grad_(True))
    if not recipe.distils:
        trained += [part.requires_grad_(True) for part in (model.reader, model.widen)]
    states = small.cache.fetch([]) if not recipe.distils else small.cache.fetch(texts_in([*rows[TRAIN], *rows[VALID]]))
    lengths = dict.fromkeys(texts_in(rows[TRAIN]), 1) if not recipe.distils else {}
    groups = pack(
        [size(row, states.length if recipe.distils else lengths.__getitem__) for row in asked[TRAIN]],
        TrainConfig.batch_tokens,
    )
    batches = [[(asked[TRAIN][number], told[number]) for number in group] for group in groups]

    def loss(batch: list[tuple[Example, NDArray[np.float64]]]) -> Tensor:
        of_batch = [row for row, _ in batch]
        table = states if recipe.distils else _read(small, list(dict.fromkeys(texts_in(of_batch))))
        padded = pad(of_batch, table.places)
        return _answer_loss(small, padded, table, [scores for _, scores in batch], recipe)

    def validate() -> float:
        if not recipe.distils:
            small.cache = StateCache(student, small.cache.config)
        return auc(np.concatenate([row.labels for row in asked[VALID]]), small.scores(asked[VALID]))

    training = TrainConfig(epochs=recipe.tuning_epochs, learning_rate=recipe.tuning_learning_rate, seed=recipe.seed)
    module = nn.ModuleList(trained)
    with pruning(nn.ModuleList(trained[1:]), recipe.sparsity) as schedule:
        fit(
            module,
            batches,
            loss,
            training,
            validate=None if recipe.sparsity else validate,  # an epoch before the pruning has ended is no candidate
            folder=folder,
            schedule=schedule,
            progress=lambda step, total, value: progress(f"tuning, loss {value:.3f}", step, total),
        )
    model.requires_grad_(False)
    small.cache = StateCache(student, small.cache.config)
    return small


def _read(tuned: ScoreModel, texts: Sequence[str]) -> States:
    """States of texts as a function of the weights, for training through them; the last token of each."""
    model = tuned.foundation.model
    trees = prefixes.grow(tuned.foundation.tokenizer.encode(texts))
    ids_BL, positions_BL, mask_BLL = padded(trees, model.device)
    hidden_BLD = model.embed(ids_BL, positions_BL, mask_BLL)
    ends = {number: (row, path[-1]) for row, tree in enumerate(trees) for number, path in tree.paths.items()}
    at_B, at_L = torch.tensor([ends[number] for number in range(len(texts))]).T
    return States(hidden_BLD[at_B, at_L], {text: (number, 1) for number, text in enumerate(texts)})


def _answer_loss(
    small: ScoreModel, batch: Batch, states: States, told: Sequence[NDArray[np.float64]], recipe: Recipe
) -> Tensor:
    """Cross-entropy with the answers, and with the teacher's probability of the last class."""
    valid_BC = torch.from_numpy(batch.valid_BC)
    told_BC = np.zeros(batch.valid_BC.shape, np.float32)
    for row, scores in zip(told_BC, told, strict=True):
        row[: len(scores)] = scores
    features_QF = torch.from_numpy(batch.features_BCF)[valid_BC]
    log_QK = small.adapter.score(small.read(batch, states)[valid_BC], features_QF).log_softmax(-1)
    told_Q = torch.from_numpy(told_BC)[valid_BC]
    labels_Q = torch.from_numpy(batch.labels_BC)[valid_BC]
    total = torch.zeros(())
    if recipe.labels:
        total = total + recipe.labels * F.nll_loss(log_QK, labels_Q)
    if recipe.logits:
        rest_Q = log_QK[:, :-1].logsumexp(-1)
        total = total - recipe.logits * (told_Q * log_QK[:, -1] + (1 - told_Q) * rest_Q).mean()
    return total


def _write(small: ScoreModel, folder: Path, card: dict[str, Any]) -> None:
    """Writes the foundation, the run on it, and at last the card."""
    model, tokenizer = small.foundation.model, folder / "tokenizer.json"
    small.foundation.tokenizer.save(tokenizer)
    if not (folder / FOUNDATION).exists():
        checkpoint.save(model, model.config.to_hf(), tokenizer, folder / FOUNDATION)
    tokenizer.unlink()
    written = checkpoint.load(str(folder / FOUNDATION), dtype="float32")
    run = ScoreModel.create(replace(small.config, foundation=str(folder / FOUNDATION)), written)
    run.adapter.load_state_dict(small.adapter.state_dict())
    run.save(folder / RUN)
    (folder / CARD).write_text(json.dumps(card, indent=1) + "\n")
