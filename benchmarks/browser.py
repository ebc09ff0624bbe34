"""A device folder in a real browser, beside the same folder in Python: parity, loading, time, memory, faults.

Two kinds of folder: of the served model, without its lower half, whose items come with the states of all that can be
said of them; and of a small model, which reads by itself. One thread; times are at full speed and with the processor
throttled to a quarter, as DevTools does it.

- parity: scores of real questions of the test part, one after another as they were asked, each user on a device of
  their own; ids of all titles and of fuzzed texts, by the folder's own tokenizer;
- time: one request of ``CANDIDATES`` items by a user of ``EVENTS`` events;
- offline: the same request once the network is gone, of the folder opened anew.
"""

from __future__ import annotations

import gzip
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.setup import Claims, rss_mib
from m6rec.cli import bar
from m6rec.data.split import TEST
from m6rec.device import ITEMS, MANIFEST, Device, file_sha256
from m6rec.domains import prepared
from m6rec.edge.export import export, send
from m6rec.evaluation.metrics import auc
from m6rec.evaluation.report import Row, Table
from m6rec.features.interactions import InteractionStore
from m6rec.readouts import ScoreModel
from m6rec.text.tokenizer import Tokenizer
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
        await device.ingest(event);
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


@dataclass(frozen=True, eq=False)
class Folder:
    """What is measured.

    Attributes:
        name: For the table.
        tuned: The task on a foundation in float32, of which the graphs are made.
        sender: The same task on one of any type, which computes the states that are sent.
        dtype: Of the folder.
        lower: Whether the folder reads by itself.
        target_ms: Of a request with the processor throttled; 0 for none.
    """

    name: str
    tuned: ScoreModel
    sender: ScoreModel
    dtype: str
    lower: bool
    target_ms: float = 0.0


def of(folders: Sequence[Folder], made: prepared.Prepared, *, quick: bool) -> tuple[dict[str, Any], Claims]:
    """Measures each folder; ``quick`` asks a tenth."""
    told: dict[str, Any] = {"runtime_bytes": _sizes(browser.WEB / "dist" / "page")}
    claims: Claims = []
    rows = []
    for folder in folders:
        with bar(folder.name) as update, TemporaryDirectory() as scratch, browser.chromium() as chromium:
            found = _measured(folder, made, Path(scratch), chromium, quick, update)
        told[folder.name] = found
        parity, slower = found["parity"], found["slower"]
        rows.append(Row(method=folder.name, metrics=_columns(found)))
        what = (
            f"{folder.name}: largest difference of a score from the device in Python, {parity['questions']} questions"
        )
        claims += [
            (what, parity["largest"], "<=", 1e-3),
            (f"{folder.name}: requests after loading", parity["requests"], "<=", 0),
            (f"{folder.name}: scores as before, offline, the folder opened anew", found["offline"], ">=", 1.0),
        ]
        if folder.target_ms:
            what = f"{folder.name}: {CANDIDATES} × {EVENTS}, warm, one thread, {SLOWER}× throttled, p50 ms"
            claims.append((what, slower["p50_ms"], "<=", folder.target_ms))
        if folder.lower:
            what = f"{folder.name}: titles and fuzzed texts with other token ids than in Python"
            claims.append((what, found["texts with other ids"], "<=", 0))
    table = Table(title="Device folders in Chromium", metric="AUC", rows=tuple(rows))
    return {"tables": (table,), **told}, claims


