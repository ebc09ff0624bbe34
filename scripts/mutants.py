"""Planted faults: each is a small change of m6rec that a test must notice. ``make mutants`` plants one after another.

Faults are planted in a copy of the tree, so the checkout stays as it is. The tests named pass in the copy before the
first fault is planted. What was found is kept under a digest of the file with the fault and of its tests, so a run that
was stopped goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "runs" / "mutants"
TREE, RESULTS = WORK / "tree", WORK / "results.json"
LEFT_OUT = ("runs", ".*", "node_modules", "__pycache__", "build", "dist", "*.egg-info")
AT_ONCE = 12
"""Tests that are run together without a fault."""
LIMIT_S = 300.0
"""Whoever takes longer with a fault has noticed it."""


@dataclass(frozen=True)
class Mutant:
    """A planted fault.

    Attributes:
        fault: What is wrong, in words.
        file: Where, below ``m6rec/``.
        old: Source that is there once.
        new: What takes its place.
        tests: What must fail: test functions below ``tests/``, as pytest names them.
    """

    fault: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def ids(self) -> list[str]:
        """The tests as pytest takes them from the root."""
        return [f"tests/{test}" for test in self.tests]

    @property
    def room(self) -> str:
        """The room that it is in."""
        return self.file.partition("/")[0].removesuffix(".py")


MUTANTS = (
    Mutant(
        "a file that is replaced is read by its writer alone",
        "files.py",
        "partial.chmod(0o666 & ~_umask())",
        "partial.chmod(0o600)",
        ("test_files.py::test_a_file_is_replaced_whole_and_can_be_read_by_others",),
    ),
    Mutant(
        "what happens in the same second is known",
        "data/examples.py",
        "while times[begin] and end < len(times) and times[end] == times[begin]:",
        "while times[begin] and end < len(times) and times[end] < times[begin]:",
        ("data/test_examples.py::test_what_belongs_together_is_asked_before_any_of_it_is_observed",),
    ),
    Mutant(
        "an event of an impression is asked twice",
        "data/examples.py",
        "asked -= asked_before",
        "asked -= set()",
        ("data/test_examples.py::test_every_event_is_asked_once_and_observed_once_and_not_before",),
    ),
    Mutant(
        "an item that the user wants is drawn as negative",
        "data/negatives.py",
        "if pool[number] not in wanted and not (first",
        "if not (first",
        ("data/test_negatives.py::test_no_negative_is_ever_wanted_by_its_user_and_each_was_met_before",),
    ),
    Mutant(
        "the first test event is a validation event",
        "data/split.py",
        "part[test_start:] = TEST\n    return Split(log, part)\n",
        "part[test_start + 1 :] = TEST\n    return Split(log, part)\n",
        ("data/test_log.py::test_split_by_time_lets_nobody_see_the_future",),
    ),
    Mutant(
        "a forgotten user's last event comes back",
        "data/erasure.py",
        "event.time > gone[event.user]",
        "event.time >= gone[event.user]",
        ("data/test_erasure.py",),
    ),
    Mutant(
        "a question knows the event that it asks about",
        "tasks/task.py",
        "questions.append((0 if task.cross else group.events[0], user, item))",
        "questions.append((0 if task.cross else group.events[-1] + 1, user, item))",
        ("laws/test_data_laws.py::test_an_events_own_value_changes_only_its_answer",),
    ),
    Mutant(
        "a question misses the latest event before it",
        "tasks/task.py",
        "draft.visible.append(len(draft.context))",
        "draft.visible.append(max(0, len(draft.context) - 1))",
        ("tasks/test_task.py::test_a_life_is_a_row",),
    ),
    Mutant(
        "every event counts as a like of its item",
        "features/kernels.py",
        "of_item.likes += liked",
        "of_item.likes += 1",
        ("features/test_interactions.py::test_statistics_worked_by_hand",),
    ),
    Mutant(
        "a user is their own neighbour",
        "features/kernels.py",
        "both = max(0, both - my_likes * own_likes)",
        "both = max(0, both)",
        ("features/test_interactions.py::test_what_is_kept_equals_what_is_counted_anew",),
    ),
    Mutant(
        "what was only imagined stays judged",
        "features/timelines.py",
        "del self._events[user][num_events:], self._feature_rows[user][num_events:], self._judged[user][num_judged:]",
        "del self._events[user][num_events:], self._feature_rows[user][num_events:]",
        ("features/test_interactions.py::test_passing_events_count_for_the_user_alone_and_leave_nothing",),
    ),
    Mutant(
        "a block reads the state of its padding",
        "text/batch.py",
        "result.last_BC[b, :many] = lengths - 1",
        "result.last_BC[b, :many] = size - 1",
        ("text/test_batch.py",),
    ),
    Mutant(
        "a generated text may hold a blocked word",
        "language/safety.py",
        "    if blocked.holds(text):\n",
        "    if blocked.holds(text) and len(text) > longest:\n",
        ("language/test_safety.py",),
    ),
    Mutant(
        "a title can close its quotes",
        "text/verbalise.py",
        "line = plain(text).replace('\"', \"'\")",
        "line = plain(text)",
        ("text/test_verbalise.py::test_a_quoted_text_is_one_short_line_within_its_quotes",),
    ),
    Mutant(
        "a candidate sees one context token too many",
        "foundation/attention.py",
        "hidden_BCMN = (index_N >= visible_BC[..., None])[:, :, None]",
        "hidden_BCMN = (index_N > visible_BC[..., None])[:, :, None]",
        ("foundation/test_model.py::test_shared_context_equals_slow_attention",),
    ),
    Mutant(
        "a token of a block sees the next one",
        "foundation/attention.py",
        "return hidden_MM.triu(1) if window is None else",
        "return hidden_MM.triu(2) if window is None else",
        ("foundation/test_model.py::test_shared_context_equals_slow_attention",),
    ),
    Mutant(
        "states of all tokens and of the last one share a key",
        "foundation/states.py",
        "{config.depth}|{kept}|",
        "{config.depth}|",
        ("foundation/test_states.py::test_other_states_have_other_keys",),
    ),
    Mutant(
        "a text is drawn from less than the nucleus",
        "foundation/generate.py",
        "sorted_p[sorted_p.cumsum(0) - sorted_p >= top_p] = 0",
        "sorted_p[sorted_p.cumsum(0) > top_p] = 0",
        ("foundation/test_generate.py::test_draws_are_from_the_nucleus_in_proportion",),
    ),
    Mutant(
        "LoRA's update isn't divided by its rank",
        "adapters/lora.py",
        "self.first_layer, self.scale = first_layer, alpha / rank",
        "self.first_layer, self.scale = first_layer, alpha",
        ("adapters/test_lora.py",),
    ),
    Mutant(
        "the first prompts are the options",
        "adapters/prompt.py",
        "return self.weight_PD[-count:]",
        "return self.weight_PD[:count]",
        ("adapters/test_prompt.py",),
    ),
    Mutant(
        "a resumed epoch begins anew",
        "training.py",
        'self.epoch, self.place = note["epoch"], note["place"]',
        'self.epoch, self.place = note["epoch"], 0',
        ("test_training.py::test_an_interrupted_run_goes_on_exactly",),
    ),
    Mutant(
        "ties count as wins",
        "evaluation/metrics/scores.py",
        "midranks = np.cumsum(counts) - (counts - 1) / 2",
        "midranks = np.cumsum(counts) - (counts - 1)",
        ("evaluation/metrics/test_scores.py::test_auc_equals_scikit_learn",),
    ),
    Mutant(
        "item vectors have other lengths than 1",
        "retrieval/embeddings.py",
        "result_IE[places] += self.residual_IE[rows]\n        return unit(result_IE)",
        "result_IE[places] += self.residual_IE[rows]\n        return result_IE",
        ("retrieval/test_embeddings.py",),
    ),
    Mutant(
        "the oldest likes weigh most",
        "retrieval/blend.py",
        "for item in dict.fromkeys(reversed(liked)) if item in self.numbers]",
        "for item in dict.fromkeys(liked) if item in self.numbers]",
        ("retrieval/test_blend.py::test_likes_count_once_at_their_latest_and_the_latest_of_many",),
    ),
    Mutant(
        "what was left out comes back by a source",
        "retrieval/index.py",
        "if row in matching.rows and row not in left_out]",
        "if row in matching.rows]",
        ("retrieval/test_index.py::test_any_search_equals_sorting_all_vectors",),
    ),
    Mutant(
        "a candidate misses the last context tokens behind the prompts",
        "readouts/upper.py",
        "tensor(batch.visible_BC, device) + num_prompts,",
        "tensor(batch.visible_BC, device),",
        ("readouts/test_score.py::test_one_pass_over_a_life_equals_each_question_alone",),
    ),
    Mutant(
        "the prediction of a text's first token doesn't count",
        "readouts/generate.py",
        "normed = [normed_MD[first - 1 : len(ids)] for",
        "normed = [normed_MD[[first, *range(first, len(ids))]] for",
        ("readouts/test_generate.py::test_nats_are_those_of_generation_step_by_step",),
    ),
    Mutant(
        "an event that is sent again counts twice",
        "serving/journal.py",
        'known = writing.execute("SELECT content FROM event WHERE content = ? LIMIT 1", (keys.content,)).fetchone()',
        "known = None",
        ("serving/test_journal.py::test_an_event_counts_once_however_often_it_is_written",),
    ),
    Mutant(
        "the last event is lost at a restart",
        "serving/journal.py",
        "WHERE number > ? AND number <= ? AND (sealed",
        "WHERE number > ? AND number < ? AND (sealed",
        ("serving/test_journal.py::test_events_come_back_in_order_of_acknowledgement",),
    ),
    Mutant(
        "what was seen is recommended again",
        "serving/pipeline.py",
        "frozenset() if request.filters.seen else met)",
        "met if request.filters.seen else frozenset())",
        ("serving/test_recommender.py::test_recommended_items_are_unseen_and_fall_in_score",),
    ),
    Mutant(
        "a second page begins with the last item of the first",
        "serving/pipeline.py",
        "return ranked[request.offset : end]",
        "return ranked[max(0, request.offset - 1) : end]",
        ("serving/test_recommender.py::test_pages_follow_each_other",),
    ),
    Mutant(
        "a cached context answers for another one",
        "serving/kv_cache_pool.py",
        "if before is None or not known or row.context[: len(before.context)] != before.context:",
        "if before is None or not known or len(row.context) < len(before.context):",
        ("serving/test_kv_cache_pool.py::test_a_context_that_is_not_the_old_one_is_read_anew",),
    ),
    Mutant(
        "any key opens the service",
        "serving/api/gate.py",
        'service.keys.find(given.strip()) if scheme.lower() == "bearer" else None',
        'service.keys.find(given.strip()) or EVERYTHING if scheme.lower() == "bearer" else None',
        ("serving/test_http.py::test_without_its_key_nobody_gets_in",),
    ),
    Mutant(
        "a report holds a title as HTML",
        "evaluation/report.py",
        "<h1>{escape(report.title)}</h1>",
        "<h1>{report.title}</h1>",
        ("evaluation/test_report.py::test_text_of_users_stays_text",),
    ),
    Mutant(
        "rounded weights overflow their bits",
        "edge/export.py",
        "np.float32(2 ** (bits - 1) - 1)",
        "np.float32(2 ** (bits - 1) + 1)",
        ("edge/test_export.py::test_rounding_is_within_half_a_step",),
    ),
    Mutant(
        "a bound of a filter is left out",
        "predicate.py",
        "least <= number <= greatest",
        "least < number <= greatest",
        ("test_predicate.py",),
    ),
    Mutant(
        "a run is measured on what it was trained on",
        "cli/tuning.py",
        "require_dataset(run, dataset, split=True)",
        "require_dataset(run, dataset)",
        ("test_cli.py::test_what_is_measured_was_not_trained_on",),
    ),
    Mutant(
        "a project's settings outweigh those of --config",
        "cli/config.py",
        "_of_project(project) | (config.read(file) if file else {}) | typed | changed",
        "(config.read(file) if file else {}) | _of_project(project) | typed | changed",
        ("test_config.py::test_a_project_has_a_file",),
    ),
)


def main() -> int:
    """Plants every fault; returns 1 where one survives."""
    copy_tree()
    state = digest(path for part in ("m6rec", "tests") for path in (TREE / part).rglob("*.py"))
    kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    found: dict[str, list[Any]] = kept.get("found", {})
    passed: list[str] = kept["passed"] if kept.get("of") == state else []

    def keep() -> None:
        RESULTS.write_text(json.dumps({"of": state, "passed": passed, "found": found}, indent=1))

    tests = dict.fromkeys(test for mutant in MUTANTS for test in mutant.ids)
    while left := [test for test in tests if test not in passed][:AT_ONCE]:
        code, seconds = run(left)
        if code:
            print(f"without a fault these fail already; mend them first: {' '.join(left)}")
            return 1
        passed += left
        keep()
        print(f"{len(passed)} of {len(tests)} tests pass without a fault, {seconds:.1f} s", flush=True)
    for mutant in MUTANTS:
        if (key := key_of(mutant)) not in found:
            code, seconds = planted(mutant)
            found[key] = [{0: "SURVIVED", 1: "killed", -1: "killed"}.get(code, "BROKEN"), round(seconds, 1)]
            keep()
        outcome, seconds = found[key]
        print(f"{outcome:8} {seconds:6} s  {mutant.file}: {mutant.fault}", flush=True)
    ours = [found[key_of(mutant)] for mutant in MUTANTS]
    killed = sum(outcome == "killed" for outcome, _ in ours)
    print(f"killed {killed} of {len(MUTANTS)}, in {sum(seconds for _, seconds in ours):.0f} s")
    return int(killed < len(MUTANTS))


def key_of(mutant: Mutant) -> str:
    """What an outcome is kept under."""
    tests = {TREE / test.partition("::")[0] for test in mutant.ids}
    return f"{mutant.file} {digest([TREE / 'm6rec' / mutant.file, *tests], repr(mutant))}"


def planted(mutant: Mutant) -> tuple[int, float]:
    """``run`` of the tests of a fault while it is there."""
    file, original = TREE / "m6rec" / mutant.file, ROOT / "m6rec" / mutant.file
    file.write_text(fault_in(mutant, original.read_text(encoding="utf-8")), encoding="utf-8")
    try:
        return run(mutant.ids)
    finally:
        shutil.copy2(original, file)  # with its time, so that what was compiled from it is still good


def fault_in(mutant: Mutant, source: str) -> str:
    """The source with the fault. Raises ValueError where the place isn't there exactly once."""
    if (count := source.count(mutant.old)) != 1:
        raise ValueError(f"{mutant.file} has {count} times: {mutant.old}")
    return source.replace(mutant.old, mutant.new)


def run(tests: list[str]) -> tuple[int, float]:
    """(exit status of pytest, -1 where it took too long; seconds)."""
    environment = {**os.environ, "PYTHONPATH": str(TREE), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    begun = time.monotonic()
    try:
        done = subprocess.run(command, cwd=TREE, env=environment, capture_output=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return -1, time.monotonic() - begun
    if done.returncode not in (0, 1):
        print(done.stdout.decode()[-2_000:], flush=True)
    return done.returncode, time.monotonic() - begun


def copy_tree() -> None:
    """A copy of the checkout; files keep their times, so that what was compiled from them is still good."""
    for part in ("m6rec", "tests"):
        for file in (TREE / part).rglob("*.py"):
            if not (ROOT / file.relative_to(TREE)).exists():
                file.unlink()
    shutil.copytree(ROOT, TREE, ignore=shutil.ignore_patterns(*LEFT_OUT), dirs_exist_ok=True)


def digest(files: Iterable[Path], beside: str = "") -> str:
    """A digest of the names and contents of files, and of what is beside them."""
    state = hashlib.blake2b(beside.encode(), digest_size=16)
    for file in sorted(files):
        state.update(str(file).encode() + file.read_bytes())
    return state.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
