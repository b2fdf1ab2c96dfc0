"""What a report says of metrics that are given."""

from dataclasses import replace

import pytest
import torch

from fieldloom.report.published import Published
from fieldloom.report.questions import answer_questions
from runs import made_up_result, made_up_system


def answers(system, result, published=(), seconds=None):
    return {x.question: x for x in answer_questions(system, result, published, seconds)}


def test_a_system_that_samples_is_asked_everything():
    result = made_up_result(
        359, samples=640, psnr=20.03, ssim=0.95, frechet=11.6, precision=0.6766, recall=0.0097,
        novelty=0.977, agreement=0.973, agreement__test=0.989, decoded=2500.0, gmacs=0.1,
    )  # fmt: skip
    found = answers(made_up_system("mnif:digits"), result, seconds=103.7)
    assert list(found) == ["reconstruction", "samples", "copies", "cost"]
    assert found["reconstruction"].sentence == (
        "359 held-out pictures come back with an error of 10 % of the values' range (20.0 dB PSNR)."
    )
    assert found["samples"].sentence == (
        "67.7 % of 640 samples lie among the pictures (precision), and 0.97 % of the pictures lie "
        "among the samples (recall), by the features of gabor; a classifier sees the class that "
        "was asked for in 97.3 % of samples, as it does with 98.9 % of held-out pictures."
    )
    assert "0.98 times as far from its nearest training picture" in found["copies"].sentence
    assert found["cost"].sentence == (
        "1,000 learned parameters, trained in 1 min 44 s, 0.4 ms to draw one picture "
        "(CPU, 1 thread)."
    )
    frechet, precision, *_ = found["samples"].figures
    assert (frechet.name, frechet.value, frechet.arrow, frechet.note) == (
        "frechet", "11.6", "↓", "gabor",
    )  # fmt: skip
    assert (precision.arrow, precision.better) == ("↑", "higher")
    assert found["reconstruction"].caution == ""


def test_held_out_data_of_other_classes_are_no_measure_of_copies():
    """Of the demo's letters: some were held out, of which the prior samples none."""
    result = made_up_result(48, samples=100, nearest__sample=3.409)
    system = made_up_system("mnif:letters")
    says = "lies 3.41 from its nearest training picture; no pictures"
    assert f"{says} were held out" in answers(system, result)["copies"].sentence
    result = replace(result, sample_labels=torch.zeros(100, dtype=torch.int64))
    assert f"{says} of these classes were held out" in answers(system, result)["copies"].sentence


def test_a_novelty_of_about_one_keeps_its_zero():
    found = answers(made_up_system("mnif:digits"), made_up_result(50, samples=50, novelty=1.04))
    assert "lies 1.0 times as far from its nearest" in found["copies"].sentence


def test_few_data_are_said():
    found = answers(made_up_system("mnif:chairs32", kind="shapes"), made_up_result(8, iou=0.5))
    assert found["reconstruction"].caution == ("8 held-out shapes: the second digit means nothing.")


def test_few_data_that_samples_are_compared_with_are_said():
    result = made_up_result(100, samples=500, precision=0.5, recall=0.5)
    few = [m._replace(of="500 images of 500 samples, 22 training images") for m in result.metrics]
    found = answers(made_up_system("mnif:digits"), replace(result, metrics=few))
    assert found["samples"].caution == "22 training images: the second digit means nothing."


def test_a_fit_is_asked_for_its_reconstruction_and_its_cost():
    system = made_up_system("fit:image", has_code=False, generates=False)
    found = answers(system, made_up_result(1, "training", psnr=40.0))
    assert list(found) == ["reconstruction", "cost"]
    assert found["reconstruction"].sentence.startswith(
        "The picture comes back with an error of 1 %"
    )
    assert found["reconstruction"].caution == ""


@pytest.mark.parametrize(
    ("name", "kind", "values", "says"),
    [
        ("fit:audio", "audio", {"snr": 20.0}, "The sound comes back with an error of 1 % of its"),
        ("fit:video", "video", {"psnr": 20.0}, "The video comes back"),
        ("fit:mesh", "shapes", {"mesh__chamfer": 0.0025}, "lies 0.25 % of its longest side beside"),
        ("fit:scene", "views", {"psnr": 30.0, "novel__psnr": 20.0},
         "Views of the scene that it was not shown are drawn with an error of 10 %"),
    ],
)  # fmt: skip
def test_every_kind_has_its_words(name, kind, values, says):
    system = made_up_system(name, kind=kind, has_code=False, generates=False, held=kind == "views")
    found = answers(system, made_up_result(1, "training", **values))
    assert says in found["reconstruction"].sentence


def test_held_out_views_are_shown_and_seen_ones_are_not():
    system = made_up_system("fit:scene", kind="views", has_code=False, generates=False, held=1)
    result = made_up_result(1, "training", psnr=33.0, novel__psnr=20.0, novel__ssim=0.8)
    published = [Published("novel.psnr", 31.46, "novel.psnr")]
    figures = answers(system, result, published)["reconstruction"].figures
    assert [(x.name, x.published) for x in figures] == [
        ("novel.psnr", "31.46"), ("novel.ssim", ""),
    ]  # fmt: skip


def test_free_space_stands_beside_held_out_views():
    result = made_up_result(1, "training", psnr=33.0, novel__psnr=20.0, free__density=0.39)
    system = made_up_system("fit:scene", kind="views", has_code=False, generates=False, held=1)
    figures = answers(system, result)["reconstruction"].figures
    assert [figure.name for figure in figures] == ["novel.psnr", "free.density"]


def test_what_was_not_measured_of_samples_is_said():
    system = made_up_system("mnif:srncars", kind="views")
    found = answers(system, made_up_result(40, samples=50, novel__psnr=20.0))
    assert found["samples"].sentence.startswith("Not measured")
    assert found["copies"].sentence.startswith("Not measured")


def test_a_gan_is_not_asked_whether_it_reconstructs():
    system = made_up_system("gasp:celebahq64", encodes=False)
    found = answers(system, made_up_result(1, samples=100, frechet=5.0))
    assert list(found) == ["samples", "copies", "cost"]
    assert "a Frechet distance of 5 from the pictures" in found["samples"].sentence


def test_enlargement():
    values = {
        "psnr__x1": 30.0, "psnr__x8": 25.2, "psnr__x8__bicubic": 18.0, "psnr__x8__pixels": 20.5,
        "ssim__x8": 0.9,
    }  # fmt: skip
    found = answers(made_up_system("mnif:digits"), made_up_result(100, psnr=30.0, **values))
    assert found["enlargement"].sentence == (
        "At 8 times the size, drawings have 25.2 dB PSNR against the truth; bicubic enlargement of "
        "the data has 18, a network on pixels has 20.5."
    )
    assert [x.name for x in found["reconstruction"].figures] == ["psnr"]


def test_numbers_that_are_none_are_left_out():
    result = made_up_result(40, samples=40, psnr=20.0, chamfer=float("inf"), novelty=float("nan"))
    found = answers(made_up_system("mnif:chairs32", kind="shapes"), result)
    assert [x.name for x in found["reconstruction"].figures] == ["psnr"]
    assert found["copies"].sentence.startswith("Not measured")
