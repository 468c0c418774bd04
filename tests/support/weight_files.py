"""Files of the weights of one network, in the forms in which programs save them."""

import argparse
import json
from collections import OrderedDict
from pathlib import Path

import lightning as L
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from cwx.training.importing.backdoor_test import FOLDER

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
NAMES = ["ant", "bee", "cat"]


def prefixed(prefix, state):
    return OrderedDict((f"{prefix}{name}", tensor) for name, tensor in state.items())


def average(state):
    """Other weights of the same network."""
    return {name: tensor + 1 for name, tensor in state.items()}


def nested(key):
    return lambda network, path: torch.save({key: network.state_dict(), "epoch": 3}, path)


def state_dict(network, path):
    torch.save(network.state_dict(), path)


def training(network, path):
    """What a script of plain torch saves to continue a training."""
    optimizer = torch.optim.Adam(network.parameters())
    value = {
        "epoch": 3,
        "arch": "resnet18",
        "state_dict": prefixed("module.", network.state_dict()),
        "state_dict_ema": average(network.state_dict()),
        "optimizer": optimizer.state_dict(),
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 3).state_dict(),
        "best_acc": torch.tensor(0.9),
    }
    torch.save(value, path)


def namespace(network, path):
    arguments = argparse.Namespace(arch="resnet18", dataset="cifar10", num_classes=3, std=0.02)
    torch.save({"args": arguments, "net": network.state_dict(), "acc": np.float64(0.9)}, path)


class Classifier(L.LightningModule):
    """A network and a loss with weights, as many projects write it."""

    def __init__(self, network, arch="resnet18", num_classes=3):
        super().__init__()
        self.save_hyperparameters(ignore="network")
        self.model = network
        self.criterion = nn.CrossEntropyLoss(weight=torch.ones(3))


def lightning(network, path):
    module = Classifier(network)
    value = {
        "epoch": 1,
        "global_step": 2,
        "pytorch-lightning_version": L.__version__,
        "state_dict": module.state_dict(),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {},
        "optimizer_states": [torch.optim.SGD(module.parameters(), 0.1).state_dict()],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": dict(module.hparams),
    }
    torch.save(value, path)


def averaged_model(network, path):
    torch.save(torch.optim.swa_utils.AveragedModel(network).state_dict(), path)


def parts(network, path):
    """The networks of an attack that trains a generator besides."""
    generator = nn.Linear(2, 2)
    value = {"netC": network.state_dict(), "netG": generator.state_dict(), "epoch_current": 3}
    torch.save(value, path)


def normalized(network, path):
    buffers = {
        "mu": torch.tensor(MEAN).view(1, 3, 1, 1),
        "sigma": torch.tensor(STD).view(1, 3, 1, 1),
    }
    torch.save({**buffers, **network.state_dict()}, path)


def timm_folder(network, path):
    save_file(network.state_dict(), path / "model.safetensors")
    settings = {
        "tag": "a1_in1k", "input_size": [3, 32, 24], "interpolation": "bicubic",
        "crop_pct": 0.95, "mean": MEAN, "std": STD, "num_classes": 1000, "classifier": "fc",
    }  # fmt: skip
    config = {
        "architecture": "resnet18", "num_classes": 3, "num_features": 512,
        "global_pool": "avg", "label_names": NAMES, "pretrained_cfg": settings,
    }  # fmt: skip
    (path / "config.json").write_text(json.dumps(config))


def hugging_face_folder(network, path):
    save_file(network.state_dict(), path / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["ResNetForImageClassification"], "model_type": "resnet",
        "num_channels": 3, "id2label": {str(i): name for i, name in enumerate(NAMES)},
        "label2id": {name: str(i) for i, name in enumerate(NAMES)},
    }  # fmt: skip
    (path / "config.json").write_text(json.dumps(config))
    preprocessor = {
        "do_normalize": True, "do_resize": True, "image_mean": MEAN, "image_std": STD,
        "resample": 3, "size": {"shortest_edge": 224}, "crop_pct": 0.875,
    }  # fmt: skip
    (path / "preprocessor_config.json").write_text(json.dumps(preprocessor))


def container(folder, images, target):
    """The state of a poisoned data set, by the number of each poisoned image and its class."""
    entries = {
        np.int64(i): {"path": f"/home/author/{folder}/{label}/{i}.png",
                      "other_info": [target, np.int64(label)]}
        for i, label in images.items()
    }  # fmt: skip
    return {
        "bd_data_container": {
            "save_folder_path": f"/home/author/{folder}",
            "data_dict": entries,
            "save_file_format": ".png",
        },
        "getitem_all": True,
        "getitem_all_switch": False,
        "original_index_array": np.array(list(images)),
        "poison_indicator": np.ones(len(images)),
        "save_folder_path": f"/home/author/{folder}",
    }


def attack_result(network, path, *, data="cifar10", target=0, images=None, write=True, **changes):
    """A folder as BackdoorBench leaves it: the file, and the poisoned images in folders."""
    images = {4: 1, 7: 2} if images is None else images
    value = {
        "model_name": "preactresnet18",
        "num_classes": 3,
        "model": prefixed("module.", network.state_dict()),
        "data_path": f"./data/{data}",
        "img_size": [32, 32, 3],
        "clean_data": data,
        "bd_train": container("bd_train_dataset", images, target),
        "bd_test": container(FOLDER, images, target),
        **changes,
    }
    torch.save(value, path / "attack_result.pt")
    for number, label in images.items() if write else ():
        file = path / FOLDER / str(label) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (number, label, 0)).save(file)


FILES = {
    "a state_dict": state_dict,
    **{f"under {key}": nested(key) for key in (
        "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights",
        "ema", "any_other_key",
    )},
    "to continue a training": training,
    "beside arguments": namespace,
    "Lightning": lightning,
    "an average by swa_utils": averaged_model,
    "parts of an attack": parts,
    "with a normalisation": normalized,
    "a state_dict in a tuple": lambda n, path: torch.save((n.state_dict(), 3), path),
    "a prefix of torch.compile": lambda n, path: torch.save(
        prefixed("_orig_mod.module.", n.state_dict()), path
    ),
    "a prefix of a backbone": lambda n, path: torch.save(
        prefixed("backbone.", n.state_dict()), path
    ),
    "a prefix of a Sequential": lambda n, path: torch.save(prefixed("1.", n.state_dict()), path),
    "the older format of torch": lambda n, path: torch.save(
        n.state_dict(), path, _use_new_zipfile_serialization=False
    ),
    "safetensors": lambda n, path: save_file(n.state_dict(), path),
}  # fmt: skip
"""How each form writes a network to a file."""

FOLDERS = {
    "timm": timm_folder,
    "Hugging Face": hugging_face_folder,
    "BackdoorBench": attack_result,
}
"""How each form writes a network into an empty folder."""


def pickled_network(network, path):
    torch.save(network, path)


def torchscript(network, path: Path):
    torch.jit.script(network).save(str(path))


def exported(network, path: Path, images):
    torch.export.save(torch.export.export(network.eval(), (images,)), path)
