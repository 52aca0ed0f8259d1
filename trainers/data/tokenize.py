"""WordPiece tokenisation on all cores, id for id what Transformers' BertTokenizerFast gives.

PaddleNLP's own tokenizer differs in one thing: it also splits words at signs that are not punctuation, such as a free-standing acute
accent; BERT was not trained so.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence

import numpy as np

from trainers.data.vocabulary import CONTINUATION_PREFIX, SPECIAL_TOKENS, Vocabulary

MAX_WORD_CHARACTERS = 100
"""Longer words become [UNK], as in Google's code."""


class Tokenizer:
    """Text to token ids, without special tokens and without truncation.

    Lower-casing also strips accents; Chinese characters are split from each other; control characters are dropped. As in
    Transformers, the literal texts [CLS], [SEP], [MASK], [PAD] and [UNK] in a text become those tokens.
    """

    def __init__(self, vocabulary: Vocabulary, lower_case: bool) -> None:
        # read when the library starts its threads; without it a fork somewhere above would silently cost all but one core
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        import tokenizers
        from tokenizers import models, normalizers, pre_tokenizers

        self.vocabulary = vocabulary
        self.lower_case = lower_case
        self.library_version: str = tokenizers.__version__
        model = models.WordPiece(
            dict(vocabulary.ids),
            unk_token="[UNK]",  # noqa: S106 - no password
            max_input_chars_per_word=MAX_WORD_CHARACTERS,
            continuing_subword_prefix=CONTINUATION_PREFIX,
        )
        self._tokenizer = tokenizers.Tokenizer(model)
        self._tokenizer.normalizer = normalizers.BertNormalizer(
            clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=lower_case
        )
        self._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._tokenizer.add_special_tokens(list(SPECIAL_TOKENS))

    def encode(self, text: str) -> np.ndarray:
        """Token ids of one text, int32."""
        ids, _ = self.encode_batch([text])
        return ids.astype(np.int32)

    def encode_batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(token ids of all texts one after another, uint32; tokens of each text, int64)."""
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        ids = np.fromiter(itertools.chain.from_iterable(rows), dtype=np.uint32, count=int(lengths.sum()))
        return ids, lengths
