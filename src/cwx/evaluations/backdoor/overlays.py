"""The success of the triggers that methods reveal, once they are put on other images."""

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cwx.data.splits import ImageSet
from cwx.evaluations.outcome import Sources
from cwx.evaluations.patterns.probe import Probe
from cwx.explanations.images import Explanations
from cwx.explanations.patterns import Attach, Patterns, Perturbations, Triggers
from cwx.functional.trigger_scores import TriggerEstimate, is_local, top_pixels
from cwx.training.subject import Subject

log = logging.getLogger(__name__)


def overlay_success(
    subject: Subject,
    sources: Sources,
    images: Mapping[str, Explanations],
    revealed: Mapping[str, Mapping[int, TriggerEstimate]],
    mask: Tensor,
    *,
    count: int,
) -> dict[str, dict[int, float]]:
    """The fraction of test images of other classes that a trigger sends to its class.

    By source and class. All triggers are put on the same images, which no search of `sources` used:
    a trigger that was made for the images that it is measured on succeeds more often than one of
    synthetic images. A class without such images has no value.

    Perturbations (of the largest radius) and triggers are put on images as their methods define it.
    Of patterns, the first canvas of a class replaces as many pixels as the true mask has; of
    images, those of the class in turn replace the pixels of the highest revealed map. They know the
    size of the true trigger, but nothing else. For a trigger that is not local both have no
    success: they would replace the whole image.

    Args:
        images: unit images by source, for sources that reveal images.
        revealed: by source and class.
        mask: of the true trigger, ``[H, W]``.
        count: test images, at most.
    """
    unused = _unused(subject, sources)
    if not unused.any():
        log.warning(
            "revealed_trigger: the searches of %s used all test images, and none are left to "
            "measure the success of the triggers: lower method.<name>.searched",
            ", ".join(_searched(sources)),
        )
        return {}
    # Several attached to a class take turns.
    overlays: dict[str, dict[int, list[Attach]]] = {}
    for name, output in sources.items():
        if isinstance(output, Triggers):
            overlays[name] = {
                label: [output.attach(index)] for index, label in enumerate(output.labels.tolist())
            }
        elif isinstance(output, Perturbations):
            overlays[name] = {
                label: [output.attach(output.largest(label))]
                for label in output.labels.unique().tolist()
            }
        elif isinstance(output, Patterns) and is_local(mask):
            cut, labels = output.cut(float(mask.double().mean())), output.labels.tolist()
            overlays[name] = {label: [cut.attach(labels.index(label))] for label in set(labels)}
    if is_local(mask):
        for name, explanations in images.items():
            overlays[name] = {
                label: _image_overlays(explanations, label, estimate, mask)
                for label, estimate in revealed[name].items()
            }
    outside = subject.data.splits.test.at(unused).spread(count).resident()
    probes = {
        turns: _probes(subject, outside, turns)
        for turns in {len(attached) for by in overlays.values() for attached in by.values()}
    }
    return {
        name: {
            label: _success(probes[len(attached)], attached, label)
            for label, attached in by_class.items()
            if (outside.labels != label).any()
        }
        for name, by_class in overlays.items()
    }


def _searched(sources: Sources) -> dict[str, Tensor]:
    """By source, the test images that its search used, ``[t]``, for those that used any."""
    return {
        name: output.searched
        for name, output in sources.items()
        if isinstance(output, Patterns | Perturbations | Triggers) and output.searched.any()
    }


def _unused(subject: Subject, sources: Sources) -> Tensor:
    """Boolean mask ``[t]`` of the test images that no search used."""
    used = torch.zeros(len(subject.data.splits.test), dtype=torch.bool)
    for searched in _searched(sources).values():
        used |= searched
    return ~used


def _image_overlays(
    explanations: Explanations, label: int, estimate: TriggerEstimate, mask: Tensor
) -> list[Attach]:
    """Each replaces the pixels of the highest map by those of an image of the class."""
    m = top_pixels(estimate.map, int(mask.sum())).float()
    own = explanations.images[explanations.labels == label].float().clamp(0, 1)

    def overlay(image: Tensor) -> Attach:
        def attach(images: Tensor) -> Tensor:
            opaque = m.to(images.device)
            return (1 - opaque) * images + opaque * image.to(images.device)

        return attach

    return [overlay(image) for image in own]


def _probes(subject: Subject, images: ImageSet, count: int) -> list[Probe]:
    """On at most `count` equal parts of `images`, each with as many of each label."""
    turns = torch.zeros_like(images.labels)
    for label in images.labels.unique():
        of_label = images.labels == label
        turns[of_label] = torch.arange(int(of_label.sum())) % count
    network = subject.first_network("expert")
    return [Probe(subject, network, images.at(turns == turn)) for turn in turns.unique()]


def _success(probes: Sequence[Probe], attached: Sequence[Attach], label: int) -> float:
    """The fraction of images of other classes that are classified as `label`."""
    # Fewer parts than attached if there are few images.
    hits = [
        probe.hits(attach, label)
        for probe, attach in zip(probes, attached, strict=False)
        if (probe.images.labels != label).any()
    ]
    return torch.cat(hits).double().mean().item()
