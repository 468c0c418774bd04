"""Algorithms of dataset construction for small images."""

from dataclasses import replace

from cwx.functional.attacks import L2, Attack
from cwx.functional.label_noise import Asymmetric, Uniform
from cwx.methods.construction_algorithms import FeatureMatching, TargetedAttack

EPSILON = 0.6
ATTACK = Attack(
    ball=L2(), epsilon=EPSILON, scale=1, step=0.1, steps=20, random_start=False, targeted=True
)
MATCHING = FeatureMatching(layer=None, step=0.1, steps=60)
ALGORITHMS = {
    "matching": MATCHING,
    "random": TargetedAttack(attack=ATTACK, target=Uniform()),
    "next": TargetedAttack(attack=ATTACK, target=Asymmetric(to=None)),
    "from anywhere": TargetedAttack(
        attack=replace(ATTACK, random_start=True), target=Asymmetric(to=None)
    ),
}
