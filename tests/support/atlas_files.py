"""Files of an atlas of neurons, made without networks."""

import json

import torch

from cwx.evaluations.atlas.columns import COLUMNS
from cwx.storage.atomic import write_tensors
from cwx.storage.run_files import ATLAS, ATLAS_IMAGES, ATLAS_METADATA


def write_atlas_files(
    folder,
    *,
    classes,
    layers=(("conv1", 3), ("conv2", 4)),
    networks=("expert", "fine-tuned"),
    images=2,
    pool=20,
    size=(8, 8),
    channels=3,
    attacked=True,
    seed=0,
):
    """Random columns and images; the last unit of each network fires on none.

    Args:
        layers: name and number of units of each.
        images: top images of a unit.
        pool: images of each set.
    """
    generator = torch.Generator().manual_seed(seed)
    units = sum(count for _, count in layers)
    sets = ("real", "adversarial") if attacked else ("real",)

    def rand(*shape):
        return torch.rand(*shape, generator=generator)

    def integers(high, *shape):
        return torch.randint(high, shape, generator=generator, dtype=torch.int32)

    columns = {}
    for name in networks:
        label = integers(len(classes), units)
        label[-1] = -1
        numbers = ["class_fraction", "lc", "fires", "detection", "detection_error"]
        numbers += ["cs1", "cs2", "cs1_permuted", "cs2_permuted"] if attacked else []
        own = {number: rand(units) for number in numbers}
        for number in own.keys() - {"fires"}:
            own[number][-1] = torch.nan
        counts = torch.tensor([count for _, count in layers])
        own |= {
            "layer": torch.arange(len(layers)).repeat_interleave(counts).int(),
            "unit": torch.cat([torch.arange(count) for count in counts]).int(),
            "class": label,
        }
        for kind in sets:
            top = integers(pool, units, images)
            top[-1] = -1
            own |= {
                f"{kind}/images": top,
                f"{kind}/activations": rand(units, images).sort(1, descending=True).values,
                f"{kind}/labels": integers(len(classes), units, images),
                f"{kind}/boxes": torch.tensor([1, 2, 4, 5], dtype=torch.int16).repeat(
                    units, images, 1
                ),
            }
        if attacked:
            own["adversarial/targets"] = integers(len(classes), units, images)
        columns |= {f"{name}/{column}": values for column, values in own.items()}
    described = [{"name": n, "units": u, "read_after": "relu", "resting": 0.0} for n, u in layers]
    about = {
        "networks": {name: {"layers": described} for name in networks},
        "classes": list(classes),
        "image_shape": [channels, *size],
        "test_images": pool,
        "adversarial_images": pool if attacked else 0,
        "fraction": 0.01,
        "sigma": 1.0,
        "images": images,
        "columns": COLUMNS,
    }
    write_tensors(folder / ATLAS, columns, {ATLAS_METADATA: json.dumps(about)})
    pictures = {}
    for kind in sets:
        pictures[f"{kind}/indices"] = torch.arange(pool, dtype=torch.int32)
        pictures[f"{kind}/pixels"] = (rand(pool, channels, *size) * 255).byte()
    write_tensors(folder / ATLAS_IMAGES, pictures, {})
    return columns
