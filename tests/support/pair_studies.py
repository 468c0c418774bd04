"""Studies of neuron pairs with known LC, their folders, and simulated volunteers."""

import io
import json
import random

from PIL import Image

from cwx.evaluations.neuron_pairs.sampling import draw_pairs
from cwx.evaluations.outcome import Outcome
from cwx.storage.neuron_pairs import PairStudy, pairs_digest, picture_name
from cwx.storage.pair_answers import Answers
from cwx.study.results import Results


def neuron_row(number, level, **changes):
    row = {
        "neuron": number, "network": "expert", "layer": "layer<secret>", "unit": number,
        "lc": level, "largest_fraction": level, "negative_entropy": -level, "depth": 1 + number % 3,
        "class": "class<secret>", "picture_sha256": f"{number:064d}",
    }  # fmt: skip
    return {**row, **changes}


def plain_png(side, brightness):
    file = io.BytesIO()
    Image.new("RGB", (side, side), (brightness,) * 3).save(file, "PNG")
    return file.getvalue()


def make_pair_run(folder, *, neurons=30, pairs=60, repeated=0.2, levels=None, side=6, **changes):
    """A run with pairs of neurons; the picture of a neuron has a colour of its own.

    Args:
        levels: LC of each neuron; by default all differ.
        side: of a picture in pixels.
        changes: of the columns of all neurons.
    """
    levels = levels or [(number * 7 % neurons + 1) / neurons for number in range(neurons)]
    drawn = draw_pairs(levels, count=pairs, strata=1, repeated=repeated, seed=0)
    rows = [
        {
            "pair": pair.number, "left": pair.left, "right": pair.right,
            "repeats": pair.repeats or "",
        }
        for pair in drawn
    ]  # fmt: skip
    outcome = Outcome(
        tables={
            "neuron_pairs": rows,
            "neuron_pairs_neurons": [
                neuron_row(n, level, **changes) for n, level in enumerate(levels, 1)
            ],
        },
        files={picture_name(n): plain_png(side, n % 256) for n in range(1, neurons + 1)},
    )
    results = Results(folder)
    with results.running(experiment="cifar10/neurons", resumed=False):
        results.add_outcomes({"evaluation.neuron_pairs": outcome}, {})
    return folder


def make_study(levels, *, pairs, repeated=0.0, **statistics):
    """A study of random pairs of neurons.

    Args:
        levels: LC of each neuron.
        pairs: number of pairs without repetitions.
        statistics: the others, by name; LC by default.
    """
    drawn = draw_pairs(levels, count=pairs, strata=1, repeated=repeated, seed=0)
    by_name = {
        name: statistics.get(name, levels)
        for name in ("lc", "largest_fraction", "negative_entropy", "depth")
    }
    numbers = range(1, len(levels) + 1)
    return PairStudy(
        digest=pairs_digest(drawn, {number: str(number) for number in numbers}),
        pairs={pair.number: pair for pair in drawn},
        statistics={
            number: {name: values[number - 1] for name, values in by_name.items()}
            for number in numbers
        },
    )


def volunteer(study, name, *, follows, statistic="lc", silent=0.0, seed=0):
    """A volunteer who chooses the neuron of higher LC with probability `follows`.

    Args:
        statistic: that is followed instead of LC.
        silent: the probability of "cannot say".
    """
    chance = random.Random(seed)
    answers = {}
    for number, pair in study.pairs.items():
        higher = "right" if study.difference(pair, statistic) > 0 else "left"
        lower = "left" if higher == "right" else "right"
        side = higher if chance.random() < follows else lower
        answers[number] = "cannot say" if chance.random() < silent else side
    return Answers(volunteer=name, answers=answers, seconds=(2.0,) * len(answers))


def write_answers(file, study, answers, /, **changes):
    """The file that the page would save."""
    content = {
        "study": study.digest,
        "volunteer": answers.volunteer,
        "answers": [
            {"pair": pair, "answer": answer, "seconds": time}
            for (pair, answer), time in zip(answers.answers.items(), answers.seconds, strict=True)
        ],
    }
    file.write_text(json.dumps({**content, **changes}))
    return file
