"""Prose from a seed: fast to make, and of a compressibility that is known.

zstd level 1 packs pages full of it about 2.5:1. It comes from a stock of sentences so large
that a repetition seldom falls into zstd's window, so the ratio does not depend on the size.
"""

from dataclasses import dataclass
from random import Random

_CONSONANTS, _VOWELS = "bcdfghjklmnprstvw", "aeiou"
_WORDS = 20_000
_SENTENCES = 150_000
_WORDS_IN_SENTENCE = (6, 7, 8, 9, 10, 11, 12, 13, 14)


@dataclass(frozen=True, slots=True)
class Prose:
    """An endless supply of text; two of one seed say the same."""

    random: Random
    sentences: tuple[str, ...]

    def title(self) -> str:
        return self.random.choice(self.sentences)[:60].rstrip(" .")

    def text(self, sentences: int) -> str:
        return " ".join(self.random.choices(self.sentences, k=sentences))


def make_prose(seed: int, sentences: int = _SENTENCES) -> Prose:
    random = Random(seed)  # noqa: S311 - repeatable text, not a secret
    words = [_word(random) for _ in range(_WORDS)]
    # Few words are frequent and most are rare, as in a language (Zipf).
    weights = [1 / (rank + 1000) for rank in range(_WORDS)]
    lengths = random.choices(_WORDS_IN_SENTENCE, k=sentences)
    flow = iter(random.choices(words, weights, k=sum(lengths)))
    made = (" ".join(next(flow) for _ in range(length)).capitalize() + "." for length in lengths)
    return Prose(random, tuple(made))


def _word(random: Random) -> str:
    syllables = random.choice((1, 2, 2, 3, 3, 4))
    return "".join(
        random.choice(_CONSONANTS) + random.choice(_VOWELS) + random.choice(("", "", "n", "r", "s"))
        for _ in range(syllables)
    )
