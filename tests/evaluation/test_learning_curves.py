"""Learning curves of run folders."""

from fieldloom.evaluation.learning_curves import learning_curve


def test_a_learning_curve_has_only_lines_with_psnr():
    log = [
        {"stage": "field", "step": 10, "psnr": 12.0, "seconds_a_step": 0.5},
        {"stage": "field", "step": 20, "loss": 1.0, "seconds_a_step": 0.5},
        {"stage": "field", "step": 30, "psnr": 15.0, "seconds_a_step": 0.4},
        {"stage": "prior", "step": 10, "psnr": 99.0, "seconds_a_step": 0.5},
    ]
    assert learning_curve(log) == ([10, 30], [5.0, 12.0], [12.0, 15.0])
