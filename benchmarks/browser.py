"""A device folder in a real browser, beside the same folder in Python: parity, loading, time, memory.

The folder has no lower half: its items come with the states of all that can be said of them, so a page needs one layer
of the served model and no more, and parity is that of what runs there. One thread; times are at full speed and with the
processor throttled to a quarter, as DevTools does it.

- parity: scores of real questions of the test part, one after another as they were asked, each user on a device of
  their own; ids of all titles and of fuzzed texts, by the served model's own tokenizer;
- time: one request of ``CANDIDATES`` items by a user of ``EVENTS`` events.
"""

from __future__ import annotations

import gzip
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.setup import Claims, Setup, rss_mib
from m6rec import assets
from m6rec.device import CARD, LOWER, TOKENIZER, UPPER, Device, digest
from m6rec.domains import prepared
from m6rec.edge.export import export, send
from m6rec.foundation.checkpoint import load as load_model
from m6rec.metrics import auc
from m6rec.text.log import TEST
from m6rec.text.past import Past
from m6rec.text.tokenizer import Tokenizer
from m6rec.tuned import Tuned, read_config
from m6rec.tuned import load as load_tuned
from m6rec.types import Event
from tests import browser, fuzz

NUM_USERS, NUM_ASKED = 25, 40
EVENTS, CANDIDATES = 20, 50
SLOWER = 4
TIMES = 40
TEXTS = 20_000
"""Fuzzed ones."""

_REPLAY = """async (events) => {
    const scores = [];
    for (const event of events) {
        scores.push((await device.rank([event.item]))[0].score);
        await device.observe(event);
    }
    return scores;
}"""
_TIMED = """async ([items, times]) => {
    const spent = [];
    for (let number = 0; number < times; number++) {
        const start = performance.now();
        await device.rank(items);
        spent.push(performance.now() - start);
    }
    return spent;
}"""


