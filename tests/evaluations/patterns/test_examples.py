"""The figure of patterns on other images: what it shows and what its captions say."""

import torch

from cwx.evaluations.patterns.examples import PatternExample, examples_figure
from cwx.evaluations.patterns.probe import Probe
from cwx.evaluations.patterns.selection import candidates_of_size
from cwx.explanations.patterns import Patterns


def test_captions_are_the_predictions_and_the_class_is_framed(subject):
    classes, shape = len(subject.data.classes), subject.data.image_shape
    test = subject.data.splits.test
    generator = torch.Generator().manual_seed(0)
    patterns = Patterns(
        explains="expert",
        masks=torch.rand(classes, *shape[1:], generator=generator),
        canvases=torch.rand(classes, *shape, generator=generator),
        labels=torch.arange(classes),
        searched=torch.arange(len(test)) < len(test) // 2,
    )
    network = subject.first_network("expert")
    probe = Probe(subject, network, test)
    examples = [
        PatternExample(
            candidate=candidate,
            canvas=patterns.canvases[candidate.label],
            unseen=~patterns.searched,
        )
        for candidate in candidates_of_size("iscp", patterns, 0.5).candidates
    ]
    axes = examples_figure(probe, examples).axes
    assert len(axes) == classes * (4 + 4)

    def predicted(unit):
        logits = network(subject.data.normalization.normalize(unit))
        return [subject.data.classes[index] for index in logits.argmax(1).tolist()]

    unit = test.images.float() / 255
    for row, example in enumerate(examples):
        of_row = axes[8 * row : 8 * row + 8]
        captions = [" ".join(tile.get_xlabel().split()) for tile in of_row]
        label, mask, canvas = row, example.candidate.mask, example.canvas
        alone = [canvas, torch.where(mask, canvas, 0.5), torch.where(mask, canvas, 0.0)]
        names = predicted(torch.stack(alone))
        assert captions[0] == f"canvas: {names[0]}"
        assert captions[1] == "mask"
        assert captions[2:4] == [f"on grey: {names[1]}", f"on black: {names[2]}"]
        # Other images are unseen and of other classes.
        others = unit[(test.labels != label) & ~patterns.searched]
        shown = others[[len(others) * i // 4 for i in range(4)]]
        after = predicted(torch.where(mask, canvas, shown))
        expected = [f"{old} → {new}" for old, new in zip(predicted(shown), after, strict=True)]
        assert captions[4:] == expected
        framed = [tile.spines["top"].get_visible() for tile in of_row]
        name = subject.data.classes[label]
        assert framed == [names[0] == name, False, *(n == name for n in names[1:] + after)]
