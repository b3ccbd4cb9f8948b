"""What transformers attend to."""

from rightreasons.attribution.transformer.maps import Attended, attended
from rightreasons.attribution.transformer.relevance import AttentionMethod, AttentionRollout, CheferRelevance

__all__ = ["Attended", "AttentionMethod", "AttentionRollout", "CheferRelevance", "attended"]
