"""The assembled model: encoders, projectors, language model and heads over one batch of studies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from cmrvlm.encoders.base import Encoder, pictures_at_once
from cmrvlm.errors import CmrvlmError
from cmrvlm.instructions.batch import Media, TextRows
from cmrvlm.instructions.rows import rows_by_series, split_by_length
from cmrvlm.language_model.decoding import Decode, Greedy, Rules
from cmrvlm.language_model.fusion import fill_image_places
from cmrvlm.language_model.network import LanguageModel
from cmrvlm.language_model.packing import arrange
from cmrvlm.language_model.prompts import embed_prompts
from cmrvlm.models.features import Features, MarkIds
from cmrvlm.models.mask_decoder import MaskDecoder
from cmrvlm.models.projector import Projector
from cmrvlm.models.read_out import ReadOut
from cmrvlm.tasks.base import Instruction

_WORTH_A_GROUP = (
    4096  # tokens of padding: a group of prompts is decoded to the end of its own longest answer
)


class CMRVLM(nn.Module):
    """Vision-language model for cardiac MRI.

    Args:
        encoders: Sequence to encoder.
        projectors: Sequence to projector.
        llm: Language model.
        mask_head: Decoder of <SEG> for each sequence that can be segmented.
        read_out: Head over the encoders' tokens, or None.
        ids: Token ids that the model must recognise.
        precision: Numeric precision in which it answers, as `cmrvlm.models.precision` names it.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        projectors: Mapping[str, Projector],
        llm: LanguageModel,
        mask_head: Mapping[str, MaskDecoder],
        read_out: ReadOut | None,
        ids: MarkIds,
        precision: str = "32-true",
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.projectors = nn.ModuleDict(projectors)
        self.llm = llm
        self.mask_head = nn.ModuleDict(mask_head)
        self.read_out = read_out
        self.ids = ids
        self.precision = precision

    @classmethod
    def from_pretrained(cls, run: str | Path) -> CMRVLM:
        """The model of a run folder, in evaluation mode, with exactly the weights that were saved.

        Args:
            run: Folder that training made.
        """
        from cmrvlm.runs.run_folder import (
            load_run,
        )  # the run folder is built from configs, which models never see

        return load_run(Path(run)).model

    def encoder(self, sequence: str) -> Encoder:
        """The encoder of a sequence.

        Raises:
            CmrvlmError: The model was built without it.
        """
        if sequence not in self.encoders:
            raise CmrvlmError(
                f"this model has no encoder for '{sequence}'",
                field=f"encoders.{sequence}",
                remedy=f"It reads {', '.join(self.encoders)}.",
            )
        encoder = self.encoders[sequence]
        assert isinstance(encoder, Encoder)
        return encoder

    def encode(self, media: Mapping[str, list[Media]]) -> Features:
        """Encode each study's images once."""
        stacks = {
            name: [self.encoder(name)(one.images) for one in group] for name, group in media.items()
        }
        tokens = {
            name: [self.encoder(name).tokens_of_series(one.grid) for one in group]
            for name, group in stacks.items()
        }
        head = self.read_out
        summaries = (
            {}
            if head is None
            else {
                name: [head.summarise(name, one) for one in group] for name, group in tokens.items()
            }
        )
        place = {
            (owner, name): (stack, index)
            for name, group in media.items()
            for stack, one in enumerate(group)
            for index, owner in enumerate(one.owners.tolist())
        }
        return Features(stacks, tokens, summaries, place)

    def image_tokens(
        self,
        features: Features,
        instructions: list[Instruction],
        owners: list[int],
        taught: Mapping[str, Tensor] | None = None,
    ) -> list[Tensor]:
        """For each instruction the tokens (n, D) of its views in their order, then what was read of whole series.

        Args:
            features: Encoded studies.
            instructions: R instructions.
            owners: Study of each.
            taught: Outputs (B, size) of the read-out by name that are told in place of what was read, NaN for none.
        """
        width = self.llm.width
        if not features.stacks:
            empty = self.llm.embed(
                torch.zeros(0, dtype=torch.long, device=next(self.parameters()).device)
            )
            return [empty.reshape(0, width) for _ in instructions]
        series = {
            name: [self.projectors[name](one) for one in own]
            for name, own in features.tokens.items()
        }
        parts: list[list[Tensor]] = [[] for _ in instructions]
        wanted: dict[tuple[str, int], list[tuple[int, int, int, int, int]]] = defaultdict(list)
        for row, (instruction, owner) in enumerate(zip(instructions, owners, strict=True)):
            for slot, view in enumerate(instruction.case.views):
                stack, index = features.place[owner, view.sequence]
                if view.whole:
                    parts[row].append(series[view.sequence][stack][index])
                    continue
                parts[row].append(torch.empty(0, width, device=series[view.sequence][stack].device))
                frame = -1 if view.frame is None else view.frame
                part = -1 if view.slice is None else view.slice
                wanted[view.sequence, stack].append((row, slot, index, frame, part))
        for (name, stack), asked in wanted.items():
            grid = features.stacks[name][stack].grid
            at = torch.tensor([one[2:] for one in asked], device=grid.device)  # (m, 3)
            tokens = self.encoder(name).tokens_of_views(grid, at[:, 0], at[:, 1], at[:, 2])
            for (row, slot, *_), one in zip(
                asked, self.projectors[name](tokens, view=True), strict=True
            ):
                parts[row][slot] = one
        self._add_read_outs(parts, features, instructions, owners, taught)
        device = next(self.parameters()).device
        return [torch.cat(own) if own else torch.zeros(0, width, device=device) for own in parts]

    def _add_read_outs(
        self,
        parts: list[list[Tensor]],
        features: Features,
        instructions: list[Instruction],
        owners: list[int],
        taught: Mapping[str, Tensor] | None,
    ) -> None:
        """Behind the images of each row that shows whole series: what the read-out says of them together."""
        sets = rows_by_series(features.place, instructions, owners)
        if self.read_out is None or not sets:
            return
        outputs = self.read_outs(features, list(sets))
        for name, values in (taught or {}).items():
            own = values[[study for study, _ in sets]].to(outputs[name].dtype)
            outputs[name] = torch.where(own.isnan(), outputs[name], own)
        told = self.read_out.tell(outputs, self.llm.embed)  # (S, count, D)
        for rows, one in zip(sets.values(), told, strict=True):
            for row in rows:
                parts[row].append(one.to(parts[row][0].dtype))

    def token_counts(self, name: str) -> tuple[int, int]:
        """Tokens that a series and a view of a sequence become in the text."""
        projector = self.projectors[name]
        assert isinstance(projector, Projector)
        return projector.out_counts

    @property
    def read_out_tokens(self) -> int:
        """Tokens that tell the language model what was read of whole series."""
        return 0 if self.read_out is None else self.read_out.tell.count

    def read(self, rows: TextRows, tokens: list[Tensor]) -> Tensor:
        """Hidden states (R, L, D) of the language model over rows with their image tokens, in float32 as heads are.

        Instructions about the same images are read behind one copy of them where the language model can; what comes out
        is what each row by itself would give.
        """
        packed = arrange(rows, self.llm)
        images = [torch.cat([tokens[row] for row in own]) for own in packed.image_sources]
        embeddings = fill_image_places(
            self.llm.embed(packed.ids), packed.ids, self.ids.image, images
        )
        return (
            self.llm.hidden(embeddings, packed.layout).flatten(0, 1)[packed.flat_positions].float()
        )

    def answer_logits(self, hidden: Tensor, rows: TextRows) -> tuple[Tensor, Tensor]:
        """Logits (K, V) before each answer token, the end token included, and those tokens (K,)."""
        return self.llm.logits(hidden[rows.predicts_answer()]), rows.ids[rows.is_answer()]

    def mask_logits(
        self,
        features: Features,
        hidden: Tensor,
        rows: TextRows,
        instructions: list[Instruction],
        owners: list[int],
    ) -> dict[int, list[Tensor]]:
        """Logits (Z, F, H, W) of the rows that ask for a mask or a box and whose answer holds <SEG> or <DET>.

        In training coarser ones may stand behind them, see `MaskDecoder`. Pixel features are decoded once for each
        study and set of frames, however many structures are asked, and some frames at a time where no gradient is
        wanted: a whole cycle's would not fit into memory.
        """
        boxes = torch.tensor(
            [i.case.mask is not None and i.case.mask.as_box for i in instructions],
            device=hidden.device,
        )
        wanted = torch.where(boxes, self.ids.detect, self.ids.segment)[:, None]
        said = rows.is_answer()
        marks = (rows.ids == wanted) & said
        has_mark = marks.any(dim=1).tolist()
        groups: dict[tuple[str, int, int], list[tuple[int, int, tuple[int, ...]]]] = defaultdict(
            list
        )
        for row, (instruction, owner) in enumerate(zip(instructions, owners, strict=True)):
            target = instruction.case.mask
            if target is not None and has_mark[row] and (owner, target.sequence) in features.place:
                stack, place = features.place[owner, target.sequence]
                groups[target.sequence, stack, len(target.frames)].append(
                    (row, place, target.frames)
                )
        result: dict[int, list[Tensor]] = {}
        for (name, stack, _), asked in groups.items():
            unique = sorted({(place, frames) for _, place, frames in asked})
            decoder = self.mask_head[name]
            assert isinstance(decoder, MaskDecoder)
            at = torch.tensor([place for place, _ in unique], device=hidden.device)[:, None]
            frames = torch.tensor([frames for _, frames in unique], device=hidden.device)  # (G, F)
            which = torch.tensor(
                [unique.index((place, frames)) for _, place, frames in asked], device=hidden.device
            )
            own = torch.tensor([row for row, _, _ in asked], device=hidden.device)
            first = hidden[own, marks[own].float().argmax(dim=1)]  # first mark of each answer
            share = said[own].to(hidden.dtype) / said[own].sum(dim=1, keepdim=True)  # (M, L)
            words = torch.einsum(
                "ml,mld->md", share, self.llm.embed(rows.ids[own]).to(hidden.dtype)
            )
            levels = features.stacks[name][stack].pyramid
            pictures = len(unique) * levels[0].shape[2]  # of a frame
            together = max(
                1, pictures_at_once(pictures * frames.shape[1], *levels[0].shape[4:]) // pictures
            )
            parts = []
            for part in torch.split(frames, together, dim=1):
                # Indexing two axes that a slice divides puts the indexed axes first: (G, F, C, Z, h, w).
                pyramid = [level[at, :, :, part].permute(0, 2, 3, 1, 4, 5) for level in levels]
                parts.append(
                    [
                        decoder(one, which, first, words, boxes[own])
                        for one in decoder.pixels(pyramid)
                    ]
                )
            scales = [torch.cat(scale, dim=2) for scale in zip(*parts, strict=True)]
            result |= {
                row: list(logits) for (row, _, _), *logits in zip(asked, *scales, strict=True)
            }
        return result

    def read_outs(
        self, features: Features, shown: Sequence[tuple[int, Collection[str]]]
    ) -> dict[str, Tensor]:
        """Outputs (K, size) of the read-out by name.

        Args:
            features: Encoded studies.
            shown: For each of K rows the study and the sequences to read; at least one each.
        """
        head = self.read_out
        if head is None or not shown:
            return {}
        sums = []
        for study, sequences in shown:
            where = [(name, *features.place[study, name]) for name in sequences]
            sums.append(
                torch.stack(
                    [features.summaries[name][stack][index] for name, stack, index in where]
                ).sum(dim=0)
            )
        outputs: dict[str, Tensor] = head(sums)
        return outputs

    def generate(
        self,
        tokens: list[Tensor],
        prompts: list[list[int]],
        groups: Sequence[Hashable],
        end_id: int,
        max_new_tokens: int,
        rules: Rules = (),
        decode: Decode | None = None,
    ) -> list[list[int]]:
        """Answers: new token ids for each prompt with its image tokens.

        Args:
            tokens: Image tokens of each prompt.
            prompts: Token ids.
            groups: What images each prompt is about; prompts of a group have the same image tokens.
            end_id: Token that ends an answer.
            max_new_tokens: Longest answer of those whose rule does not say how long it is.
            rules: What each answer may say, None for anything.
            decode: How; None takes the likeliest token each time.
        """
        decode = decode or Greedy()
        answers: list[list[int]] = [[] for _ in prompts]
        for group in split_by_length(
            torch.tensor([len(prompt) for prompt in prompts]), _WORTH_A_GROUP
        ):
            rows = group.tolist()
            asked = embed_prompts(
                self.llm,
                self.ids.image,
                [tokens[r] for r in rows],
                [prompts[r] for r in rows],
                [groups[r] for r in rows],
            )
            new = decode(
                self.llm, asked, end_id, max_new_tokens, [rules[r] for r in rows] if rules else ()
            )
            for row, ids in zip(rows, new, strict=True):
                answers[row] = ids
        return answers
