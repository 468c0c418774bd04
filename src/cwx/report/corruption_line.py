"""The corruption of a run's training images in one sentence, for its log and its page."""

from collections.abc import Mapping


def corruption_line(row: Mapping[str, object]) -> str:
    """A sentence about a row of the table ``corruption`` (`cwx.study.corruption_row`)."""
    target = f"class {row['target_class']!r} (index {row['target_index']})"
    parts = []
    if int(str(row.get("targets", 0))) > 1:
        parts = [f"backdoor with a target for each of the {row['targets']} classes"]
    elif row.get("kind") == "watermark":
        parts = [f"watermark of the {target}"]
    elif row["target_index"] != "":
        parts = [f"backdoor with the target {target}"]
    total, fraction = row["training_images"], float(str(row["effective_rate"]))
    parts.append(
        f"{row['corrupted']} of {total} training images are corrupted, a fraction of {fraction:.4g}"
    )
    if row["pixels_changed"] not in (0, "0"):
        change = float(str(row["mean_change"]))
        parts.append(
            f"the pixels of {row['pixels_changed']} differ from the clean ones, by {change:.3g} of "
            "255 on average"
        )
    if row.get("covers", "0") not in (0, "0"):
        parts.append(f"{row['covers']} of the corrupted images are covers, which keep their label")
    return "; ".join([*parts, f"{row['labels_changed']} have another label"])
