"""What a model looks at, written down: a few images in one file, or a whole data set in shards."""

from rightreasons.experiments.reveal.index import RevealedMaps
from rightreasons.experiments.reveal.methods import MethodConfig, RevealSettings, read_methods
from rightreasons.experiments.reveal.picture import reveal_picture
from rightreasons.experiments.reveal.sample import Revealed, reveal_images
from rightreasons.experiments.reveal.shards import Storage
from rightreasons.experiments.reveal.summary import Summary, summarize
from rightreasons.experiments.reveal.whole import Conduct, reveal_all

__all__ = [
    "Conduct",
    "MethodConfig",
    "RevealSettings",
    "Revealed",
    "RevealedMaps",
    "Storage",
    "Summary",
    "read_methods",
    "reveal_all",
    "reveal_images",
    "reveal_picture",
    "summarize",
]
