"""What an inspection has found, in sentences for the log and the page."""

from cwx.data.datasets.folder_preview import FolderPreview
from cwx.data.output_names import OutputNames
from cwx.training.importing.usage import Usage
from cwx.training.importing.ways import Way


def usage_notes(usage: Usage, names: OutputNames) -> list[str]:
    """How the weights are used, and which other ways fit as well."""
    way = usage.way
    row = way.row
    order = way.order_name or names.origin
    lines = [
        f"Found: {row['network']}; image size {row['size']}; normalisation {row['normalisation']}; "
        f"classes {order}. Accuracy {way.accuracy:.1%} on {row['images']} images; {usage.tried} "
        "ways were tried."
    ]
    if way.form.output is not None:
        lines.append(f"The logits are the part {way.form.output!r} of what the network returns.")
    if way.form.probabilities:
        lines.append("The network returns probabilities: their logarithms are used.")
    if way.inputs.is_reversed:
        lines.append("The network takes the channels as blue, green, red.")
    if usage.equal:
        others = "; ".join(_difference(way, other) for other in usage.equal[:3])
        lines.append(
            f"As accurate, within the error: {others}. If you know it, give --network, --size, "
            "--mean and --std."
        )
    return lines


def _difference(way: Way, other: Way) -> str:
    """What differs in another way, and its accuracy."""
    row = way.row
    parts = [
        f"{column} {value}"
        for column, value in other.row.items()
        if column not in ("accuracy", "images") and value != row[column]
    ]
    return f"{', '.join(parts)} ({other.accuracy:.1%})"


def image_notes(folder: FolderPreview) -> list[str]:
    """What the number of images does to the results."""
    classes = len(folder.classes)
    lines = []
    absent = classes - len(folder.present)
    if absent:
        lines.append(f"{absent} of {classes} classes have no images, and get no pattern.")
    if len(folder) < classes:
        lines.append(f"There are fewer images ({len(folder)}) than classes ({classes}).")
    fewest = min(folder.counts().values())
    if fewest < 10:
        lines.append(
            f"A class has only {fewest} image{'s' if fewest > 1 else ''}: the numbers of single "
            "classes are rough."
        )
    return lines
