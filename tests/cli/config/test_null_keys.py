"""A class called null in a mapping on the command line is refused with the way to write it."""

import pytest
from support.configurations import CONF

from cwx.cli.config.compose import compose_checked
from cwx.cli.resolvers import register_resolvers
from cwx.errors import UserError

REFUSED = {
    "corruption.kind.to={null: std}": "corruption.kind.to.null=std",
    "corruption.kind.to={cat: dog, NULL: std}": "corruption.kind.to.null=std",
    "corruption={kind: {to: {null: std}}}": "corruption.kind.to.null=std",
    "+data.source.synsets={null: n02121620}": "data.source.synsets.null=n02121620",
    "experts.evaluation_checkpoints={null: a.pt}": "experts.evaluation_checkpoints.null=a.pt",
    "paper=[{null: 1}]": "paper.null=1",
}


def composed(*overrides):
    register_resolvers()
    return compose_checked(
        CONF, ["corruption=label_noise_asymmetric", *overrides], multirun=False, extra=None,
        resumed=None,
    )  # fmt: skip


@pytest.mark.parametrize("line", REFUSED)
def test_a_null_key_is_refused_with_the_setting_that_means_it(line):
    with pytest.raises(UserError) as caught:
        composed(line)
    message = str(caught.value)
    assert message.startswith(f"{line} has the key null")
    assert f"write {REFUSED[line]}, or 'null' in quotes" in message
    assert "\n" not in message


def test_the_remedy_names_the_class():
    assert composed("corruption.kind.to.null=std")["corruption"]["kind"]["to"] == {"null": "std"}


def test_null_values_stay_null():
    assert composed("corruption.kind.to={a: null}")["corruption"]["kind"]["to"] == {"a": None}