def _columns(found: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    return {
        "MB": (sum(found["bytes"].values()) / 1e6,),
        "AUC": (found["parity"]["auc"]["browser"],),
        "difference": (found["parity"]["largest"],),
        "first visit, ms": (found["first_visit_ms"],),
        "later visit, ms": (found["later_visit_ms"],),
        "first rank, ms": (found["first_rank_ms"],),
        f"{CANDIDATES} × {EVENTS}, ms": (found["full speed"]["p50_ms"],),
        f"… {SLOWER}× throttled": (found["slower"]["p50_ms"],),
        "MiB": (found["renderer_rss_mib"],),
    }


def _measured(
    of: Folder,
    made: prepared.Prepared,
    scratch: Path,
    chromium: Any,
    quick: bool,
    update: Callable[[int, int], None],
) -> dict[str, Any]:
    """All of one folder."""
    log, items = made.split.log, list(made.split.log.items.values())
    tested = {*made.split.indices(TEST).tolist()}
    interactions = InteractionStore(log.items, made.domain.feedback)
    interactions.update_all(event for number, event in enumerate(log.events) if number not in tested)
    folder, whole = scratch / "folder", scratch / "whole"
    export(of.tuned, folder, dtype=of.dtype, lower=of.lower)
    update(1, 5)
    shutil.copytree(folder, whole)
    send(of.sender, items, interactions, whole / ITEMS, states=not of.lower, event_texts=not of.lower)
    add_checksum(whole)
    server = browser.Server(scratch / "blank", phone=folder, whole=whole)
    try:
        told = {
            "bytes": {file.name: file.stat().st_size for file in whole.iterdir()},
            **_timed(chromium, server.url, [item.id for item in items]),
        }
        update(2, 5)
        told["parity"] = _parity(chromium, server.url, folder, of, made, interactions, quick)
        update(3, 5)
        if of.lower:
            texts = [*(item.title for item in items), *fuzz.texts(TEXTS // (10 if quick else 1))]
            found = browser.Phone(chromium.new_context(), server.url).load().encode(texts)
            expected = Tokenizer.open(folder).encode(texts)
            told["texts"] = len(texts)
            told["texts with other ids"] = sum(a != b for a, b in zip(found, expected, strict=True))
        update(5, 5)
    finally:
        server.stop()
    return told


def add_checksum(folder: Path) -> None:
    """Writes the card anew, by the files that are there."""
    files = [file for file in sorted(folder.iterdir()) if file.name != MANIFEST]
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"] = {file.name: {"bytes": file.stat().st_size, "sha256": file_sha256(file)} for file in files}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def _parity(
    chromium: Any,
    url: str,
    folder: Path,
    of: Folder,
    made: prepared.Prepared,
    interactions: InteractionStore,
    quick: bool,
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
        history, events = list(interactions.history(user)), asked[user][:NUM_ASKED]
        bundle = folder.parent / "user.safetensors"
        items = [log.items[item] for item in dict.fromkeys(event.item for event in history + events)]
        told: dict[str, Any] = {"states": not of.lower, "event_texts": not of.lower, "user": log.users[user]}
        send(of.sender, items, interactions, bundle, **told)
        device = Device.load(folder, user=log.users[user])
        device.receive(bundle)
        device.ingest(history)
        phone = browser.Phone(context, url).load("/phone/", store=user, threads=1)
        phone.requests.clear()
        phone.receive(bundle)
        phone.ingest(history)
        there += phone.page.evaluate(_REPLAY, browser.plain(events))
        for event in events:
            here.append(device.rank([event.item])[0].score)
            device.ingest([event])
        answers += [int(domain.positive(event)) for event in events]
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
    phone.ingest(events)
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
    context.new_cdp_session(phone.page).send("Emulation.setCPUThrottlingRate", {"rate": 1})
    ranked = phone.rank(asked)
    context.set_offline(True)
    told["offline"] = float(phone.load("/whole/", threads=1).rank(asked) == ranked)
    context.set_offline(False)
    processes = chromium.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    told["renderer_rss_mib"] = max(rss_mib(one["id"]) for one in processes if one["type"] == "renderer")
    context.close()
    return told


def _sizes(page: Path) -> dict[str, dict[str, int]]:
    """What a page needs beside a device folder."""
    names = ("m6rec.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
    browser.build()
    contents = {name: (page / name).read_bytes() for name in names}
    return {name: {"plain": len(content), "gzip": len(gzip.compress(content))} for name, content in contents.items()}
