import contextlib

import pytest
import torch

from cwx.training.precision import Precision


@pytest.mark.parametrize("wanted", ["highest", "high", "medium"])
def test_the_global_precision_is_restored(wanted):
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with (
        contextlib.suppress(KeyError),
        Precision(trainer="32-true", float32_matmul=wanted).activate(),
    ):
        assert torch.get_float32_matmul_precision() == wanted
        assert torch.backends.cudnn.allow_tf32 == (wanted != "highest")
        raise KeyError
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="'low': give one of highest, high, medium"):
        Precision(trainer="32-true", float32_matmul="low")
