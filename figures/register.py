"""The register: all 9 figures and 54 tables of the paper, as data.

The paper's own captions of F1-F3, E1 and E2 are public, and these entries follow them in our words; what the
other entries hold is our choice.
"""

from dataclasses import dataclass

ALL = ("demo", "her2st", "maple")
SLIDES = ("demo", "maple")  # simulated slides, or real ones
OFFICIAL = ("maple",)
ENCODERS = ("CONCH", "H0-mini", "Phikon-v2", "UNI2-h", "Virchow2")

OVERVIEW, DATASET = "00_overview", "01_dataset"
PATCH, SLIDE, ROBUST, RETRIEVAL = "04_patch_level", "05_slide_level", "06_robustness", "07_retrieval"


@dataclass(frozen=True)
class Artefact:
    """One figure or table of the paper.

    Attributes
    ----------
    notebook
        The notebook that makes its results.
    results
        Names of the tidy tables it is drawn from; the drawing function takes them by these names.
    instead
        A table that replaces all of `results` where it is there.
    profiles
        Profiles that can produce it.
    caption_source
        "paper" if the paper's caption is public, else "our choice".
    draw
        A function of `figures` (figures) or `figures.T01_T08_data` (tables); None: not there yet, see `lacks`.
    panels, drawn
        A figure's panels, and those that `draw` draws.
    lacks
        What is missing: for the profiles that cannot produce it, or, without `draw`, for anyone.
    """

    id: str
    title: str
    caption: str
    notebook: str
    results: tuple[str, ...] = ()
    instead: str | None = None
    profiles: tuple[str, ...] = ALL
    caption_source: str = "our choice"
    draw: str | None = None
    panels: str = ""
    drawn: str = ""
    lacks: str = ""

    @property
    def kind(self) -> str:
        """Either "figure" or "table"."""
        return "table" if self.id.startswith("T") else "figure"


def _later(id: str, title: str, caption: str, notebook: str, profiles=ALL, lacks: str = "", **more) -> Artefact:
    """An entry whose results no notebook makes yet."""
    waits = lacks or f"notebook {notebook} does not make its results yet"
    return Artefact(id, title, caption, notebook, profiles=profiles, lacks=waits, **more)


def _series(first: int, titles: list[str], caption: str, notebook: str, profiles=ALL, lacks="") -> list[Artefact]:
    """Tables of one kind, numbered upwards."""
    return [_later(f"T{first + i}", t, caption, notebook, profiles, lacks) for i, t in enumerate(titles)]


