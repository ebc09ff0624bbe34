"""Resolves the dataset and the runs of a command and loads them on one foundation with one state cache."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m6rec import assets, files
from m6rec.errors import ConfigError
from m6rec.fingerprint import Fingerprint
from m6rec.project import Project, Run, require_readout, writers_in

if TYPE_CHECKING:
    from m6rec.cli.tree import Config, StatesSection

ProjectFolder = Annotated[
    Path | None, typer.Option("--project", help="Project folder; $M6REC_PROJECT or the current folder by default.")
]
Data = Annotated[Path | None, typer.Option("--data", help="Prepared dataset; by default the project's.")]
Retrieve = Annotated[Path | None, typer.Option("--retrieve", help="Retrieval run; by default the project's.")]
Rank = Annotated[Path | None, typer.Option("--rank", help="Ranking run; by default the project's.")]
Blocked = Annotated[
    Path | None, typer.Option("--blocked", help="File of words that generated texts must not contain, one per line.")
]


@dataclass(frozen=True, kw_only=True)
class Served:
    """The dataset and runs to serve.

    Attributes:
        data: The prepared dataset.
        retrieve: The retrieval run.
        rank: The ranking run; text runs are its siblings.
        store: Folder of the service's events and items; None without a project.
        report: Folder of what was measured; None without a project.
        device: Folder of `m6rec export` for the page; None without a project.
    """

    data: Path
    retrieve: Path
    rank: Path
    store: Path | None
    report: Path | None
    device: Path | None = None

    def resolved(self) -> Served:
        """The same by absolute paths, for a process in another folder."""
        folders = {name: folder and folder.resolve() for name, folder in vars(self).items()}
        return Served(**folders)


def served(project: Path | None, data: Path | None, retrieve: Path | None, rank: Path | None) -> Served:
    """What is given explicitly, completed from the project.

    Raises:
        ConfigError: Something is missing and there is no project, or a run is of the wrong kind.
    """
    if project is None and data and retrieve and rank:
        return Served(data=data, retrieve=retrieve, rank=rank, store=None, report=None)
    home = Project.find(project)
    return Served(
        data=data or home.data,
        retrieve=retrieve or home.retrieval(),
        rank=rank or home.ranking(),
        store=home.store,
        report=home.report,
        device=home.device,
    )


@dataclass(frozen=True, kw_only=True)
class KeptStore:
    """Stored events and items of a service, and digests of the datasets that the present one replaced."""

    journal: Any = None
    catalogue: Any = None
    former: tuple[str, ...] = ()


@contextmanager
def store_of(chosen: Served, copy: Path | None = None) -> Iterator[KeptStore]:
    """A snapshot of the project's store, which a running service may be writing to; empty if there is none.

    Args:
        chosen: What is served.
        copy: Where the snapshot is kept and, if it is there already, taken from; a temporary folder by default.

    Raises:
        ConfigError: The store belongs to another dataset.
        StoreError: It can't be read.
    """
    from m6rec.domains import prepared
    from m6rec.serving import binding
    from m6rec.serving.catalogue import Catalogue
    from m6rec.serving.journal import open_journal

    if chosen.store is None or binding.read(chosen.store) is None:
        yield KeptStore()
        return
    bound = binding.bind_store(chosen.store, prepared.fingerprint(chosen.data))
    with TemporaryDirectory(prefix="m6rec-") as temporary:
        copy = copy or Path(temporary, "store")
        if not copy.exists():
            with files.new_folder(copy) as fresh:
                for name in ("histories", "catalogue"):
                    _copy(chosen.store / name, fresh / name)
        with closing(open_journal(copy / "histories")) as events, closing(Catalogue(copy / "catalogue")) as items:
            yield KeptStore(journal=events, catalogue=items, former=bound.former)


def _copy(folder: Path, copy: Path) -> None:
    """Copies a folder's databases, so that the command can't change the store."""
    from m6rec.serving.records import copy_database

    copy.mkdir()
    for file in folder.glob("*.sqlite"):
        copy_database(file, copy / file.name)


def data_of(project: Path | None, data: Path | None) -> Path:
    """The given dataset, or the project's. Raises ConfigError if there is neither."""
    return data or Project.find(project).data


def run_of(project: Path | None, run: Path | None) -> Path:
    """A run by folder or by name in the project; by default the ranking run that the project serves.

    Raises:
        ConfigError: There is no such finished run, or no project.
    """
    if run is None:
        return Project.find(project).ranking()
    if Run.at(run):
        return run
    home = Project.find(project)
    if Run.at(home.run(str(run))):
        return home.run(str(run))
    known = ", ".join(one.folder.name for one in home.runs()) or "none yet"
    raise ConfigError(f"there is no finished run {run}, neither as a folder nor in the project {home.folder} ({known})")


