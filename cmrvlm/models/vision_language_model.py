"""Assemble encoders, projectors, language model and heads into one network over a batch of studies."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence

import torch
from torch import Tensor, nn

from cmrvlm.encoders.base import Encoder
from cmrvlm.errors import CmrvlmError
from cmrvlm.instructions.batch import Media, TextRows
from cmrvlm.instructions.question import Question
from cmrvlm.instructions.rows import rows_by_shown_set, split_by_length
from cmrvlm.language_model.decoding import Decode, Greedy, Rules
from cmrvlm.language_model.fusion import fill_image_places
from cmrvlm.language_model.network import LanguageModel
from cmrvlm.language_model.packing import arrange
from cmrvlm.language_model.prompts import embed_prompts
from cmrvlm.models.features import Features, Location, MarkIds, ReadRows
from cmrvlm.models.image_tokens import tokens_of_views
from cmrvlm.models.mask_decoder import MaskDecoder
from cmrvlm.models.mask_queries import decode_masks
from cmrvlm.models.projector import Projector
from cmrvlm.models.read_out import ReadOut

# Padding in tokens that a second group of prompts must save: each group is decoded to the end of its longest answer.
_WORTH_A_GROUP = 4096


class VisionLanguageModel(nn.Module):
    """Vision-language network for cardiac MRI.

    Args:
        encoders: Sequence to encoder.
        projectors: Sequence to projector.
        llm: Language model.
        mask_head: Decoder of <SEG> for each sequence that can be segmented.
        read_out: Head over the encoders' tokens, or None.
        ids: Token ids that the network must recognise.
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

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device

    @property
    def read_out_tokens(self) -> int:
        """Tokens that tell the language model the read-outs of whole series."""
        return 0 if self.read_out is None else self.read_out.tell.count

    def token_counts(self, sequence: str) -> tuple[int, int]:
        """Return the numbers of tokens that a series and a view of a sequence become in the text."""
        projector = self.projectors[sequence]
        assert isinstance(projector, Projector)
        return projector.out_counts

    def encoder(self, sequence: str) -> Encoder:
        """Return the encoder of a sequence.

        Raises:
            CmrvlmError: The network was built without it.
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

    def forward(
        self,
        media: Mapping[str, list[Media]],
        rows: TextRows,
        questions: Sequence[Question],
        owners: Sequence[int],
        told_read_outs: Mapping[str, Tensor] | None = None,
    ) -> ReadRows:
        """Encode studies and read rows of text about them. Heads take it from there.

        Args:
            media: Sequence to stacks of images.
            rows: R rows of token ids.
            questions: Question of each row.
            owners: Index of the study of each row.
            told_read_outs: Read-out to values (B, size) that the language model is told in place of those
                that were read, NaN for none.
        """
        features = self.encode(media)
        tokens = self.image_tokens(features, questions, owners, told_read_outs)
        return ReadRows(features, self.read(rows, tokens), rows, questions, owners)

    def encode(self, media: Mapping[str, list[Media]]) -> Features:
        """Encode each study's images once.

        Args:
            media: Sequence to stacks of images.
        """
        features = Features(stacks={}, tokens={}, summaries={}, locations={})
        for name, stacks in media.items():
            encoder = self.encoder(name)
            encoded = [encoder(stack.images) for stack in stacks]
            features.stacks[name] = encoded
            features.tokens[name] = [encoder.tokens_of_series(stack.grid) for stack in encoded]
            if self.read_out is not None:
                features.summaries[name] = [
                    self.read_out.summarise(name, tokens) for tokens in features.tokens[name]
                ]
            for stack_index, stack in enumerate(stacks):
                for index, owner in enumerate(stack.owners.tolist()):
                    features.locations[owner, name] = Location(stack_index, index)
        return features

    def image_tokens(
        self,
        features: Features,
        questions: Sequence[Question],
        owners: Sequence[int],
        told_read_outs: Mapping[str, Tensor] | None = None,
    ) -> list[Tensor]:
        """Return for each question the tokens (n, D) of its views, then those of the read-outs.

        Args:
            features: Encoded studies; without any, as for questions about text alone, no tokens come back.
            questions: R questions.
            owners: Index of the study of each question.
            told_read_outs: See `forward`.
        """
        if not features.stacks:
            no_ids = torch.zeros(0, dtype=torch.long, device=self.device)
            no_tokens = self.llm.embed(no_ids).reshape(0, self.llm.width)
            return [no_tokens for _ in questions]
        parts = tokens_of_views(features, self.encoders, self.projectors, questions, owners)
        self._append_read_outs(parts, features, questions, owners, told_read_outs)
        nothing = torch.zeros(0, self.llm.width, device=self.device)
        return [torch.cat(row) if row else nothing for row in parts]

    def _append_read_outs(
        self,
        parts: list[list[Tensor]],
        features: Features,
        questions: Sequence[Question],
        owners: Sequence[int],
        told_read_outs: Mapping[str, Tensor] | None,
    ) -> None:
        """Append to the tokens of each row that shows whole series those of their read-outs."""
        shown_sets = rows_by_shown_set(features, questions, owners)
        if self.read_out is None or not shown_sets:
            return
        outputs = self.read_outs(features, list(shown_sets))
        studies = [study for study, _ in shown_sets]
        for name, values in (told_read_outs or {}).items():
            told = values[studies].to(outputs[name].dtype)
            outputs[name] = torch.where(told.isnan(), outputs[name], told)
        tokens = self.read_out.tell(outputs, self.llm.embed)  # (S, count, D)
        for rows, of_set in zip(shown_sets.values(), tokens, strict=True):
            for row in rows:
                parts[row].append(of_set.to(parts[row][0].dtype))

    def read(self, rows: TextRows, tokens: list[Tensor]) -> Tensor:
        """Return hidden states (R, L, D) of the language model, in float32 as heads are.

        Rows about the same images are read behind one copy of them where the language model can; what
        comes out is what each row by itself would give.

        Args:
            rows: R rows of L token ids.
            tokens: Image tokens (n, D) of each row.
        """
        packed = arrange(rows, self.llm)
        images = [torch.cat([tokens[row] for row in group]) for group in packed.image_sources]
        embeddings = fill_image_places(
            self.llm.embed(packed.ids), packed.ids, self.ids.image, images
        )
        return (
            self.llm.hidden(embeddings, packed.layout).flatten(0, 1)[packed.flat_positions].float()
        )

    def answer_logits(self, hidden: Tensor, rows: TextRows) -> tuple[Tensor, Tensor]:
        """Return logits (K, V) before each answer token, end included, and those tokens (K,).

        Args:
            hidden: (R, L, D) hidden states.
            rows: The R rows.
        """
        return self.llm.logits(hidden[rows.predicts_answer()]), rows.ids[rows.is_answer()]

    def mask_logits(self, reading: ReadRows) -> dict[int, list[Tensor]]:
        """Return logits (Z, F, H, W) of the rows whose answer asks for a mask or a box.

        See `cmrvlm.models.mask_queries.decode_masks`.
        """
        decoders = {}
        for name, decoder in self.mask_head.items():
            assert isinstance(decoder, MaskDecoder)
            decoders[name] = decoder
        return decode_masks(reading, self.ids, decoders, self.llm.embed)

    def read_outs(
        self, features: Features, shown: Sequence[tuple[int, Collection[str]]]
    ) -> dict[str, Tensor]:
        """Return the read-outs (K, size) by name; empty without a head.

        Args:
            features: Encoded studies.
            shown: K pairs of a study and the sequences to read, at least one each.
        """
        if self.read_out is None or not shown:
            return {}
        sums = []
        for study, sequences in shown:
            summaries = [features.summary(study, name) for name in sequences]
            sums.append(torch.stack(summaries).sum(dim=0))
        outputs: dict[str, Tensor] = self.read_out(sums)
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
        """Generate answers and return the new token ids of each prompt.

        Args:
            tokens: Image tokens of each prompt.
            prompts: Token ids.
            groups: Images that each prompt is about; prompts of a group have the same image tokens.
            end_id: Token that ends an answer.
            max_new_tokens: Longest answer of those whose rule does not say how long it is.
            rules: Rule of each answer, None for anything.
            decode: Way of decoding; None takes the likeliest token each time.
        """
        decode = decode or Greedy()
        answers: list[list[int]] = [[] for _ in prompts]
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        for group in split_by_length(lengths, _WORTH_A_GROUP):
            chosen = group.tolist()
            embeddings = embed_prompts(
                self.llm,
                self.ids.image,
                [tokens[row] for row in chosen],
                [prompts[row] for row in chosen],
                [groups[row] for row in chosen],
            )
            chosen_rules = [rules[row] for row in chosen] if rules else ()
            generated = decode(self.llm, embeddings, end_id, max_new_tokens, chosen_rules)
            for row, ids in zip(chosen, generated, strict=True):
                answers[row] = ids
        return answers
