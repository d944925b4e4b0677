"""Special tokens: places that images fill, requests to the heads, and marks of numbers that a head reads out."""

from cmrvlm.reports.numbers import QUOTABLE, quote

IMAGE = "<IMG>"
SEGMENT = "<SEG>"
DETECT = "<DET>"
ANSWER = "<ANS>"
BEGIN = "<BOS>"
END = "<EOS>"
PAD = "<PAD>"
SPECIAL_TOKENS = (
    PAD,
    BEGIN,
    END,
    IMAGE,
    ANSWER,
    SEGMENT,
    DETECT,
    *(quote(name) for name in QUOTABLE),
)
