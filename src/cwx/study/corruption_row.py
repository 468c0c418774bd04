"""The row of the table ``corruption`` of a run."""

from cwx.data.datamodule import ImageData
from cwx.evaluations.outcome import Row


def corruption_row(data: ImageData) -> Row:
    """What the corruption of the training images changed, and the target of a backdoor.

    ``kind`` is ``backdoor``, ``watermark``, or empty. ``targets`` is the number of target classes:
    0 without a backdoor. If each class has a target of its own, the columns of the target are
    empty. ``covers`` is the number of corrupted images that are not poisoned
    (`CorruptionResult.is_cover`).
    """
    changes, backdoor = data.changes, data.corrupted.backdoor
    target = None if backdoor is None else backdoor.target
    targets = 0 if backdoor is None else len(backdoor.class_targets) or 1
    kind = "" if backdoor is None else "watermark" if backdoor.is_watermark else "backdoor"
    corrupted, poisoned = data.corrupted.is_corrupted, data.corrupted.is_poisoned
    return {
        "kind": kind,
        "target_class": "" if target is None else data.classes[target],
        "target_index": "" if target is None else target,
        "targets": targets,
        "covers": int((corrupted & ~poisoned).sum()),
        "training_images": len(changes.labels),
        "corrupted": int(changes.either.sum()),
        "effective_rate": data.corrupted.effective_rate,
        "pixels_changed": int(changes.pixels.sum()),
        "labels_changed": int(changes.labels.sum()),
        "mean_change": changes.mean,
    }