def require_dataset(run: Path, dataset: Fingerprint, *, split: bool = False, former: Collection[str] = ()) -> None:
    """Checks that a run was tuned on the given dataset.

    Args:
        run: The run.
        dataset: Its parts data, split and domain.
        split: Whether the split must be the same, so that test events were not trained on.
        former: Digests of datasets that this one replaced (``serving.binding``).

    Raises:
        ConfigError: It was tuned on another.
    """
    tuned = Fingerprint.load(run)
    if tuned is None:
        return  # loading the run will fail with a message
    measured = ("split",) if split else ()
    tuned.require(
        dataset,
        what=f"the run {run}",
        parts=("domain", "rule", *measured, *(() if tuned.data in former and not split else ("data",))),
        remedy="give --data what it was tuned on, or tune it again; where the same log was prepared anew, "
        "`m6rec serve --adopt` goes on with the old run",
    )


def former_of(project: Path | None, dataset: Fingerprint) -> tuple[str, ...]:
    """Digests of the datasets that this one replaced, from the project's store; () without a project."""
    from m6rec.serving import binding

    try:
        bound = binding.read(Project.find(project).store)
    except ConfigError:
        return ()
    return bound.former if bound is not None and bound.data == dataset.data else ()


def text_writers(rank: Path, ranking: Any, states: StatesSection) -> dict[str, Any]:
    """Text models whose runs are siblings of the ranking run and share its foundation and what items are called.

    So dialogues of another domain teach how to talk about the items of this one.
    """
    from m6rec.domains import domain as domains
    from m6rec.readouts import GenerateModel, read_config
    from m6rec.tasks.task import names

    found, known = {}, names("generate")
    for task, run in writers_in(rank.parent).items():
        made = Fingerprint.load(run) or Fingerprint()
        alike = made.domain == ranking.config.domain or (
            made.domain in domains.names() and domains.named(made.domain).noun == ranking.domain.noun
        )
        if alike and made.foundation == ranking.foundation.model.id and task in known:
            cache = cache_of(GenerateModel, read_config(run), ranking.foundation, states, ranking.cache)
            found[task] = GenerateModel.load(run, ranking.foundation, cache)
    return found


def blocklist(file: Path | None) -> Any:
    """Words that generated texts must not contain, besides the built-in ones; None without a file."""
    from m6rec.language.safety import Blocklist

    return None if file is None else Blocklist.load(file)


def state_store(states: str) -> Any:
    """The store of states: a folder, a server URL, or "" for the default folder."""
    from m6rec.foundation.stores import store_at

    return store_at(states) if "://" in states else Path(states) if states else assets.home() / "states"


def cache_of(readout: Any, config: Any, foundation: Any, states: StatesSection, shared: Any = None) -> Any:
    """``shared`` where it keeps the states that such a run reads, else a cache of its own, as the settings say."""
    return readout.cache_of(config, foundation, shared, state_store(states.store), states.cache)


def tuned_runs(
    data: Path,
    retrieve: Path,
    rank: Path,
    config: Config | None = None,
    *,
    exit_after: int | None = None,
    former: Collection[str] = (),
) -> tuple[Any, Any, Any]:
    """(prepared dataset, retrieval model, ranking model) on one foundation.

    ``config`` is by default that of the defaults, ``former`` as for ``require_dataset``.
    """
    from m6rec.cli.tree import Config
    from m6rec.domains import prepared
    from m6rec.foundation.checkpoint import load
    from m6rec.readouts import EmbedModel, ScoreModel, read_config

    config = config or Config()
    require_readout(rank, "score", "--rank")
    require_readout(retrieve, "embed", "--retrieve")
    dataset = prepared.fingerprint(data)
    for run in (rank, retrieve):
        require_dataset(run, dataset, former=former)
    made = prepared.load(data)
    ranks, embeds = read_config(rank), read_config(retrieve)
    foundation = load(ranks.foundation, dtype=config.foundation.dtype, device=config.foundation.device)
    cache = cache_of(ScoreModel, ranks, foundation, config.states)
    ranking = ScoreModel.load(rank, foundation, cache, exit_after=exit_after)
    return made, EmbedModel.load(retrieve, foundation, cache_of(EmbedModel, embeds, foundation, config.states)), ranking


def recommender_of(chosen: Served, kept: KeptStore, config: Config, blocked: Path | None = None) -> Any:
    """What the service would answer with, in this process, beside the service's events and items."""
    from m6rec.data.erasure import without
    from m6rec.features.interactions import InteractionStore
    from m6rec.serving.recommender import Recommender

    made, retrieval, ranking = tuned_runs(chosen.data, chosen.retrieve, chosen.rank, config, former=kept.former)
    log = made.split.log
    if kept.journal is not None:
        log = without(log, kept.journal.forgotten(log.users))
    return Recommender(
        retrieval,
        ranking,
        log,
        InteractionStore(log.items, made.domain.feedback).update_all(log.events),
        journal=kept.journal,
        catalogue=kept.catalogue,
        writers=text_writers(chosen.rank, ranking, config.states),
        blocked=blocklist(blocked),
        limits=config.serving.limits,
    )
