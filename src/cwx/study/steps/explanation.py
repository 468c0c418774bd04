"""Running the explanation methods of a study."""

import logging
from collections.abc import Mapping
from functools import partial

from cwx.explanations.class_images import DivergedError
from cwx.study.contracts import check_fit_attributes, check_method_output
from cwx.study.results import Results
from cwx.training.callbacks.elapsed_time import ElapsedTime
from cwx.training.callbacks.log_images import LogPictures
from cwx.training.memory import memory_advice, method_advice
from cwx.training.stages import Factory, Fittable, Stages
from cwx.training.subject import Subject

log = logging.getLogger(__name__)


def explain(
    methods: Mapping[str, Factory], stages: Stages, subject: Subject, results: Results, *, seed: int
) -> None:
    """Run every method whose explanations are missing, and save them and the time that they took.

    Args:
        methods: build the methods, by name, in the order they run.
        seed: of the methods.

    Raises:
        DivergedError: the explanations of a method are not finite; its last good ones are saved.
    """
    finished = results.explanations()
    for name, build in methods.items():
        checkpoint = results.checkpoint(name)
        if name in finished:
            log.info("%s: explanations exist from an earlier start", name)
            if stages.is_rank_zero:
                # The earlier start may have been killed just before.
                checkpoint.unlink(missing_ok=True)
            continue
        clock = ElapsedTime()
        try:
            with memory_advice(f"method {name}", partial(method_advice, name, build)):
                method = build(subject=subject, seed=seed, stage=name)
                check_fit_attributes(name, method)
                if isinstance(method, Fittable):
                    pictures = LogPictures(name, subject.data.normalization)
                    stages.fit(method, checkpoint, [pictures, clock])
        except DivergedError as error:
            if stages.is_rank_zero:
                results.save_last_good(name, error.last_good)
            raise
        if stages.is_rank_zero:
            output = method.explanations()
            check_method_output(name, output, subject.data)
            results.add_seconds(name, clock.seconds)
            results.save_images(name, output, subject.data)
            results.add_explanations(name, output)
            checkpoint.unlink(missing_ok=True)
        stages.wait()