def measure(setup: Setup) -> tuple[dict[str, Any], Claims]:
    """See the module."""
    made = prepared.load(setup.data)
    config = read_config(setup.run)
    store = assets.home() / "states"
    sender = load_tuned(setup.run, load_model(config.foundation), store=store)
    tuned = load_tuned(setup.run, load_model(config.foundation, dtype="float32"), store=store)
    told, claims = of(tuned, sender, made, quick=setup.quick)
    texts = [*(item.title for item in made.split.log.items.values()), *fuzz.texts(TEXTS // (10 if setup.quick else 1))]
    told["tokenizer"] = {
        "titles": len(made.split.log.items),
        "texts": len(texts),
        "other ids": _other_ids(tuned, texts),
    }
    claims.append(("texts with other token ids than in Python", told["tokenizer"]["other ids"], "<=", 0))
    return told, claims


def of(tuned: Tuned, sender: Tuned, made: prepared.Prepared, *, quick: bool) -> tuple[dict[str, Any], Claims]:
    """What ``measure`` tells of one task.

    Args:
        tuned: The task on a foundation in float32, of which the graphs are made.
        sender: The same task on one of any type, which computes the states.
        made: The log.
        quick: Whether to ask a tenth.
    """
    told: dict[str, Any] = {"runtime_bytes": _sizes(browser.WEB / "dist" / "page")}
    claims: Claims = []
    log, items = made.split.log, list(made.split.log.items.values())
    tested = {*made.split.indices(TEST).tolist()}
    past = Past(log.items, made.domain.likes)
    past.observe_all(event for number, event in enumerate(log.events) if number not in tested)
    with TemporaryDirectory() as scratch, browser.chromium() as chromium:
        for dtype in ("float32", "int8"):
            folder, whole = Path(scratch, dtype), Path(scratch, f"{dtype}-items")
            export(tuned, folder, dtype=dtype, lower=False)
            shutil.copytree(folder, whole)
            send(sender, items, past, whole / "items.safetensors", behaviours=True)
            seal(whole)
            server = browser.Server(Path(scratch, f"{dtype}-blank"), phone=folder, whole=whole)
            try:
                parity = _parity(chromium, server.url, folder, sender, made, past, quick)
                spent = _timed(chromium, server.url, [item.id for item in items])
            finally:
                server.stop()
            sizes = {file.name: file.stat().st_size for file in whole.iterdir()}
            told[dtype] = {"bytes": sizes, "parity": parity, **spent}
            claims += [
                (f"{dtype}: largest difference of a score from the device in Python", parity["largest"], "<=", 1e-3),
                (f"{dtype}: requests after loading", parity["requests"], "<=", 0),
                (f"{dtype}: {CANDIDATES} × {EVENTS}, p50 ms, {SLOWER}× slower", spent["slower"]["p50_ms"], "<=", 20),
            ]
    return told, claims


def seal(folder: Path) -> None:
    """Writes the card anew, by the files that are there."""
    files = [file for file in sorted(folder.iterdir()) if file.name != CARD]
    card = json.loads((folder / CARD).read_text())
    card["files"] = {file.name: {"bytes": file.stat().st_size, "sha256": digest(file)} for file in files}
    (folder / CARD).write_text(json.dumps(card))


def _parity(
    chromium: Any, url: str, folder: Path, sender: Tuned, made: prepared.Prepared, past: Past, quick: bool
) -> dict[str, Any]:
    """Scores of the same questions here and there; counts are those before the test part, the user's own left in."""
    log, domain = made.split.log, made.domain
    tested = {*made.split.indices(TEST).tolist()}
    asked: dict[str, list[Event]] = {}
    for number, event in enumerate(log.events):
        if number in tested:
            asked.setdefault(event.user, []).append(event)
    users = [user for user, events in asked.items() if len(events) >= NUM_ASKED]
    users = [*np.random.default_rng(0).permutation(users)[: NUM_USERS // (10 if quick else 1)]]
    here, there, answers, requests = [], [], [], 0
    context = chromium.new_context()
    for user in map(str, users):
        history, events = list(past.history(user)), asked[user][:NUM_ASKED]
        parcel = folder.parent / "user.safetensors"
        items = [log.items[item] for item in dict.fromkeys(event.item for event in history + events)]
        send(sender, items, past, parcel, behaviours=True, user=log.users[user])
        device = Device.load(folder, user=log.users[user])
        device.receive(parcel)
        device.observe(history)
        phone = browser.Phone(context, url).load("/phone/", store=user, threads=1)
        phone.requests.clear()
        phone.receive(parcel)
        phone.observe(history)
        there += phone.page.evaluate(_REPLAY, browser.plain(events))
        for event in events:
            here.append(device.rank([event.item])[0].score)
            device.observe([event])
        answers += [int(domain.likes(event)) for event in events]
        requests += len(phone.requests)
        phone.page.close()
    context.close()
    change_Q = np.abs(np.array(here) - np.array(there))
    return {
        "questions": len(here),
        "users": len(users),
        "largest": float(change_Q.max()),
        "mean": float(change_Q.mean()),
        "auc": {"python": auc(np.array(answers), np.array(here)), "browser": auc(np.array(answers), np.array(there))},
        "requests": requests,
    }


def _timed(chromium: Any, url: str, items: Sequence[str]) -> dict[str, Any]:
    """Loading with all items, the first request, and later ones at both speeds."""
    rng = np.random.default_rng(0)
    met, candidates = np.split(rng.permutation(items)[: EVENTS + CANDIDATES], [EVENTS])
    events = [Event("me", str(item), 60 * n, float(rng.integers(1, 6))) for n, item in enumerate(met)]
    context = chromium.new_context()
    phone, start = browser.Phone(context, url), time.perf_counter()
    phone.load("/whole/", threads=1)
    first_visit_ms = 1_000 * (time.perf_counter() - start)
    phone.observe(events)
    phone.page.close()
    phone, start = browser.Phone(context, url), time.perf_counter()
    phone.load("/whole/", threads=1)
    told: dict[str, Any] = {"first_visit_ms": first_visit_ms, "later_visit_ms": 1_000 * (time.perf_counter() - start)}
    asked = [*map(str, candidates)]
    (told["first_rank_ms"],) = phone.page.evaluate(_TIMED, [asked, 1])
    for name, rate in (("full speed", 1), ("slower", SLOWER)):
        context.new_cdp_session(phone.page).send("Emulation.setCPUThrottlingRate", {"rate": rate})
        spent = phone.page.evaluate(_TIMED, [asked, TIMES])
        told[name] = {"p50_ms": float(np.median(spent)), "p90_ms": float(np.quantile(spent, 0.9)), "times": TIMES}
    processes = chromium.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    told["renderer_rss_mib"] = max(rss_mib(one["id"]) for one in processes if one["type"] == "renderer")
    context.close()
    return told


def _other_ids(tuned: Tuned, texts: Sequence[str]) -> int:
    """How many texts have other ids in the browser than in Python."""
    with TemporaryDirectory() as scratch, browser.chromium() as chromium:
        folder = Path(scratch, "phone")
        export(tuned, folder, lower=False)
        tuned.foundation.tokenizer.save(folder / TOKENIZER)
        shutil.copy(folder / UPPER, folder / LOWER)  # which no id needs
        seal(folder)
        server = browser.Server(Path(scratch, "blank"), phone=folder)
        try:
            found = browser.Phone(chromium.new_context(), server.url).load().encode(texts)
        finally:
            server.stop()
        return sum(ours != theirs for ours, theirs in zip(found, Tokenizer.open(folder).encode(texts), strict=True))


def _sizes(page: Path) -> dict[str, dict[str, int]]:
    """What a page needs beside a device folder."""
    names = ("m6rec.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
    browser.build()
    contents = {name: (page / name).read_bytes() for name in names}
    return {name: {"plain": len(content), "gzip": len(gzip.compress(content))} for name, content in contents.items()}
