"""Write the logits of a run's language model for fixed tokens.

python -m experiments.smollm2.logits <run> <file>
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from cmrvlm.language_model.attention_mask import Layout
from cmrvlm.runs.run_folder import load_run


@torch.no_grad()
def logits_of(run: Path) -> Tensor:
    """Return logits (1, 12, V) of a run for tokens of the base model and added ones."""
    llm = load_run(run).model.llm
    ids = torch.arange(llm.known_tokens - 4, llm.known_tokens + 8)[None]
    lengths = torch.ones(1, dtype=torch.long)
    layout = Layout.of_rows(torch.ones_like(ids, dtype=torch.bool), lengths, lengths * ids.shape[1])
    return llm.logits(llm.hidden(llm.embed(ids), layout))


if __name__ == "__main__":
    torch.save(logits_of(Path(sys.argv[1])), sys.argv[2])
