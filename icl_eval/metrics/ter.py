"""Translation edit rate (Snover et al., 2006, https://aclanthology.org/2006.amta-papers.25), by sacrebleu."""

from collections.abc import Sequence

import sacrebleu.metrics

from icl_eval.errors import ConfigError
from icl_eval.metrics.local import LocalMetric
from icl_eval.metrics.scoring import Statistics
from icl_eval.metrics.translation import translation_statistics


class TER(LocalMetric):
    """Corpus TER with sacrebleu's signature: edits in a hundred reference words, so lower is better.

    Args:
        normalized: tokenize punctuation and unescape entities first.
        no_punct: remove punctuation.
        asian_support: let both of these treat Chinese, Japanese and Korean characters too.
        case_sensitive: tell upper from lower case.

    Raises:
        ConfigError: `asian_support` without an option that it could have an effect on.
    """

    def __init__(
        self,
        normalized: bool = False,
        no_punct: bool = False,
        asian_support: bool = False,
        case_sensitive: bool = False,
    ) -> None:
        if asian_support and not (normalized or no_punct):
            raise ConfigError("asian_support=true: has no effect without normalized=true or no_punct=true")
        super().__init__("ter", higher_is_better=False)
        self._scorer = sacrebleu.metrics.TER(
            normalized=normalized,
            no_punct=no_punct,
            asian_support=asian_support,
            case_sensitive=case_sensitive,
        )

    def per_example(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
        """Return edits and mean reference length, and sentence TER to show."""
        return translation_statistics(self._scorer, self._scorer, predictions, references)
