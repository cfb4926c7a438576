"""What others have published, each a short class on the profile's encoder; `BASELINES` has all that are trained.

Those on the encoder's last blocks have SEAL's adapter, tokens, batches and schedule, whatever their authors took: what
differs is the method. Layers that give expression are trained in units of each gene's sd, as SEAL's decoder is. They
learn the spots' context, as SEAL does; those that look training spots up give the mean of the spots' own expression.
"""

from seal.models.baselines.deepspot import DeepSpot
from seal.models.baselines.pathomclip import PathOmClip, PathOmClipSpatial
from seal.models.baselines.regression import NoExpression, StNet
from seal.models.baselines.retrieval import Bleep, MclStExp
from seal.models.baselines.triplex import Triplex

VERSION = 1  # counted up when the same inputs and settings give a baseline other weights
BASELINES = {
    "stnet": StNet,
    "bleep": Bleep,
    "pathomclip": PathOmClip,
    "pathomclip_spatial": PathOmClipSpatial,
    "mclstexp": MclStExp,
    "triplex": Triplex,
    "deepspot": DeepSpot,
    "no_expression": NoExpression,
}
