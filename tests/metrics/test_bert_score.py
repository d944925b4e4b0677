import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from cmrvlm.errors import CmrvlmError
from cmrvlm.metrics.bert_score import bert_scores, check_bert_model
from tests.metrics.answers import answer


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    """A small random BERT with a word tokenizer."""
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "dilated", "left", "ventricle", "small"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=512,
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def test_bert_score_pairs_texts_of_any_length(bert_folder):
    check_bert_model(str(bert_folder), 2)
    texts = [
        "dilated left ventricle",
        "left",
        "small ventricle " * 400,
        "dilated ventricle small left",
        "ventricle left",
    ]
    same = bert_scores([answer(text, target=text) for text in texts], str(bert_folder), 2)[
        "bert_score_f1"
    ]
    assert same.values == pytest.approx(np.ones(5), abs=1e-4)
    pairs = [(said, truth) for said in texts for truth in texts[:2]]
    values = bert_scores([answer(s, target=t) for s, t in pairs], str(bert_folder), 2)[
        "bert_score_f1"
    ].values
    order = np.random.default_rng(0).permutation(len(pairs))
    shuffled = bert_scores(
        [answer(*pairs[i][:1], target=pairs[i][1]) for i in order], str(bert_folder), 2
    )
    assert shuffled["bert_score_f1"].values == pytest.approx(values[order])
    assert values.min() < 0.999
    assert bert_scores([answer("", target="left")], str(bert_folder), 2)["bert_score_f1"].value == 0


def test_bert_model_that_is_missing_or_too_shallow_is_refused(bert_folder, tmp_path):
    with pytest.raises(CmrvlmError, match=r"bert_score\.path"):
        check_bert_model(str(tmp_path), 2)
    with pytest.raises(CmrvlmError, match=r"bert_score\.layers"):
        check_bert_model(str(bert_folder), 9)
