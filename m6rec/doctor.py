"""What works on this machine, what is missing, and how to get it: the checks of ``m6rec doctor``.

Each check stands alone, and none needs more than the base install to say what is missing. Nothing is fetched.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from m6rec import assets
from m6rec.errors import ExtraError, M6RecError, StoreError, missing
from m6rec.project import Project

Status = Literal["ok", "warning", "failure"]
SERVED = ("tune", "serve")
"""Extras without which there is no service."""
LEAST_MEMORY, LEAST_DISK = 2 << 30, 2 << 30
"""Below these, a service of the default foundation is likely to be killed, or to fail writing."""
PARITY = (0.0067732, 0.0423032, 0.0031918)
"""Logits of ``_logits`` as measured by the developers (AMD EPYC, torch 2.13)."""
STATES = "states.store"
"""The server that may forget: what it held is computed again."""
ROUNDING = 1e-5
"""How far a correct machine may be from ``PARITY``: float32 sums in another order differ by some 1e-7."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The outcome of one check.

    Attributes:
        name: What was looked at.
        status: "failure" where a service could not run, "warning" where something else can't or will be slow.
        told: What was found.
        remedy: What to do about it; "" where all is well.
    """

    name: str
    status: Status
    told: str
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class Patient:
    """What is examined besides the machine.

    Attributes:
        foundation: Name, folder, .gguf file or hub id of the language model.
        device: Where it runs.
        dtype: In which precision.
        project: The project that is meant to be served; None for that of the environment, if there is one.
        servers: URLs of Redis servers by what names them: "states.store" keeps states, any other may keep events.
    """

    foundation: str = assets.DEFAULT_FOUNDATION
    device: str = "cpu"
    dtype: str = "auto"
    project: Path | None = None
    servers: Mapping[str, str] = field(default_factory=dict)


def examine(patient: Patient) -> Iterator[Finding]:
    """All checks, in the order in which what they find should be mended."""
    for check in (_python, _extras, _processor, _memory, _folders, _assets, _foundation, _parity, _project, _redis):
        name = check.__name__.strip("_")
        try:
            yield from check(patient)
        except ModuleNotFoundError as error:
            told = missing(error, f"the check of the {name}")
            if told is None:
                raise
            yield Finding(name=name, status="failure", told=f"{error.name} is not installed", remedy=str(told))
        except M6RecError as error:
            yield Finding(name=name, status="failure", told=str(error), remedy=_REMEDIES[name])


_REMEDIES = {
    "assets": "m6rec assets get NAME, or delete the folder that is named to do without",
    "foundation": f"m6rec assets get {assets.DEFAULT_FOUNDATION}, or give --foundation what is meant",
    "project": "m6rec init events.csv makes one with all that is served",
    "redis": "make redis-durable starts a server that keeps events, make redis one that shares states",
}


def _python(_: Patient) -> Iterator[Finding]:
    told = f"{platform.python_version()}, m6rec {metadata.version('m6rec')}, {platform.system()} {platform.machine()}"
    yield Finding(name="python", status="ok", told=told)


def _extras(_: Patient) -> Iterator[Finding]:
    needs: dict[str, list[Requirement]] = {}
    for line in metadata.requires("m6rec") or ():
        one = Requirement(line)
        found = re.search(r"extra == ['\"]([\w-]+)['\"]", str(one.marker or ""))
        needs.setdefault(found[1] if found else "", []).append(one)
    for extra in sorted(needs.keys() - {"all", "dev", "docs", "evidence"}):
        short = [why for one in needs[extra] if one.name != "m6rec" and (why := _lack(one))]
        told, name = ", ".join(short), f"extra {extra}" if extra else "base install"
        if not short:
            yield Finding(name=name, status="ok", told=f"{len(needs[extra])} packages")
        elif not extra:
            yield Finding(name=name, status="failure", told=told, remedy="pip install --force-reinstall m6rec")
        else:
            status: Status = "failure" if extra in SERVED else "warning"
            remedy = str(ExtraError(f"what is in m6rec[{extra}]", extra))
            yield Finding(name=name, status=status, told=told, remedy=remedy)


def _lack(requirement: Requirement) -> str:
    """Why a package will not do; "" where it does."""
    try:
        there = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed"
    return "" if there in requirement.specifier else f"{requirement.name} {there} is not {requirement.specifier}"


def _processor(_: Patient) -> Iterator[Finding]:
    import torch

    from m6rec.foundation.checkpoint import fastest

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads, dtype = torch.get_num_threads(), str(fastest(torch.device("cpu"))).removeprefix("torch.")
    told = f"{cores} cores, {threads} threads, {torch.backends.cpu.get_cpu_capability()}, computes in {dtype}"
    if torch.cuda.is_available():
        told += f"; {torch.cuda.device_count()} × {torch.cuda.get_device_name()}"
    if threads > cores:
        remedy = f"set OMP_NUM_THREADS={cores}: more threads than cores wait for each other"
        yield Finding(name="processor", status="warning", told=told, remedy=remedy)
    elif torch.backends.cpu.get_cpu_capability() == "DEFAULT" and platform.machine() in ("x86_64", "AMD64"):
        remedy = "expect a tenth of the speed; a processor with AVX2 or later is meant"
        yield Finding(name="processor", status="warning", told=told, remedy=remedy)
    else:
        yield Finding(name="processor", status="ok", told=told)


def _memory(_: Patient) -> Iterator[Finding]:
    free, told = _free_memory()
    if free is not None and free < LEAST_MEMORY:
        remedy = f"free some, or give the container more: a service takes some {LEAST_MEMORY >> 30} GiB"
        yield Finding(name="memory", status="warning", told=told, remedy=remedy)
    else:
        yield Finding(name="memory", status="ok", told=told)


def _free_memory() -> tuple[int | None, str]:
    """(bytes, in words): of the machine, or of the control group that this process is in where that has less."""
    found: list[tuple[int, str]] = []
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append((1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]), "free"))
    with suppress(OSError, ValueError):  # "max" where there is no limit
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        found.append((limit - used, f"free of the control group's {limit / 2**30:.1f} GiB"))
    if not found:
        return None, "this system doesn't say"
    free, of = min(found)
    return free, f"{free / 2**30:.1f} GiB {of}"


def _folders(_: Patient) -> Iterator[Finding]:
    for name, folder in (("cache", assets.home()), ("temporary files", Path(tempfile.gettempdir()))):
        there = next(one for one in (folder, *folder.parents) if one.exists())
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            remedy = "set M6REC_HOME" if name == "cache" else "set TMPDIR"
            told = f"{folder} can't be written ({error})"
            yield Finding(name=name, status="failure", told=told, remedy=f"{remedy} to a folder of yours")
            continue
        free = shutil.disk_usage(there).free
        told = f"{folder}, {free / 2**30:.1f} GiB free"
        if free < LEAST_DISK:
            remedy = f"free {LEAST_DISK >> 30} GiB there; `m6rec assets list` says what is fetched"
            yield Finding(name=name, status="warning", told=told, remedy=remedy)
        else:
            yield Finding(name=name, status="ok", told=told)


def _assets(_: Patient) -> Iterator[Finding]:
    for name in assets.names():
        if not assets.is_here(name):
            told = f"not fetched ({assets.describe(name).megabytes} MB)"
            yield Finding(name=f"asset {name}", status="ok", told=told, remedy=f"m6rec assets get {name}")
            continue
        try:
            assets.verify(name)
        except M6RecError as error:
            remedy = f"delete {assets.home() / name}, then: m6rec assets get {name}"
            yield Finding(name=f"asset {name}", status="failure", told=str(error), remedy=remedy)
        else:
            yield Finding(name=f"asset {name}", status="ok", told="intact")


def _foundation(patient: Patient) -> Iterator[Finding]:
    import torch

    from m6rec.foundation.checkpoint import load

    name = f"foundation {patient.foundation}"
    if patient.foundation in assets.names() and not assets.is_here(patient.foundation):
        remedy = f"m6rec assets get {patient.foundation}; or give --foundation a folder"
        yield Finding(name=name, status="failure", told="not fetched", remedy=remedy)
        return
    start = time.perf_counter()
    foundation = load(patient.foundation, dtype=patient.dtype, device=patient.device)
    loaded = time.perf_counter()
    ids_1L = torch.tensor(foundation.tokenizer.encode(["A user clicks hiking shoes"]), device=foundation.model.device)
    with torch.inference_mode():
        logits_1LV = foundation.model(ids_1L) if not foundation.model.config.narrow else None
    read = time.perf_counter()
    told = f"{foundation.model.num_parameters() / 1e6:.0f} M parameters, loaded in {loaded - start:.1f} s"
    if logits_1LV is not None and not logits_1LV.isfinite().all():
        remedy = "give --dtype float32 where it is served, or fetch it again: its weights are damaged, or overflow here"
        yield Finding(name=name, status="failure", told=f"{told}; what it says is not finite", remedy=remedy)
    else:
        yield Finding(name=name, status="ok", told=f"{told}, reads a sentence in {1_000 * (read - loaded):.0f} ms")


def _parity(_: Patient) -> Iterator[Finding]:
    """A small model of fixed weights, and a search in two ways, against what the developers measured."""
    gap = max(abs(one - other) for one, other in zip(_logits(), PARITY, strict=True))
    told = f"scores of a built-in question differ by {gap:.1g}"
    yield _equal("parity", gap < ROUNDING, told, "torch")
    gap, same = _searched()
    told = f"a search by index and one by all items differ by {gap:.1g}" + ("" if same else ", and find other items")
    yield _equal("search", same and gap < ROUNDING, told, "faiss-cpu and numba")


def _equal(name: str, good: bool, told: str, packages: str) -> Finding:
    remedy = f"reinstall {packages}: pip install --force-reinstall 'm6rec[tune]'; then tell us what processor this is"
    return Finding(name=name, status="ok" if good else "failure", told=told, remedy="" if good else remedy)


def _logits() -> tuple[float, ...]:
    import torch

    from m6rec.foundation.config import ModelConfig, RopeConfig
    from m6rec.foundation.model import Model

    rope = RopeConfig(theta=1e4)
    config = ModelConfig(
        family="llama",
        vocab_size=32,
        width=64,
        ffn_width=128,
        num_layers=4,
        num_heads=4,
        num_kv_heads=2,
        head_width=16,
        activation="silu",
        norm_eps=1e-5,
        rope=rope,
        local_rope=rope,
        windows=(None,) * 4,
        attention_scale=0.25,
    )
    model = Model(config)
    with torch.inference_mode():
        for number, (_, weights) in enumerate(sorted(model.named_parameters()), 1):
            place = torch.arange(weights.numel(), dtype=torch.float64)
            weights.copy_((torch.sin(number + 0.37 * place) * weights.shape[-1] ** -0.5).view_as(weights))
        logits_1LV = model(torch.arange(3, 15)[None])
    return tuple(logits_1LV[0, -1, :3].tolist())


def _searched() -> tuple[float, bool]:
    """(largest difference of a score, whether the same items are found)."""
    import numpy as np

    from m6rec.retrieval.embeddings import unit, user_vectors
    from m6rec.retrieval.exhaustive import ExhaustiveSearch
    from m6rec.retrieval.index import Index

    place_IE = np.arange(500 * 32).reshape(500, 32)
    ids, index = [f"i{number:03}" for number in range(500)], Index(32)
    index.put(ids, unit(np.sin(0.37 * place_IE + place_IE**1.5 / 999)))
    vectors_IE = index.vectors(ids)
    liked = np.array([7, 77, 177])
    by_index = index.search(user_vectors(vectors_IE, [liked], 0.8)[0], 10)
    rows_UK, scores_UK = ExhaustiveSearch(ids, vectors_IE, 0.8, None, 0).search([[ids[row] for row in liked]], [()], 10)
    gap = float(np.abs(scores_UK[0] - np.array([score for _, score in by_index])).max())
    return gap, [item for item, _ in by_index] == [ids[row] for row in rows_UK[0]]


def _project(patient: Patient) -> Iterator[Finding]:
    try:
        project = Project.find(patient.project)
    except M6RecError:
        if patient.project is not None:
            raise
        remedy = "give --project FOLDER to have one looked at; m6rec init events.csv makes one"
        yield Finding(name="project", status="ok", told="none is given", remedy=remedy)
        return
    from m6rec.domains import prepared
    from m6rec.fingerprint import Fingerprint

    dataset = prepared.fingerprint(project.data)
    for run in (project.retrieval(), project.ranking()):
        tuned = Fingerprint.load(run)
        if tuned is not None:
            tuned.require(dataset, what=f"the run {run}", parts=("domain", "rule", "data"), remedy=_REMEDIES["project"])
    yield Finding(name="project", status="ok", told=f"{project.folder}: dataset and runs belong together")
    there = project.store if project.store.exists() else project.folder
    if os.access(there, os.W_OK):
        yield Finding(name="store", status="ok", told=f"{project.store} can be written")
    else:
        remedy = f"chown it to the user of the service, or serve with --store another folder: {there}"
        yield Finding(name="store", status="failure", told=f"{project.store} can't be written", remedy=remedy)


def _redis(patient: Patient) -> Iterator[Finding]:
    for name, url in patient.servers.items():
        try:
            yield _server(name, url)
        except StoreError as error:
            yield Finding(name=name, status="failure", told=str(error), remedy=_REMEDIES["redis"])


def _server(name: str, url: str) -> Finding:
    from m6rec.foundation.stores import connect, served
    from m6rec.serving.redis_journal import lossy

    client = connect(url, timeout_s=2.0)
    with served():
        client.ping()
        start = time.perf_counter()
        client.ping()
        told = f"answers in {1_000 * (time.perf_counter() - start):.1f} ms"
        if name == STATES:
            return Finding(name=name, status="ok", told=told)
        if why := lossy(client):
            remedy = f"share states by it (--states); for events: make redis-durable, or set {why}"
            return Finding(name=name, status="warning", told=f"{told}; it may lose events", remedy=remedy)
    return Finding(name=name, status="ok", told=f"{told} and loses no event")