FIGURES = [
    Artefact(
        "F1",
        "Overview of SEAL",
        "A, what image encoders learn from, and the local molecular detail that is missing there. B, image-"
        "expression pairs by organ and disease state. C, the two stages: SEAL-omics learns to reconstruct "
        "expression; SEAL-vision, a frozen encoder with low-rank adapters, is aligned with it and predicts the "
        "gene panel. D, what the encoder is used for afterwards. A, C and D are our own drawings.",
        DATASET,
        ("samples",),
        instead="hest_metadata",
        caption_source="paper",
        draw="overview_figure",
        panels="ABCD",
        drawn="ABCD",
    ),
    _later(
        "F2",
        "Slide-level performance",
        "A, five encoders with and without SEAL over 38 slide-level tasks, features pooled by ABMIL. B, SEAL "
        "against PathOmCLIP and the untouched encoder. C, t-SNE of slides scanned by five scanners. D, ARI and "
        "mutual information of clusters and scanners; lower is better.",
        SLIDE,
        SLIDES,
        caption_source="paper",
        panels="ABCD",
    ),
    Artefact(
        "F3",
        "Patch-level performance",
        "A, mean Pearson correlation (PCC) of predicted and measured expression in tissue left out of training, "
        "overall and by organ, with controls and the paired difference to the frozen encoder; circle area is the "
        "encoder's number of parameters; where data are simulated, lines for the oracle and the ceiling. B, HEST-Bench "
        "and the improvement by SEAL. C, SEAL against methods made to predict expression.",
        PATCH,
        ("patch_level", "patch_level_summary", "encoders"),
        caption_source="paper",
        draw="patch_level_figure",
        panels="ABC",
        drawn="A",
    ),
    _later(
        "F4",
        "Cross-modal retrieval",
        "Images found from a gene's expression, genes found from an image, images found from a pathway.",
        RETRIEVAL,
        panels="ABC",
    ),
    _later(
        "E1",
        "Morphological and IHC tasks; ST baselines on slides",
        "A, relative change by SEAL on two IHC and four morphological slide-level tasks. B, SEAL and PathOmCLIP "
        "relative to ST-Net on all slide-level tasks.",
        SLIDE,
        SLIDES,
        caption_source="paper",
        panels="AB",
    ),
    _later(
        "E2",
        "Molecular tasks, encoder by encoder",
        "18 slide-level molecular tasks for five encoders with and without SEAL. A, ABMIL. B, mean MIL. AUC for "
        "binary tasks, balanced accuracy for the others.",
        SLIDE,
        SLIDES,
        caption_source="paper",
        panels="AB",
    ),
    _later(
        "E3",
        "Robustness and out-of-distribution",
        "A, scanners. B, sites. C, organs that training never saw.",
        ROBUST,
        SLIDES,
        panels="ABC",
    ),
    Artefact(
        "E4",
        "Expression on the tissue",
        "A, measured and predicted expression of the first test genes (chosen on training donors) on the first "
        "section of each of the first two folds; one colour scale a gene and section, 2nd to 98th percentile of "
        "what was measured. B, attention. C, retrieval examples.",
        PATCH,
        ("maps",),
        draw="expression_maps_figure",
        panels="ABC",
        drawn="A",
    ),
    Artefact(
        "E5",
        "Ablations and training curves",
        "A, one part of the method changed at a time: difference of the mean Pearson correlation (PCC) to the full "
        "method, paired spot by spot, with its 95 % interval; open circles where that includes zero. The frozen "
        "encoder for comparison. First seed. B, loss terms of both stages by epoch; thin lines are single folds and "
        "seeds, thick ones their mean.",
        PATCH,
        ("training_curves", "ablations"),
        draw="ablations_figure",
        panels="AB",
        drawn="AB",
    ),
]

DATA_TABLES = [
    Artefact(
        "T1",
        "Samples by organ and technology",
        "Samples, donors, spots and pairs of this profile (in the paper: MAPLE-Train); where all four disease states "
        "occur, their shares of the spots beside the paper's.",
        DATASET,
        ("samples",),
        draw="samples_by_technology",
    ),
    Artefact(
        "T2",
        "Test folds",
        "What each fold leaves out and trains on (in the paper: MAPLE-Test).",
        DATASET,
        ("samples",),
        draw="held_out_folds",
    ),
    Artefact(
        "T3",
        "Disease states",
        "Samples, donors, spots and pairs by disease state; where all four occur, beside the paper's shares.",
        DATASET,
        ("samples",),
        draw="disease_states",
    ),
    Artefact(
        "T4",
        "Samples with source and licence",
        "Every sample of this profile.",
        DATASET,
        ("samples",),
        draw="samples_with_licence",
    ),
    Artefact(
        "T5",
        "Encoders",
        "The paper's five encoders and ours: geometry, pooling, normalisation (mean and sd a channel), licence.",
        OVERVIEW,
        ("encoders",),
        draw="encoder_list",
    ),
    Artefact(
        "T6",
        "Settings of stage 1, SEAL-omics",
        "Values of this profile beside the default, and where each comes from.",
        OVERVIEW,
        ("settings",),
        draw="omics_settings",
    ),
    Artefact(
        "T7",
        "Settings of stage 2, SEAL-vision",
        "Values of this profile beside the default, and where each comes from.",
        OVERVIEW,
        ("settings",),
        draw="vision_settings",
    ),
    Artefact(
        "T8",
        "Gene panel and test genes",
        "Genes that patch-level evaluation scores, organ by organ, with their ranks in the folds' panels.",
        DATASET,
        ("panel",),
        draw="gene_panel",
    ),
]

_BY_ORGAN = "Mean Pearson correlation by organ, frozen and with SEAL (in the paper: MAPLE-Test, one table an encoder)."
_ORDINALS = ("second", "third", "fourth", "fifth")

