"""The success of the triggers that methods reveal, once they are put on other images."""

from collections.abc import Mapping

from torch import Tensor

from cwx.evaluations.outcome import Sources
from cwx.evaluations.patterns.probe import Probe
from cwx.explanations.images import Explanations
from cwx.explanations.patterns import Attach, Patterns, Perturbations, Triggers
from cwx.functional.trigger_scores import TriggerEstimate, is_local, top_pixels
from cwx.training.subject import Subject


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

    By source and class. Perturbations (of the largest radius) and triggers are put on images as
    their methods define it. Of patterns, the first canvas of a class replaces as many pixels as the
    true mask has; of images, the mean image of the class replaces those of the highest revealed
    map. They know the size of the true trigger, but nothing else. For a trigger that is not local
    both have no success: they would replace the whole image.

    Args:
        images: unit images by source, for sources that reveal images.
        revealed: by source and class.
        mask: of the true trigger, ``[H, W]``.
        count: test images, at most.
    """
    overlays: dict[str, dict[int, Attach]] = {}
    for name, output in sources.items():
        if isinstance(output, Triggers):
            overlays[name] = {
                label: output.attach(index) for index, label in enumerate(output.labels.tolist())
            }
        elif isinstance(output, Perturbations):
            overlays[name] = {
                label: output.attach(output.largest(label))
                for label in output.labels.unique().tolist()
            }
        elif isinstance(output, Patterns) and is_local(mask):
            cut, labels = output.cut(float(mask.double().mean())), output.labels.tolist()
            overlays[name] = {label: cut.attach(labels.index(label)) for label in set(labels)}
    if is_local(mask):
        for name, explanations in images.items():
            overlays[name] = {
                label: _image_overlay(explanations, label, estimate, mask)
                for label, estimate in revealed[name].items()
            }
    test = subject.data.splits.test.spread(count)
    probe = Probe(subject, subject.first_network("expert"), test)
    return {
        name: {
            label: probe.hits(attach, label).double().mean().item()
            for label, attach in by_class.items()
        }
        for name, by_class in overlays.items()
    }


def _image_overlay(
    explanations: Explanations, label: int, estimate: TriggerEstimate, mask: Tensor
) -> Attach:
    m = top_pixels(estimate.map, int(mask.sum())).float()
    own = explanations.images[explanations.labels == label].float().mean(0).clamp(0, 1)

    def overlay(images: Tensor) -> Tensor:
        opaque = m.to(images.device)
        return (1 - opaque) * images + opaque * own.to(images.device)

    return overlay
