"""What ``evaluate`` prints: the report's answers, and with ``--all`` every figure."""

from fieldloom.cli.measuring import print_answers, print_metrics
from fieldloom.evaluation.costs import COLUMNS, USUAL, cost_row
from fieldloom.report.published import Published
from fieldloom.report.questions import answer_questions
from runs import made_up_result, made_up_system


def test_answers_are_printed_with_their_few_numbers(capsys):
    result = made_up_result(9, psnr=20.0, mse=0.01, encoder=64.0)
    published = [Published("psnr", 25.9, "psnr")]
    print_answers(answer_questions(made_up_system("mnif:digits"), result, published, 12.0))
    said = capsys.readouterr().out
    assert "Does it reconstruct? 9 held-out pictures come back with an error of 10 %" in said
    assert "the second digit means nothing" in said
    assert "higher is better" in said
    assert "25.9" in said
    assert "encoder" not in said
    print_answers(answer_questions(made_up_system("mnif:digits"), result, [], None))
    assert "published" not in capsys.readouterr().out
    print_metrics(result.metrics)
    assert "encoder" in capsys.readouterr().out


def test_cost_compares_what_is_printed_of_a_row():
    row = cost_row("loe:table2-siren", "cpu", timed=False)
    assert row["macs"] == {"ours": 263680.0, "published": 0.26e6}
    assert row["parameters"] == {"ours": 264963.0, "published": 265e3}
    transformer = cost_row("ipc:celeba178", "cpu", timed=False)
    assert transformer["parameters"] == {"ours": 43746307.0, "published": 43746307}
    assert set(USUAL) < set(COLUMNS)
