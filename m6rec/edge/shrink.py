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

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from m6rec.domains.domain import Domain
from m6rec.errors import ConfigError
from m6rec.foundation import checkpoint
from m6rec.foundation.checkpoint import Foundation
from m6rec.foundation.model import Attention, Block, Dense, Layer, Model, ModelConfig, RopeConfig
from m6rec.foundation.states import StateCache, States
from m6rec.metrics import auc
from m6rec.tasks.task import Task
from m6rec.tasks.task import texts as texts_in
from m6rec.text import prefixes
from m6rec.text.batch import Batch, Row, pack, pad, size
from m6rec.text.log import TRAIN, VALID, Log
from m6rec.text.past import without_neighbours
from m6rec.text.prefixes import Tree
from m6rec.text.vocabulary import trim
from m6rec.train import TRAINING_TOKENS, TrainConfig, fit
from m6rec.tuned import Tuned, create

CARD, RECIPE = "card.json", "recipe.json"
FOUNDATION, RUN = "foundation", "run"
BATCH_TOKENS = 1024
"""Tokens of a step of distillation, as ``prefixes`` lays them."""
MOST_ITEMS, MOST_WORDINGS = 20_000, 12
"""Items that the student learns from, and ways to word what a user did with one."""
SAMPLE = 40
"""Rows by which neurons and heads are judged."""
PRUNED_BY = 0.7
"""The share of a training after which a pruning has reached its target."""
NEURONS = 32
"""Neurons are kept in multiples of this, the blocks of ``edge.export``."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a small model is made by. Every technique is off at some value of its switch.

    Attributes:
        width: Of the student.
        ffn_width: Of its feed-forward halves.
        num_heads: Of its attention.
        num_layers: How often its blocks are run.
        num_blocks: Sets of weights that these share in turn; ``num_layers`` shares none.
        embed_width: Of its factorised table of tokens; 0 for a table as wide as itself.
        vocab_size: Tokens that are kept, or as many as the domain needs if these are more; 0 keeps all.
        hidden: Weight of the distance from the teacher's states.
        relation: Weight of the distance from the teacher's attention relations. With this and ``hidden`` at 0 nothing
            is distilled from the lower half, and the student learns by the task alone.
        logits: Weight of the cross-entropy with the teacher's scores.
        labels: … with the answers themselves.
        exits: Whether every layer of the student is trained to be the last.
        sparsity: Share of the weights of each matrix, of student and upper layers, that pruning sets to zero.
        upper_neurons: Share of the feed-forward neurons that upper layers keep.
        upper_heads: Share of the attention heads that they keep, in whole groups.
        alone: Whether the task is tuned to questions as a device asks them, without neighbours.
        held_out: Share of the items that the student learns nothing of, by which it is judged.
        epochs: Passes over the texts.
        learning_rate: Of the student.
        tuning_epochs: Passes over the questions, with the tuning, and with upper layers that were pruned; 0 leaves the
            teacher's tuning as it is.
        tuning_learning_rate: Of these.
        seed: Fixes all that is random.
    """

    width: int = 192
    ffn_width: int = 512
    num_heads: int = 3
    num_layers: int = 3
    num_blocks: int = 1
    embed_width: int = 64
    vocab_size: int = 4096
    hidden: float = 1.0
    relation: float = 0.1
    logits: float = 1.0
    labels: float = 1.0
    exits: bool = True
    sparsity: float = 0.0
    upper_neurons: float = 1.0
    upper_heads: float = 1.0
    alone: bool = False
    held_out: float = 0.1
    epochs: int = 6
    learning_rate: float = 2e-3
    tuning_epochs: int = 1
    tuning_learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "ffn_width", "num_heads", "num_layers", "num_blocks", "epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("embed_width", "vocab_size", "hidden", "relation", "logits", "labels", "tuning_epochs"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 0")
        if self.width % (2 * self.num_heads) or self.num_blocks > self.num_layers:
            raise ConfigError(
                f"width {self.width} must be a multiple of twice num_heads {self.num_heads}, "
                f"and num_blocks {self.num_blocks} at most num_layers {self.num_layers}"
            )
        if not 0 <= self.sparsity < 1 or not 0 <= self.held_out < 1:
            raise ConfigError(f"sparsity {self.sparsity} and held_out {self.held_out} must be in [0, 1)")
        if not 0 < self.upper_neurons <= 1 or not 0 < self.upper_heads <= 1:
            raise ConfigError(
                f"upper_neurons {self.upper_neurons} and upper_heads {self.upper_heads} must be in (0, 1]"
            )
        if not self.logits and not self.labels and self.tuning_epochs:
            raise ConfigError("nothing to tune by: give logits or labels, or tuning_epochs=0")
        if not self.distils and not self.tuning_epochs:
            raise ConfigError("nothing to train the student by: give hidden or relation, or tuning_epochs")

    @property
    def distils(self) -> bool:
        """Whether the student learns from the teacher's lower half."""
        return bool(self.hidden or self.relation)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Recipe:
        """A recipe from names and values. Raises ConfigError for a name that is none, or a value of another type."""
        kinds = {field.name: type(field.default) for field in fields(cls)}
        for name, value in values.items():
            if name not in kinds:
                raise ConfigError(f"a recipe has no {name!r}; it has {', '.join(kinds)}")
            if not isinstance(value, kinds[name]) and not (kinds[name] is float and isinstance(value, int)):
                raise ConfigError(f"{name} is {value!r}; give a value like {getattr(cls, name)!r}")
        return cls(**values)


