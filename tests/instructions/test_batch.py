import pytest
import torch

from cmrvlm.instructions.batch import TextRows


@pytest.fixture
def rows():
    """Begin, two of the question and two of the answer; begin, one of the question and one of the answer, padding."""
    return TextRows(
        ids=torch.tensor([[1, 11, 12, 13, 14], [1, 21, 22, 0, 0]]),
        groups=torch.tensor([0, 1]),
        image_lengths=torch.tensor([1, 1]),
        prompt_lengths=torch.tensor([3, 2]),
        lengths=torch.tensor([5, 3]),
    )


def test_answer_tokens_by_hand(rows):
    assert rows.answer_lengths.tolist() == [2, 1]
    assert rows.is_token().int().tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert rows.is_answer().int().tolist() == [[0, 0, 0, 1, 1], [0, 0, 1, 0, 0]]
    assert rows.ids[rows.is_answer()].tolist() == [13, 14, 22]


def test_each_answer_token_is_predicted_one_position_before(rows):
    assert rows.predicts_answer().int().tolist() == [[0, 0, 1, 1, 0], [0, 1, 0, 0, 0]]
    assert rows.ids[rows.predicts_answer()].tolist() == [12, 13, 21]