PATCH_TABLES = [
    Artefact(
        "T9",
        "Expression prediction by organ: the profile's encoder",
        _BY_ORGAN,
        PATCH,
        ("patch_level_summary", "encoders"),
        draw="by_organ",
    ),
    *_series(
        10,
        [f"Expression prediction by organ: a {ordinal} encoder" for ordinal in _ORDINALS],
        _BY_ORGAN,
        PATCH,
        lacks="a profile runs one encoder, whose table is T9",
    ),
    *_series(
        14,
        [f"HEST-Bench by task, {probe}" for probe in ("official probe", "cross-validated probe", "XGBoost")],
        "Pearson correlation of nine tasks, encoders frozen and with SEAL.",
        PATCH,
        OFFICIAL,
        "HEST-Bench (gated) is not read yet",
    ),
    *_series(
        17,
        [f"Expression-prediction baselines on {where}" for where in ("MAPLE-Test", "HEST-Bench")],
        "SEAL against methods made to predict expression from images.",
        PATCH,
        OFFICIAL,
        "the baselines are not built yet",
    ),
    Artefact(
        "T19",
        "Controls",
        "Every method beside its positive and negative controls, with intervals.",
        PATCH,
        ("patch_level_summary", "encoders"),
        draw="controls",
    ),
    Artefact(
        "T20",
        "Genes predicted best and worst",
        "Genes ranked by SEAL's Pearson correlation, beside the frozen encoder.",
        PATCH,
        ("patch_level_genes",),
        draw="genes_best_and_worst",
    ),
]

SLIDE_TABLES = [
    *_series(
        21,
        [f"Molecular status, 18 tasks: {e}, {pool}" for e in ENCODERS for pool in ("ABMIL", "mean MIL")],
        "AUC or balanced accuracy of each task, encoder frozen and with SEAL.",
        SLIDE,
        SLIDES,
    ),
    *_series(
        31,
        [f"Pathway activity: {e}" for e in ENCODERS],
        "Prediction of pathway activity from slides, encoder frozen and with SEAL.",
        SLIDE,
        SLIDES,
    ),
    *_series(
        36,
        [f"Markers and treatment response: {e}" for e in ENCODERS],
        "Prediction of markers and of response from slides, encoder frozen and with SEAL.",
        SLIDE,
        SLIDES,
    ),
    *_series(
        41,
        [f"Baselines on slides: {g}" for g in ("molecular status", "pathway activity", "markers and response")],
        "SEAL against ST-Net and PathOmCLIP.",
        SLIDE,
        SLIDES,
    ),
    *_series(
        44, ["Morphological and IHC tasks"], "Six slide-level tasks, encoder frozen and with SEAL.", SLIDE, SLIDES
    ),
]

_ABLATION = (
    "One part changed at a time, all else and the test spots the same: mean Pearson correlation (PCC) in tissue left "
    "out of training, over all organs, and its difference to the full method."
)

OTHER_TABLES = [
    *_series(
        45,
        ["ARI and mutual information by scanner", "Robustness index", "Unseen organs", "Unseen technology"],
        "How far an encoder tells apart what it should not, and how it does where it was not trained.",
        ROBUST,
        SLIDES,
    ),
    *_series(
        49,
        ["Retrieval recall: genes", "Retrieval recall: pathways"],
        "Recall among the first k, against chance.",
        RETRIEVAL,
    ),
    *(
        Artefact(id, title, _ABLATION, PATCH, ("ablations",), draw=draw)
        for id, title, draw in (
            ("T51", "Ablation: loss terms", "ablated_losses"),
            ("T52", "Ablation: place and rank of the adapters, full fine-tuning, bottleneck", "ablated_adapters"),
            ("T53", "Ablation: omics encoder and gene loss", "ablated_omics"),
            ("T54", "Ablation: panel size and number of pairs", "ablated_data"),
        )
    ),
]

REGISTER = {artefact.id: artefact for artefact in (*FIGURES, *DATA_TABLES, *PATCH_TABLES, *SLIDE_TABLES, *OTHER_TABLES)}
