"""Which process of a job this one is."""

import pytest

from fieldloom.engine.ranks import ALONE, Place, find_place
from fieldloom.errors import InputError

TORCHRUN = Place(1, 4, 1, "10.0.0.1", 29500).environment()
SLURM = {
    "SLURM_PROCID": "9", "SLURM_STEP_NUM_TASKS": "16", "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "gpu[03-05,9],big1", "SLURM_JOB_ID": "77", "SLURM_STEP_ID": "2",
}  # fmt: skip


def test_place_in_a_job_of_torchrun_or_slurm():
    assert find_place(TORCHRUN) == Place(1, 4, 1, "10.0.0.1", 29500)
    assert find_place(SLURM) == Place(9, 16, 1, "gpu03", 20000 + 77 * 64 + 2)
    assert find_place(SLURM | {"SLURM_STEP_NODELIST": "node7,node8"}).address == "node7"
    assert find_place(SLURM | TORCHRUN).processes == 4  # torchrun within a SLURM job


@pytest.mark.parametrize(
    "environment", [{}, {"RANK": "0"}, TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1"}]
)
def test_a_process_alone_has_no_place(environment):
    assert find_place(environment) is None


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (TORCHRUN | {"RANK": "4"}, "process 4 of 4: numbers begin with 0"),
        (TORCHRUN | {"MASTER_PORT": "x"}, "not all of a job"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "LOCAL_RANK"),
        (SLURM | {"SLURM_STEP_NODELIST": ""}, "SLURM_STEP_NODELIST"),
    ],
)
def test_half_an_environment_is_one_sentence(environment, message):
    with pytest.raises(InputError, match=message):
        find_place(environment)


def test_micro_batches_are_shared_out_once_each():
    teams = [ALONE.__class__(rank, 3) for rank in range(3)]
    for number in range(8):
        assert [team.own(number) for team in teams].count(True) == 1
    assert all(ALONE.own(number) for number in range(8))
    assert ALONE.share({"a": 1}) == {"a": 1}
