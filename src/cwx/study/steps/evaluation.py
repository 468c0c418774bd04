"""Evaluating a study, on one or several ranks."""

import logging
from collections.abc import Mapping
from dataclasses import replace

from cwx.data.free_memory import release_freed_memory
from cwx.evaluations.outcome import Evaluation, OnAllRanks, Outcome, Sources
from cwx.study.contracts import check_distinct, check_outcome
from cwx.study.subject_outcomes import subject_outcomes
from cwx.training.memory import memory_advice
from cwx.training.rank_failures import raised_on_all_ranks
from cwx.training.ranks import Ranks
from cwx.training.subject import Subject

log = logging.getLogger(__name__)


def evaluate(
    evaluations: Mapping[str, Evaluation], subject: Subject, sources: Sources
) -> dict[str, Outcome]:
    """The outcomes of a study, by the part that made them; called on rank 0.

    Raises:
        ValueError: an evaluation returns no valid outcome, or two have a metric, a table or a
            figure of one name.
    """
    divided = evaluate_on_all_ranks(evaluations, subject, sources)
    outcomes = subject_outcomes(subject)
    for name, evaluation in evaluations.items():
        if name in divided:
            outcome = divided[name]
        else:
            log.info("evaluating %s", name)
            outcome = _outcome(name, evaluation, subject, sources)
        check_outcome(name, outcome)
        outcomes[f"evaluation.{name}"] = outcome
        check_distinct(outcomes)
    return outcomes


def evaluate_on_all_ranks(
    evaluations: Mapping[str, Evaluation], subject: Subject, sources: Sources
) -> dict[str, Outcome]:
    """The outcomes of the evaluations that divide their work, by name; empty with a single rank.

    A collective operation: all ranks call it, with the same evaluations and explanations. They come
    before the evaluations of rank 0 alone, for which no other rank has to wait. An error on any
    rank is raised on all.
    """
    ranks = Ranks.running()
    outcomes: dict[str, Outcome] = {}
    if ranks.count == 1:
        return outcomes
    subject = replace(subject, ranks=ranks)
    for name, evaluation in evaluations.items():
        if isinstance(evaluation, OnAllRanks) and evaluation.on_all_ranks:
            log.info("evaluating %s on %d processes", name, ranks.count)
            with raised_on_all_ranks():
                outcomes[name] = _outcome(name, evaluation, subject, sources)
    return outcomes


def _outcome(name: str, evaluation: Evaluation, subject: Subject, sources: Sources) -> Outcome:
    release_freed_memory()
    advice = f"lower data.batch_size (now {subject.data.batch_size})"
    with memory_advice(f"evaluation {name}", lambda: advice):
        return evaluation(subject, sources)