def shrink(
    teacher: Tuned,
    log: Log,
    rows: Mapping[int, Sequence[Row]],
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
        said = _lessons(teacher, learned, lessons, progress)
        _distil(student, kept, teacher, said, recipe, folder / "distilling", progress)
    small = _tune(student, teacher, rows, recipe, folder / "tuning", progress)
    card = _card(small, teacher, learned, held_out, rows[VALID], recipe)
    _write(small, folder, card)
    return card


def at_exit(tuned: Tuned, num_layers: int) -> Tuned:
    """A small model that leaves its student after so many of its layers; the weights are shared.

    Raises:
        ConfigError: The foundation was not shrunk, or its student has fewer layers.
    """
    foundation = tuned.foundation
    reader = foundation.model.config.reader
    if reader is None or not 0 < num_layers <= reader.num_layers:
        has = "is none that was shrunk" if reader is None else f"has a student of {reader.num_layers} layers"
        raise ConfigError(f"no exit after {num_layers} layers: the foundation {has}")
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
    return Tuned(tuned.config, left, tuned.tuning, StateCache(left, tuned.cache.config))


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
            yield from (task.behaviour(event, item, domain).text for event in wordings.values())

    users = (segment.text for user in log.users.values() for segment in task.facts(user, domain))
    learned = dict.fromkeys([*users, *of_items(order[cut:])])
    return list(learned), [text for text in dict.fromkeys(of_items(order[:cut])) if text not in learned]


def alone(row: Row) -> Row:
    """A row as a device asks it."""
    return replace(row, signals=without_neighbours(row.signals))


def _require(teacher: Tuned, folder: Path, recipe: Recipe) -> None:
    if teacher.task.readout != "score":
        raise ConfigError(f"task {teacher.task.name!r} is none of ranking; a device ranks, so shrink one that is")
    config = teacher.foundation.model.config
    both = config.num_heads * config.head_width, config.num_kv_heads * config.head_width
    if recipe.relation and any(width % recipe.num_heads for width in both):
        raise ConfigError(
            f"relations need as many heads on both sides, but the teacher's {both[0]} queries and {both[1]} keys can't "
            f"be parted into num_heads {recipe.num_heads}; give another number, or relation=0"
        )
    if config.narrow or teacher.tuning.config.first_layer != teacher.cache.config.depth:
        raise ConfigError("only a task can be shrunk that tunes the upper layers, of a foundation that was not shrunk")
    if teacher.config.method in ("upper", "full", "lora"):
        raise ConfigError(
            f"method {teacher.config.method!r} tunes weights that shrinking changes; tune by option-adapter"
        )
    if not recipe.distils and teacher.cache.config.keep != 1:
        raise ConfigError("a student that learns by the task alone keeps one token of a text; tune with keep=1")
    if teacher.cache.config.depth in (0, config.num_layers):
        raise ConfigError(f"a split at layer {teacher.cache.config.depth} leaves nothing to shrink; give one between")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / RECIPE
    told = {"recipe": asdict(recipe), "model": teacher.foundation.model.id, "tuning": teacher.tuning.digest()}
    if file.exists() and json.loads(file.read_text()) != told:
        raise ConfigError(f"{folder} holds the work of another recipe or teacher; give another folder, or remove it")
    file.write_text(json.dumps(told, indent=1) + "\n")


# The student, and the upper layers beneath it


def _student(
    teacher: Tuned, texts: Sequence[str], recipe: Recipe, rows: Sequence[Row]
) -> tuple[Foundation, Sequence[int]]:
    """(a student above which the upper layers are pruned, the ids that the teacher has for its tokens).

    Its table is the teacher's, squeezed; the rest of it is random.
    """
    old = teacher.foundation
    tokenizer, kept = old.tokenizer, list(range(old.model.config.vocab_size))
    if recipe.vocab_size:
        tokenizer, kept = trim(old.tokenizer, texts, recipe.vocab_size)
    upper, neurons, heads = _pruned(teacher, recipe, rows)
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
    _copy_upper(old.model, model, teacher.cache.config.depth, neurons, heads)
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


Kept = list[Tensor]
"""Of each upper layer what is kept, in order."""


def _pruned(teacher: Tuned, recipe: Recipe, rows: Sequence[Row]) -> tuple[ModelConfig, Kept, Kept]:
    """(the upper layers' configuration, their neurons, their groups of heads): those that add most.

    A part adds its mean magnitude times the length of the weights that it goes out by.
    """
    model, depth = teacher.foundation.model, teacher.cache.config.depth
    c = model.config
    groups = max(1, round(recipe.upper_heads * c.num_kv_heads))
    neurons = min(c.ffn_width, max(NEURONS, round(recipe.upper_neurons * c.ffn_width / NEURONS) * NEURONS))
    grouped = c.num_heads // c.num_kv_heads
    config = replace(
        c,
        num_layers=c.num_layers - depth,
        windows=c.windows[depth:],
        ffn_width=neurons,
        num_heads=groups * grouped,
        num_kv_heads=groups,
        removed_heads=c.num_heads - groups * grouped,
    )
    upper = [block for block in model.layers[depth:] if isinstance(block, Block)]
    everything = [torch.arange(c.ffn_width)] * len(upper), [torch.arange(c.num_kv_heads)] * len(upper)
    if (neurons, groups) == (c.ffn_width, c.num_kv_heads):
        return config, *everything
    sums: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sums[module] = sums.get(module, torch.zeros(())) + inputs[0].detach().float().abs().flatten(0, -2).sum(0)

    linears = [linear for block in upper for linear in (block.down_proj, block.o_proj)]
    hooks = [linear.register_forward_pre_hook(note) for linear in linears]
    try:
        teacher.scores(rows[:SAMPLE])
    finally:
        for hook in hooks:
            hook.remove()
    added = {linear: sums[linear].cpu() * linear.weight.float().norm(dim=0).cpu() for linear in linears}
    of_groups = [added[block.o_proj].view(c.num_kv_heads, -1).sum(1) for block in upper]
    return (
        config,
        [added[block.down_proj].topk(neurons).indices.sort().values for block in upper],
        [of_group.topk(groups).indices.sort().values for of_group in of_groups],
    )


def _copy_upper(old: Model, new: Model, depth: int, neurons: Kept, groups: Kept) -> None:
    """Copies what is kept of the upper layers, in fp32."""
    c = old.config
    for layer, (kept, of_groups) in enumerate(zip(neurons, groups, strict=True)):

        def within(count: int, of_groups: Tensor = of_groups) -> Tensor:
            """Rows of the groups that are kept, where each has ``count``."""
            return (of_groups[:, None] * count + torch.arange(count)).flatten()

        heads, keys = within(c.num_heads // c.num_kv_heads * c.head_width), within(c.head_width)
        rows = {"q_proj": heads, "k_proj": keys, "v_proj": keys, "gate_proj": kept, "up_proj": kept}
        columns = {"o_proj": heads, "down_proj": kept}
        state = {}
        for name, weight in old.layers[depth + layer].state_dict().items():
            part = name.split(".")[0]
            weight = weight.float().cpu()
            weight = weight[rows[part]] if part in rows else weight
            state[name] = weight[:, columns[part]] if part in columns and weight.ndim == 2 else weight
        new.layers[layer].load_state_dict(state)
    new.norm.load_state_dict({name: weight.float() for name, weight in old.norm.state_dict().items()})


# What the teacher says


@dataclass(frozen=True, eq=False)
class Lessons:
    """What the teacher's lower half makes of every token of some texts, in the order of the trees' tokens.

    Attributes:
        trees: The texts.
        starts: Where each tree's tokens begin.
        hidden_TD: The states.
        relations: Queries, keys and values of the last lower layer.
    """

    trees: list[Tree]
    starts: list[int]
    hidden_TD: Tensor
    relations: tuple[Tensor, Tensor, Tensor]


class _Listening:
    """A ``Delta`` that changes nothing and keeps the queries, keys and values of one layer."""

    def __init__(self, layer: int) -> None:
        self._layer = layer
        self.heard: dict[str, Tensor] = {}

    def block(self, layer: int, frozen: Block) -> Layer:
        """See ``Delta``."""
        return frozen

    def linear(self, layer: int, name: str, x_BLD: Tensor, y_BLD: Tensor) -> Tensor:
        """See ``Delta``."""
        if layer == self._layer and name in ("q", "k", "v"):
            self.heard[name] = y_BLD
        return y_BLD

    def ffn(self, layer: int, x_BLD: Tensor, y_BLD: Tensor) -> Tensor:
        """See ``Delta``."""
        return y_BLD


def _lessons(teacher: Tuned, texts: Sequence[str], store: Path | None, progress: Progress) -> Lessons:
    """Runs the teacher over the texts, or reads what was kept of it."""
    model, depth = teacher.foundation.model, teacher.cache.config.depth
    trees = prefixes.grow(teacher.foundation.tokenizer.encode(texts))
    starts = np.cumsum([0, *(len(tree.ids) for tree in trees)]).tolist()
    scope = json.dumps([model.id, str(model.dtype), depth, list(texts)])
    file = store / f"{hashlib.blake2b(scope.encode(), digest_size=8).hexdigest()}.safetensors" if store else None
    names = ("hidden", "q", "k", "v")
    said: dict[str, Tensor] | None = None
    if file is not None and file.is_file():
        try:
            said = load_file(file)
        except SafetensorError:
            said = None  # damaged: said anew
    if said is None:
        parts: dict[str, list[Tensor]] = {name: [] for name in names}
        order = sorted(range(len(trees)), key=lambda number: -len(trees[number].ids))
        for batch in _groups(order, trees, 2 * BATCH_TOKENS):
            ids_BL, positions_BL, mask_BLL = _padded([trees[number] for number in batch], model.device)
            listening = _Listening(depth - 1)
            with torch.no_grad():
                hidden = model.lower(ids_BL, depth, positions_BL=positions_BL, mask_BLL=mask_BLL, delta=listening)
            for name, values in {"hidden": hidden, **listening.heard}.items():
                parts[name] += [row[: len(trees[n].ids)].cpu() for row, n in zip(values, batch, strict=True)]
            progress("the teacher reads", len(parts["hidden"]), len(trees))
        place = np.argsort(order)
        said = {name: torch.cat([parts[name][n] for n in place]) for name in names}
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(".partial")
            save_file(said, partial)
            partial.replace(file)
    return Lessons(trees, starts, said["hidden"], (said["q"], said["k"], said["v"]))


def _groups(order: Sequence[int], trees: Sequence[Tree], most: int) -> Iterator[list[int]]:
    """The trees in this order, in batches that have no more than ``most`` tokens with padding."""
    group: list[int] = []
    for number in order:
        longest = max(len(trees[n].ids) for n in [*group, number])
        if group and longest * (len(group) + 1) > most:
            yield group
            group = []
        group = [*group, number]
    if group:
        yield group


def _padded(trees: Sequence[Tree], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    ids_BL, positions_BL, mask_BLL = (torch.from_numpy(array).to(device) for array in prefixes.pad(trees))
    return ids_BL, positions_BL, mask_BLL


# The student learns to read


def _distil(
    student: Foundation,
    kept: Sequence[int],
    teacher: Tuned,
    said: Lessons,
    recipe: Recipe,
    folder: Path,
    progress: Progress,
) -> None:
    """Trains the student on what the teacher said; afterwards its states are in the teacher's units.

    ``kept`` are the ids that the teacher has for the student's tokens.
    """
    model, keep = student.model, teacher.cache.config.keep
    reader = model.config.reader
    assert reader is not None
    new_id = torch.zeros(teacher.foundation.model.config.vocab_size, dtype=torch.long)
    new_id[torch.tensor(kept)] = torch.arange(len(kept))
    kept_T = torch.tensor(
        sorted(
            {start + place for start, tree in zip(said.starts, said.trees, strict=False) for place in _kept(tree, keep)}
        )
    )
    states = said.hidden_TD[kept_T].float()
    mean_D, spread_D = states.mean(0), states.std(0).clamp_min(1e-3)
    order = sorted(range(len(said.trees)), key=lambda number: len(said.trees[number].ids))
    batches = list(_groups(order, said.trees, BATCH_TOKENS))

    def loss(batch: list[int]) -> Tensor:
        trees = [said.trees[number] for number in batch]
        ids_BL, positions_BL, mask_BLL = _padded(trees, model.device)
        listening = _Listening(reader.num_layers - 1)
        hidden_BLD = model.reader.embed(new_id[ids_BL])
        attention = Dense(positions_BL, mask_BLL)
        at_B, at_L, at_T = _places(trees, [said.starts[number] for number in batch], keep)
        target_TD = (said.hidden_TD[at_T].float() - mean_D) / spread_D
        total, weights = torch.zeros(()), 0
        for layer in range(reader.num_layers):
            hidden_BLD = _step(model.reader, layer, hidden_BLD, positions_BL, attention, listening)
            if recipe.hidden and (recipe.exits or layer == reader.num_layers - 1):
                states_TD = model.widen(model.reader.finish(hidden_BLD)[at_B, at_L])
                total = total + (layer + 1) * _distance(states_TD, target_TD)
                weights += layer + 1
        total = recipe.hidden * total / max(1, weights)
        if recipe.relation:
            lengths = [len(tree.ids) for tree in trees]
            theirs = [
                _rows(of, [said.starts[number] for number in batch], lengths, ids_BL.shape[1]) for of in said.relations
            ]
            ours = [listening.heard[name] for name in ("q", "k", "v")]
            total = total + recipe.relation * _relations(ours, theirs, mask_BLL, lengths, recipe.num_heads)
        return total

    parts = nn.ModuleList([model.reader, model.widen]).requires_grad_(True)
    config = TrainConfig(epochs=recipe.epochs, learning_rate=recipe.learning_rate, average=0.995, seed=recipe.seed)
    with _pruning(parts, recipe.sparsity) as schedule:
        fit(
            parts,
            batches,
            loss,
            config,
            folder=folder,
            schedule=schedule,
            progress=lambda step, total, value: progress(f"distilling, loss {value:.3f}", step, total),
        )
    parts.requires_grad_(False)
    model.widen.weight.mul_(spread_D[:, None])
    model.widen.bias.mul_(spread_D).add_(mean_D)


def _distance(states_TD: Tensor, target_TD: Tensor) -> Tensor:
    """Mean squared error and cosine of normed states."""
    cosine_T = F.cosine_similarity(states_TD, target_TD, dim=-1)
    return F.mse_loss(states_TD, target_TD) + (1 - cosine_T).mean()


def _relations(
    ours: Sequence[Tensor], theirs: Sequence[Tensor], mask_BLL: Tensor, lengths: Sequence[int], num_heads: int
) -> Tensor:
    """Mean divergence of the student's attention relations from the teacher's (MiniLMv2, equation 6).

    A relation is the softmax of the products of queries with queries, keys with keys, values with values, in as many
    heads on both sides, over the tokens that a token sees.
    """
    valid_BL = torch.arange(mask_BLL.shape[1], device=mask_BLL.device) < torch.tensor(lengths)[:, None]
    total = torch.zeros(())
    for own, other in zip(ours, theirs, strict=True):
        logs = []
        for side_BLD in (other.float(), own):
            heads_BALK = side_BLD.view(*side_BLD.shape[:2], num_heads, -1).transpose(1, 2)
            product_BALL = heads_BALK @ heads_BALK.transpose(-1, -2) / heads_BALK.shape[-1] ** 0.5
            logs.append(product_BALL.masked_fill(~mask_BLL[:, None], -math.inf).log_softmax(-1))
        both = [log.masked_fill(~mask_BLL[:, None], 0.0) for log in logs]
        divergence_BAL = (both[0].exp().masked_fill(~mask_BLL[:, None], 0.0) * (both[0] - both[1])).sum(-1)
        total = total + divergence_BAL.transpose(1, 2)[valid_BL].mean()
    return total


def _step(
    reader: Model, layer: int, hidden_BLD: Tensor, positions_BL: Tensor, attention: Attention, delta: _Listening
) -> Tensor:
    return reader.run(hidden_BLD, positions_BL, attention, first=layer, last=layer + 1, delta=delta)


def _kept(tree: Tree, keep: int) -> Iterable[int]:
    """Places of the tokens that texts keep."""
    return {place for path in tree.paths.values() for place in (path[-keep:] if keep else path)}


def _places(trees: Sequence[Tree], starts: Sequence[int], keep: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of every token that a text keeps: (its row, its place there, its place among the lessons)."""
    found = [
        (row, place, start + place)
        for row, (tree, start) in enumerate(zip(trees, starts, strict=True))
        for place in sorted(_kept(tree, keep))
    ]
    at_B, at_L, at_T = torch.tensor(found).T
    return at_B, at_L, at_T


def _rows(of_TD: Tensor, starts: Sequence[int], lengths: Sequence[int], longest: int) -> Tensor:
    """Tokens of the lessons as rows, padded at the right."""
    rows = [of_TD[start : start + length] for start, length in zip(starts, lengths, strict=True)]
    return torch.stack([F.pad(row, (0, 0, 0, longest - len(row))) for row in rows])


# Weights that pruning sets to zero


class _Sparse(nn.Module):
    """Shows a weight without its smallest numbers; these go on learning and may come back while more are taken out."""

    def __init__(self, level: list[float]) -> None:
        super().__init__()
        self._level = level

    def forward(self, weight: Tensor) -> Tensor:
        """The weight as it is used."""
        count = int(self._level[0] * weight.numel())
        if not count:
            return weight
        threshold = weight.detach().abs().flatten().kthvalue(count).values
        return weight * (weight.detach().abs() > threshold)


@contextmanager
def _pruning(module: nn.Module, sparsity: float) -> Iterator[Callable[[float], None]]:
    """A block in which the matrices of linear maps lose weights as training goes on, and after which these are zero.

    Yields the schedule for ``train.fit``: s (1 - (1 - t)³) of the weights at time t (Zhu and Gupta, 2017, equation 1).
    """
    level = [0.0]
    linears = [linear for linear in module.modules() if isinstance(linear, nn.Linear)] if sparsity else []
    for linear in linears:
        parametrize.register_parametrization(linear, "weight", _Sparse(level))

    def schedule(done: float) -> None:
        level[0] = sparsity * (1 - (1 - min(1.0, done / PRUNED_BY)) ** 3)

    yield schedule
    for linear in linears:
        parametrize.remove_parametrizations(linear, "weight")


# The task on the student


def _tune(
    student: Foundation,
    teacher: Tuned,
    rows: Mapping[int, Sequence[Row]],
    recipe: Recipe,
    folder: Path,
    progress: Progress,
) -> Tuned:
    """The teacher's tuning on the student, and trained on."""
    config = replace(teacher.config, foundation="student", depth=0)
    small = create(config, student, seed=recipe.seed)
    small.tuning.load_state_dict(teacher.tuning.state_dict())
    if not recipe.tuning_epochs:
        return small
    asked = {part: [alone(row) if recipe.alone else row for row in rows[part]] for part in (TRAIN, VALID)}
    said = teacher.scores(rows[TRAIN]) if recipe.logits else np.zeros(sum(len(row.answers) for row in rows[TRAIN]))
    told = np.split(said, np.cumsum([len(row.answers) for row in rows[TRAIN]])[:-1])
    if recipe.alone and small.tuning.signals is not None:
        small.tuning.signals.fit(torch.from_numpy(np.concatenate([row.signals for row in asked[TRAIN]])))
    model = student.model
    trained: list[nn.Module] = [small.tuning]
    touched = recipe.sparsity or recipe.upper_neurons < 1 or recipe.upper_heads < 1
    if touched:
        trained.append(model.layers.requires_grad_(True))
    if not recipe.distils:
        trained += [part.requires_grad_(True) for part in (model.reader, model.widen)]
    states = small.cache.fetch([]) if not recipe.distils else small.cache.fetch(texts_in([*rows[TRAIN], *rows[VALID]]))
    lengths = dict.fromkeys(texts_in(rows[TRAIN]), 1) if not recipe.distils else {}
    groups = pack(
        [size(row, states.length if recipe.distils else lengths.__getitem__) for row in asked[TRAIN]], TRAINING_TOKENS
    )
    batches = [[(asked[TRAIN][number], told[number]) for number in group] for group in groups]

    def loss(batch: list[tuple[Row, NDArray[np.float64]]]) -> Tensor:
        of_batch = [row for row, _ in batch]
        table = states if recipe.distils else _read(small, list(dict.fromkeys(texts_in(of_batch))))
        padded = pad(of_batch, table.places)
        return _answer_loss(small, padded, table, [scores for _, scores in batch], recipe)

    def judge() -> float:
        if not recipe.distils:
            small.cache = StateCache(student, small.cache.config)
        return auc(np.concatenate([row.answers for row in asked[VALID]]), small.scores(asked[VALID]))

    training = TrainConfig(epochs=recipe.tuning_epochs, learning_rate=recipe.tuning_learning_rate, seed=recipe.seed)
    module = nn.ModuleList(trained)
    with _pruning(nn.ModuleList(trained[1:]), recipe.sparsity) as schedule:
        fit(
            module,
            batches,
            loss,
            training,
            judge=None if recipe.sparsity else judge,  # an epoch before the pruning has ended is no candidate
            folder=folder,
            schedule=schedule,
            progress=lambda step, total, value: progress(f"tuning, loss {value:.3f}", step, total),
        )
    model.requires_grad_(False)
    small.cache = StateCache(student, small.cache.config)
    return small


def _read(tuned: Tuned, texts: Sequence[str]) -> States:
    """States of texts as a function of the weights, for training through them; the last token of each."""
    model = tuned.foundation.model
    trees = prefixes.grow(tuned.foundation.tokenizer.encode(texts))
    ids_BL, positions_BL, mask_BLL = _padded(trees, model.device)
    hidden_BLD = model.embed(ids_BL, positions_BL, mask_BLL)
    ends = {number: (row, path[-1]) for row, tree in enumerate(trees) for number, path in tree.paths.items()}
    at_B, at_L = torch.tensor([ends[number] for number in range(len(texts))]).T
    return States(hidden_BLD[at_B, at_L], {text: (number, 1) for number, text in enumerate(texts)})


def _answer_loss(
    small: Tuned, batch: Batch, states: States, told: Sequence[NDArray[np.float64]], recipe: Recipe
) -> Tensor:
    """Cross-entropy with the answers, and with the teacher's probability of the last class."""
    valid_BC = torch.from_numpy(batch.valid_BC)
    told_BC = np.zeros(batch.valid_BC.shape, np.float32)
    for row, scores in zip(told_BC, told, strict=True):
        row[: len(scores)] = scores
    log_QK = small.tuning.score(small.read(batch, states)[valid_BC]).log_softmax(-1)
    told_Q = torch.from_numpy(told_BC)[valid_BC]
    answers_Q = torch.from_numpy(batch.answers_BC)[valid_BC]
    total = torch.zeros(())
    if recipe.labels:
        total = total + recipe.labels * F.nll_loss(log_QK, answers_Q)
    if recipe.logits:
        rest_Q = log_QK[:, :-1].logsumexp(-1)
        total = total - recipe.logits * (told_Q * log_QK[:, -1] + (1 - told_Q) * rest_Q).mean()
    return total


# What is written down


def _card(
    small: Tuned,
    teacher: Tuned,
    learned: Sequence[str],
    held_out: Sequence[str],
    validation: Sequence[Row],
    recipe: Recipe,
) -> dict[str, Any]:
    """Parameters, bytes, operations and quality."""
    model, tuning = small.foundation.model, small.tuning
    reader = model.config.reader
    assert reader is not None
    lengths = [len(row) for row in small.foundation.tokenizer.encode(learned)]
    block = sum(p.numel() for p in model.reader.layers[0].parameters())
    widening = model.widen.weight.numel() + reader.embed_width * reader.width
    counts = {
        "student": sum(p.numel() for p in model.reader.parameters()) + sum(p.numel() for p in model.widen.parameters()),
        "upper layers": sum(p.numel() for p in [*model.layers.parameters(), *model.norm.parameters()]),
        "tuning": sum(p.numel() for p in tuning.parameters()),
    }
    asked = [alone(row) if recipe.alone else row for row in validation]
    answers = np.concatenate([row.answers for row in validation])
    return {
        "recipe": asdict(recipe),
        "task": small.config.task,
        "domain": small.config.domain,
        "teacher": {"foundation": teacher.config.foundation, "parameters": teacher.foundation.model.num_parameters()},
        "parameters": {**counts, "all": sum(counts.values())},
        "parameters that are not zero": sum(int((p != 0).sum()) for p in [*model.parameters(), *tuning.parameters()]),
        "tokens": small.foundation.tokenizer.vocab_size,
        "bytes": 4 * sum(counts.values()),
        "operations": {
            "to read a text, by layers": [
                round(2 * float(np.mean(lengths)) * (block * (1 + layer) + widening))
                for layer in range(reader.num_layers)
            ],
            "of an upper token": 2 * (counts["upper layers"] + sum(p.numel() for p in tuning.change.parameters())),
        },
        "quality": {
            "texts learned": fidelity(small, teacher, learned),
            "texts of items held out": fidelity(small, teacher, held_out) if held_out else {},
            "validation AUC": auc(answers, small.scores(asked)),
            "validation AUC of the teacher": auc(answers, teacher.scores(asked)),
        },
    }


def fidelity(small: Tuned, teacher: Tuned, texts: Sequence[str]) -> dict[str, float]:
    """How near a small model's states are to the teacher's: cosine around the teacher's mean, and relative error.

    Both are means over texts; the error is squared, and 1 for a student that always says the teacher's mean.
    """
    theirs_TD = teacher.cache.fetch(texts).tokens_TD.float().cpu()
    ours_TD = small.cache.fetch(texts).tokens_TD.float()
    mean_D = theirs_TD.mean(0)
    spread_D = theirs_TD.std(0).clamp_min(1e-3)
    theirs_TD, ours_TD = ((side_TD - mean_D) / spread_D for side_TD in (theirs_TD, ours_TD))
    return {
        "texts": len(texts),
        "cosine": float(F.cosine_similarity(ours_TD, theirs_TD, dim=-1).mean()),
        "error": float((ours_TD - theirs_TD).square().mean() / theirs_TD.square().mean()),
    }


def _write(small: Tuned, folder: Path, card: dict[str, Any]) -> None:
    """Writes the foundation, the run on it, and at last the card."""
    model, tokenizer = small.foundation.model, folder / "tokenizer.json"
    small.foundation.tokenizer.save(tokenizer)
    if not (folder / FOUNDATION).exists():
        checkpoint.save(model, model.config.to_hf(), tokenizer, folder / FOUNDATION)
    tokenizer.unlink()
    written = checkpoint.load(str(folder / FOUNDATION), dtype="float32")
    run = create(replace(small.config, foundation=str(folder / FOUNDATION)), written)
    run.tuning.load_state_dict(small.tuning.state_dict())
    run.save(folder / RUN)
    (folder / CARD).write_text(json.dumps(card, indent=1) + "\n")
