"""Patch-level evaluation: expression of an unseen donor predicted from patch embeddings."""

from dataclasses import dataclass, field

import numpy as np

from seal.data.pairs import Fold, Pairs
from seal.evaluate.embeddings import Embeddings
from seal.evaluate.methods import Method, find_baselines, find_methods
from seal.files import progress


@dataclass(frozen=True)
class Part:
    """What one score speaks of: a test donor's spots in a fold, and the test genes of their organ."""

    fold: str
    donor: str
    organ: str
    rows: np.ndarray  # positions among the fold's test spots
    columns: np.ndarray  # positions among the fold's test genes

    def take(self, values: np.ndarray) -> np.ndarray:
        """Take the part's spots and genes of a matrix [test spots, test genes]."""
        return values[np.ix_(self.rows, self.columns)]


def parts(pairs: Pairs, fold: Fold) -> list[Part]:
    """List the fold's test donors, in order of name; a donor of several organs is one part for each."""
    panel = pairs.panel(fold)
    donors, organs = (pairs.per_spot(name)[fold.test] for name in ("donor", "organ"))
    return [
        Part(fold.name, donor, organ, np.flatnonzero((donors == donor) & (organs == organ)), panel.scored(organ))
        for donor, organ in sorted(set(zip(donors.tolist(), organs.tolist(), strict=True)))
    ]


@dataclass
class Evaluation:
    """Predictions of one profile, made when they are asked for; `seal.evaluate.scoring` makes the tables from them."""

    pairs: Pairs
    embeddings: Embeddings  # read, never made: see `embed_all`
    methods: tuple[Method, ...] = ()  # in the order of the results' rows; by default all that `find_methods` gives
    reference: str = "frozen"  # name of the method that all others are compared with
    # (method, fold, seed) -> predicted expression of the test genes of all organs, [test spots, test genes]
    predictions: dict[tuple[str, str, int], np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.methods = self.methods or find_methods(self.pairs)

    def folds(self) -> tuple[Fold, ...]:
        """Give the folds that are evaluated."""
        return self.pairs.folds()

    def run(self) -> "Evaluation":
        """Predict with every method, fold and seed; what reads predictions asks for it if nobody has."""
        settings = self.pairs.profile.evaluation
        jobs = [(f, method, seed) for f in self.folds() for method in self.methods for seed in method.seeds(settings)]
        with progress("predictions", len(jobs), "run") as advance:
            for fold, method, seed in jobs:
                embedding = method.embedding and self.embeddings.read(method.embedding, fold.name, seed)
                self.predictions[method.name, fold.name, seed] = method.predict(self.pairs, fold, embedding, seed)
                advance(note=f"{method.name} {fold.name} seed {seed}")
        return self

    def runs(self, method: str, fold: str) -> list[tuple[int, np.ndarray]]:
        """List seeds and predictions of one method on one fold; the first call predicts, see `run`."""
        if not self.predictions:
            self.run()
        return [(s, p) for (m, f, s), p in self.predictions.items() if (m, f) == (method, fold)]


@dataclass
class Baselines(Evaluation):
    """Predictions of methods made to predict expression, beside the encoder's and SEAL's, on the trial folds."""

    methods: tuple[Method, ...] = field(default_factory=find_baselines)

    def folds(self) -> tuple[Fold, ...]:
        """Give the first folds, as many as the profile says."""
        return self.pairs.trial_folds()
