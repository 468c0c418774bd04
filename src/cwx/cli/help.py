"""``--help``: the commands, and the choices of each configuration group.

Hydra's own help composes a configuration for every group, which takes seconds.
"""

import argparse
from collections.abc import Sequence

from cwx.cli.config.groups import configuration_folders, describe_choices
from cwx.cli.parser import program_name

_TEXT = """\
cwx explains what an image classifier has learned about each class.

Run a study:
  {cwx}                                        the quickstart, on scikit-learn's digits
  {cwx} experiment=cifar10/cwx                 a published experiment
  {cwx} experiment=cifar10/cwx scale=small     the same, small enough for two cores
  {cwx} experiment=digits/quickstart method.distill.iterations=500 seed=1
  {cwx} -m experiment=digits/quickstart seed=0,1,2 hydra.launcher.n_jobs=3
  {cwx} resume=runs/digits/quickstart/<time>   continue an interrupted run
  {cwx} -m experiment=digits/quickstart seed=0,1,2 resume=true   or a sweep

Explain a trained network:
  {cwx} inspect model.pt images/               weights, and images in one folder per class
  {cwx} inspect model.pt images/ --bank clean/ the same, and whether it was taught a backdoor

Look before running:
  {cwx} experiment=cifar10/cwx --cfg job       the full configuration
  {cwx} --info searchpath                      the configuration folders

Look afterwards (each has --help):
  {cwx} ls                                     runs: state, settings, metrics
  {cwx} report <folder>                        a page of a run, a sweep or several runs
  {cwx} agreement <folder> answers.json        LC of neurons against people's answers
  {cwx} experts                                trained networks in the store; prune them
  {cwx} experiments                            all experiments, with paper and section

Complete settings, choices and commands with the tab key:
  eval "$({cwx} -sc install=bash)"             bash, zsh; permanently in ~/.bashrc
  {cwx} -sc install=fish | source              fish

Parts of a study: <group>=<choice>, such as network=vgg11. method, evaluation and logger take a
list: evaluation=[fidelity,gallery]. precision is set by stage:
precision@precision.methods=tf32.
{study}

Parts of parts: <group>@<setting>=<choice>, such as attack@recipe.attack=pgd or
canvas@method.iscp.canvas=white. `--cfg job` prints the settings.
{parts}
"""


def help_text(argv: Sequence[str]) -> str:
    """The help, with the choices of a user's ``--config-dir`` as well.

    Raises:
        UserError: that folder does not exist.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config-dir", "-cd")
    folders = configuration_folders(parser.parse_known_args(argv)[0].config_dir)
    study, parts = describe_choices("study", folders), describe_choices("part", folders)
    return _TEXT.format(cwx=program_name(), study=study, parts=parts)
