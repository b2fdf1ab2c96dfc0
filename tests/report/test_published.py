"""A published number stands beside a measured one only where both were measured alike."""

import pytest

from fieldloom.report.published import find_published
from runs import made_up_result, made_up_system

TABLE1 = "mnif:celebahq64-L"
TABLE4 = "mnif:table4-latent64"


def shown(system, result):
    """Key -> the metric that it stands beside, or why it stands beside none."""
    return {x.key: x.metric or x.why_not for x in find_published(system, result)}


def test_held_out_numbers_stand_beside_held_out_ones():
    system = made_up_system(TABLE4)
    assert shown(system, made_up_result(psnr=25.0, rfid=37.0)) == {
        "psnr": "psnr", "rfid": "rfid", "learnable": "learnable",
    }  # fmt: skip
    training = shown(system, made_up_result(part="training", psnr=25.0, rfid=37.0))
    assert training["psnr"] == "of held-out data: here training data are measured"
    given = shown(system, made_up_result(part="given", psnr=25.0))
    assert "these were given" in given["psnr"]


def test_numbers_of_training_data_stand_beside_those_alone():
    system = made_up_system(TABLE1)
    assert "of training data" in shown(system, made_up_result(psnr=30.0))["train.psnr"]
    assert shown(system, made_up_result(part="training", psnr=30.0))["train.psnr"] == "psnr"


def test_a_frechet_distance_never_stands_beside_a_fid():
    system = made_up_system(TABLE1, "evaluate.detector=gabor")
    found = shown(system, made_up_result(frechet=11.0, precision=0.5, recall=0.5))
    assert found["fid"] == "of Inception's features: here of gabor's"
    assert found["precision"] == "of Inception's features: here of gabor's"
    same = shown(made_up_system(TABLE1), made_up_result(fid=14.0))
    assert same["fid"] == "fid"


def test_other_numbers_of_samples_compare_with_none():
    system = made_up_system(TABLE1, "evaluate.samples=100")
    found = shown(system, made_up_result(fid=14.0, psnr=30.0, part="training"))
    assert found["fid"] == "evaluate.samples is not the recipe's"
    assert found["train.psnr"] == "psnr"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("source.split=[100, 10]", "of other data: source.split is not the recipe's"),
        ("modality.size=32", "of other data: modality.size is not the recipe's"),
        ("field.width=32", "of another system: field.width is not the recipe's"),
        ("train.field.steps=10", "psnr"),
        ("source.path=elsewhere", "psnr"),
    ],
)
def test_other_data_and_systems_compare_with_none(override, says):
    found = shown(made_up_system(TABLE4, override), made_up_result(psnr=25.0))
    assert found["psnr"] == says


def test_numbers_of_held_out_views_stand_beside_those():
    system = made_up_system("loe:table3", kind="views", has_code=False, held=1)
    found = shown(system, made_up_result(1, "training", psnr=33.0, novel__psnr=29.0))
    assert found["novel.psnr"] == "novel.psnr"
    system.settings.expected.update({"psnr": 31.46})  # as runs of before have it
    found = shown(system, made_up_result(1, "training", psnr=33.0, novel__psnr=29.0))
    assert found["psnr"] == "novel.psnr"


def test_a_fit_is_measured_on_what_it_was_trained_on():
    system = made_up_system("loe:table1", "modality.size=[4, 4]", has_code=False)
    found = shown(system, made_up_result(1, "training", psnr=40.0, parameters=1e6, macs=1e5))
    assert found == {
        "psnr": "psnr", "parameters": "parameters", "macs": "macs", "ssim": "not measured here",
    }  # fmt: skip


def test_speed_is_of_a_machine_and_some_rows_are_measured_otherwise():
    gasp = shown(
        made_up_system("gasp:shapenet32", kind="shapes"), made_up_result(gmacs=1.1, decoded=9)
    )
    assert gasp["gmacs"] == "of grids of 64^3"
    assert gasp["decoded"] == "of another machine"
    planes = made_up_system("hyperdiffusion:planes", kind="shapes")
    assert "grid of 356" in shown(planes, made_up_result(chamfer__mmd=0.1))["chamfer.mmd"]


def test_a_row_that_is_gone_compares_with_none():
    system = made_up_system(TABLE4)
    system.recipe["recipe"] = "gone:row"
    assert "not there" in shown(system, made_up_result(psnr=25.0))["psnr"]
