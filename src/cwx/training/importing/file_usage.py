"""What a file states about its use, against the other usual ways."""

from dataclasses import replace

from cwx.training.importing.usage import Usage, UsageSearch

_STATED = frozenset({"mean", "std", "size", "crop"})
# From this accuracy on, what the file states is taken without trying other ways.
_ACCURATE = 0.8
# What another way must gain, and how many standard errors.
_GAIN, _ERRORS = 0.03, 2.0


def find_usage(search: UsageSearch) -> tuple[Usage, str | None]:
    """The usage that the file states, unless another is far more accurate.

    The words of a file may be those of another program: BackdoorBench and Hugging Face normalise
    outside of the network.

    Returns:
        The usage, and a sentence if it is not that of the file.

    Raises:
        ValueError: as `UsageSearch.run`.
    """
    usage = search.run()
    is_stated = bool(_STATED & search.words.keys()) or any(
        architecture.normalization for architecture, _ in search.architectures
    )
    if not is_stated or usage.way.accuracy >= _ACCURATE:
        return usage, None
    others = replace(
        search,
        words={name: value for name, value in search.words.items() if name not in _STATED},
        architectures=[
            (replace(architecture, normalization=None), network)
            for architecture, network in search.architectures
        ],
    ).run()
    gain = others.way.accuracy - usage.way.accuracy
    variances = [
        found.way.accuracy * (1 - found.way.accuracy) / int(found.way.is_measured.sum())
        for found in (usage, others)
    ]
    if gain < max(_GAIN, _ERRORS * sum(variances) ** 0.5):
        return usage, None
    row = usage.way.row
    return others, (
        f"With the size and the normalisation that the file states (size {row['size']}), the "
        f"accuracy is {usage.way.accuracy:.1%}: they are not used."
    )
