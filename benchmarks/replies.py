"""Replies of whoever recommends in dialogues: LoRA of the twelve upper layers on ReDial, beside the untuned foundation.

The dialogues are ReDial's 1 000 of validation, which are split anew, none of them in two parts; films in a reply count
as one token. M6-Rec was tuned on all of ReDial's 10 006 dialogues of training and judged by its own tokens, so its row
says how far a small model on a few hundred replies is, not which method is better. ``served`` is what comes of it where
it is deployed: the share of recommendations of films that are in its words.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks import parts, tunings
from benchmarks.conversation import films, needs
from benchmarks.setup import Claims, Setup, research
from m6rec.assets import DEFAULT_FOUNDATION
from m6rec.cli import bar
from m6rec.data.split import TEST, TRAIN, VALID, split_by_user
from m6rec.domains import domain as domains
from m6rec.evaluation.metrics import perplexity, words
from m6rec.evaluation.report import Row, Table
from m6rec.foundation.checkpoint import load
from m6rec.language.chat import OFFER
from m6rec.readouts import GenerateModel, TaskModelConfig
from m6rec.readouts.generate import COMPARED
from m6rec.tasks.task import named
from m6rec.training import TrainConfig
from m6rec.types import Draft
from tests import conversations

DRAFTS = {TRAIN: 480, VALID: 60, TEST: 240}
NUM_WRITTEN = 120
EPOCHS = 2
PUBLISHED = {"perplexity": 10.25, "BLEU-2": 0.122, "BLEU-3": 0.021, "Distinct-3": 0.46, "Distinct-4": 0.64}
TUNED, UNTUNED = "tuned", "untuned"


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    domain, foundation = domains.named("redial"), load(DEFAULT_FOUNDATION)
    split = split_by_user(domains.load(domain, research("redial/valid_1000_raw_linked.jsonl")))
    every = GenerateModel.examples(named("reply"), split, domain)
    few = 8 if setup.quick else 1
    config = TaskModelConfig(task="reply", domain=domain.name, foundation=DEFAULT_FOUNDATION)
    cache = GenerateModel.create(config, foundation).cache
    at = parts.cache("tasks", setup) / "replies"

    def drawn(part: int, seed: int) -> list[Draft]:
        return tunings.drawn(every, part, DRAFTS[part] // few, seed)

    def metrics(model: GenerateModel) -> dict[str, float]:
        asked = drawn(TEST, 0)
        nats, counts = model.nats(asked)
        asked = asked[: NUM_WRITTEN // few]
        written = [one.text.strip() for one in model.write(asked, COMPARED)]
        targets = [draft.target.strip() for draft in asked]
        found = {"nats a token": float(nats.sum() / counts.sum()), "perplexity": perplexity(nats, counts)}
        found |= {f"BLEU-{n}": words.bleu(written, targets, n) / 100 for n in (2, 3)}
        found |= {f"Distinct-{n}": words.distinct(written, n) for n in (3, 4)}
        return found | {f"Distinct-{n} of people": words.distinct(targets, n) for n in (3, 4)}

    def tuned(seed: int) -> dict[str, float]:
        model = GenerateModel.create(config, foundation, cache=cache, seed=seed)
        training = TrainConfig(epochs=1 if setup.quick else EPOCHS, warmup_steps=20, checkpoint_steps=20, seed=seed)
        with bar(f"reply-{seed}") as update:
            model.tune(drawn(TRAIN, seed), drawn(VALID, 0), training, folder=at / f"run-{seed}", progress=update)
        return metrics(model)

    def served() -> dict[str, Any]:
        recommender, _ = films({"reply": GenerateModel.load(at / f"run-{setup.seeds[0]}", foundation, cache)})
        said = [conversations.ask(recommender, need.turns[:1]) for need in needs()[:: 8 * few]]
        offers = [one.text for one in said if one.items]
        worded = [text for text in offers if OFFER not in text]
        return {"recommendations": len(offers), "worded by the model": len(worded) / len(offers), "texts": worded}

    rows = (
        Row.of(TUNED, [parts.kept(at / f"reply-{seed}.json", partial(tuned, seed)) for seed in setup.seeds]),
        Row.of(
            UNTUNED,
            [
                parts.kept(
                    at / "untuned.json",
                    lambda: metrics(GenerateModel.create(config, foundation, cache=cache).untuned()),
                )
            ],
        ),
    )
    note = (
        f"{DRAFTS[TRAIN] // few} replies of training, {DRAFTS[TEST] // few} of test; of these "
        f"{NUM_WRITTEN // few} were written, the likeliest token each time. M6-Rec, published: "
        f"{', '.join(f'{name} {value}' for name, value in PUBLISHED.items())}."
    )
    table = Table(title="Replies in dialogues, ReDial", metric="nats a token", rows=rows, ours=TUNED, note=note)
    claims: Claims = [
        (f"replies: {name}, M6-Rec as published", rows[0].mean(name), "<=" if name == "perplexity" else ">=", value)
        for name, value in PUBLISHED.items()
    ]
    gain = rows[0].mean("nats a token") - rows[1].mean("nats a token")
    claims.append(("replies: nats a token over the untuned foundation", gain, ">=", 0))
    told = parts.kept(at / "served.json", served)
    return {"seed": list(setup.seeds), "served": told, "tables": (table,)}, claims
