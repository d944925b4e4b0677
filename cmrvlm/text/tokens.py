"""Special tokens: places that images fill, and requests to the heads."""

IMAGE = "<IMG>"
SEGMENT = "<SEG>"
DETECT = "<DET>"
ANSWER = "<ANS>"
BEGIN = "<BOS>"
END = "<EOS>"
PAD = "<PAD>"
SPECIAL_TOKENS = (PAD, BEGIN, END, IMAGE, ANSWER, SEGMENT, DETECT)
