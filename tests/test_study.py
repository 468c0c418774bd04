"""Which experts a study takes, and which rank writes them."""

import pytest
import torch
from conftest import image_data, small_mlp, trainer

from cwx.precision import Precision, Precisions
from cwx.results import Results
from cwx.study import Experts, Study

PLAIN = Precision(trainer="32-true", float32_matmul="highest")
CONFIGURATION = {"procedure": {}, "network": {}, "precision": {"experts": {}}}


class Reached(Exception):
    """Carries the subject that a method was built for."""


def reach(*, subject, **given):
    raise Reached(subject)


def study(store, *trajectories):
    experts = Experts(
        seeds=[0],
        held_out=[],
        judge_seed=0,
        at_once=1,
        trajectories=[str(path) for path in trajectories],
    )
    return Study(
        data=image_data(),
        network=small_mlp,
        judges={},
        procedure=None,
        experts=experts,
        method={"probe": reach},
        evaluation={},
        trainer=trainer,
        precision=Precisions(experts=PLAIN, methods=PLAIN),
        logger={},
        seed=0,
        store=str(store),
    )


def subject_of(made, folder):
    with pytest.raises(Reached) as caught:
        made.run(Results(folder / "run"), CONFIGURATION, experiment="x", resumed=False)
    return caught.value.args[0]


def buffer(path, network, trajectories):
    names = [name for name, _ in network.named_parameters()]
    states = [[t.state(epoch) for epoch in t.recorded] for t in trajectories]
    torch.save([[[s[name] for name in names] for s in expert] for expert in states], path)
    return path


def test_folders_and_buffers_are_taken_in_order(subject, tmp_path):
    first, second = subject.trajectories
    path = buffer(tmp_path / "two.pt", subject.network(), [second, first])
    found = subject_of(study(tmp_path / "store", first.path, path), tmp_path).trajectories
    assert found[0].path == first.path
    assert [t.path.parent for t in found[1:]] == [tmp_path / "store"] * 2
    for recorded, given in zip(found, (first, second, first), strict=True):
        for epoch in range(5):
            a, b = recorded.state(epoch), given.state(epoch)
            assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("entry", ["none.pt", "none"])
def test_a_missing_file_ends_the_study_with_its_name(tmp_path, entry):
    with pytest.raises(ValueError, match=str(tmp_path / entry)):
        study(tmp_path / "store", tmp_path / entry).run(
            Results(tmp_path / "run"),
            CONFIGURATION,
            experiment="x",
            resumed=False,
        )


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(("leads", "order"), [(True, "import, wait"), (False, "wait, import")])
def test_rank_0_imports_before_the_others_look(tmp_path, monkeypatch, leads, order, whole):
    done = []

    def imported(path, network, store):
        done.append("import")
        if not whole:
            raise ValueError(path)
        return []

    class Rank:
        def __init__(self):
            self.leads = leads

        def wait(self):
            done.append("wait")

    monkeypatch.setattr("cwx.study.import_buffer", imported)
    made = study(tmp_path / "store", tmp_path / "a.pt")
    made.data.setup()
    if whole:
        made._recorded(Rank())
    else:
        with pytest.raises(ValueError, match="a.pt"):
            made._recorded(Rank())
    assert ", ".join(done) == order
