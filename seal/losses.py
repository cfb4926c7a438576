"""The losses of both stages. Each gene loss returns its terms by name; `total` is what is minimised.

The `CONTRASTS`, `gene_loss` and `flow_kl` compute in float32 whatever they are given: a batch's covariances and
exponentials need it, and beside an encoder they cost nothing.
"""

import functools
import math
from collections.abc import Callable
from typing import Literal, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from seal.shapes import Float

# Weights inside barlow_mse (release).
BARLOW_WEIGHT = 0.05
MSE_WEIGHT = 5.0

# Of the contrasts.
BARLOW_LAMBDA, BARLOW_SCALE = 5e-3, 5e-3  # scale: 0.05 inside the term and 0.1 outside
CCA_SCALE = 5.0

# Constants of the others (release).
PLS_WEIGHT = 1e-4
MMD_BANDWIDTHS = (10.0, 15.0, 20.0, 50.0)
NEGBIN_ALPHA = 0.1  # inverse dispersion: variance = mu + mu^2 / alpha
NEGBIN_FLOOR = 1e-8  # of mu and of the probabilities
NEGBIN_CEILING = 20.0  # of x_hat: exp(x_hat) stays finite; no measured x exceeds log(10,001) = 9.2 (our choice)

EPSILON = 1e-6  # beside variances of about 1: keeps a gene that is constant in the batch at zero, not at NaN

P, R = ParamSpec("P"), TypeVar("R")
Scalar = Float[Tensor, ""]
Expression = Float[Tensor, "batch genes"]
PerGene = Float[Tensor, " genes"]


def _in_float32(loss: Callable[P, R]) -> Callable[P, R]:
    """Cast 16-bit tensors up and switch autocast off around a loss; float64 is left as it is."""

    def up(value: object) -> object:
        half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
        return value.float() if half else value

    @functools.wraps(loss)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next(value.device for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        with torch.autocast(device_type=device.type, enabled=False):
            return loss(*map(up, args), **{name: up(value) for name, value in kwargs.items()})

    return wrapped


@_in_float32
def info_nce(z_v: Float[Tensor, "batch dim"], z_o: Float[Tensor, "batch dim"], temperature: float | Scalar) -> Scalar:
    """L_INFO, the symmetric contrastive loss of paired embeddings.

    L_INFO = 1/2 [CE(S, I) + CE(S', I)],  S_ij = z_v,i . z_o,j / (|z_v,i| |z_o,j| tau)

    Parameters
    ----------
    z_v, z_o
        Image and omics embeddings; row i of one belongs to row i of the other.
    temperature
        tau > 0; a number, or a tensor of no dimensions that is learnt and gets its gradient here.

    Returns
    -------
    In nats.

    Source: release (tau 0.05, fixed by default).
    """
    logits = F.normalize(z_v, dim=1) @ F.normalize(z_o, dim=1).T / temperature
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


@_in_float32
def soft_clip(z_v: Float[Tensor, "batch dim"], z_o: Float[Tensor, "batch dim"], temperature: float | Scalar) -> Scalar:
    """Contrastive loss with soft targets, nats: what looks or expresses alike is less of a negative.

    1/(2B) sum_ij Q_ij (-log P_ij - log P'_ij),  P and P' the softmax of S = z_o z_v' / tau along j and i,
    Q that of (z_v z_v' + z_o z_o') / (2 tau) along j; z are of length 1, as for `info_nce`. Q has gradients too.

    Source: BLEEP (bowang-lab/BLEEP), there with tau 1 and z as they are.
    """
    z_v, z_o = F.normalize(z_v, dim=1), F.normalize(z_o, dim=1)
    logits = z_o @ z_v.T / temperature  # [B, B]
    target = torch.softmax((z_v @ z_v.T + z_o @ z_o.T) / (2 * temperature), dim=1)  # [B, B]
    return -(target * (logits.log_softmax(dim=1) + logits.log_softmax(dim=0))).sum() / (2 * len(logits))


@_in_float32
def barlow_twins(z_v: Float[Tensor, "batch dim"], z_o: Float[Tensor, "batch dim"]) -> Scalar:
    """Barlow Twins: each dimension of z_v correlates over the batch with its own in z_o, and with no other.

    0.005 [sum_i (1 - c_ii)^2 + lambda sum_{i != j} c_ij^2],  c as for `barlow`, lambda = 0.005

    Source: Zbontar et al. 2021, equation 1; lambda and scale as the release has them for genes.
    """
    c = _standardise(z_v).T @ _standardise(z_o) / len(z_v)  # [d, d]
    own = c.diagonal()  # [d]
    return BARLOW_SCALE * (((1 - own) ** 2).sum() + BARLOW_LAMBDA * (c.square().sum() - own.square().sum()))


@_in_float32
def cca(z_v: Float[Tensor, "batch dim"], z_o: Float[Tensor, "batch dim"]) -> Scalar:
    """Deep canonical correlation analysis: one minus the mean canonical correlation, regularised.

    5 (1 - 1/k |S_vv^(-1/2) S_vo S_oo^(-1/2)|_*),  k = min(d, B - 1),  |.|_* the sum of singular values

    S_vv and S_oo are correlations over the batch plus the identity: without it any two embeddings of more dimensions
    than spots correlate perfectly.

    Source: Andrew et al. 2013, section 3; the identity, k and the scale (that of `pcc`) are our choice.
    """
    z_v, z_o = _standardise(z_v), _standardise(z_o)  # [B, d]
    one = torch.eye(z_v.shape[1], device=z_v.device, dtype=z_v.dtype)
    root_v, root_o = (torch.linalg.cholesky(z.T @ z / len(z) + one) for z in (z_v, z_o))  # [d, d]
    t = torch.linalg.solve_triangular(root_v, z_v.T @ z_o / len(z_v), upper=False)
    t = torch.linalg.solve_triangular(root_o, t.T, upper=False)  # singular values: those of the symmetric roots
    return CCA_SCALE * (1 - torch.linalg.matrix_norm(t, "nuc") / min(z_v.shape[1], len(z_v) - 1))


# Of vision.contrast in seal.profiles: z_v, z_o, temperature -> loss.
CONTRASTS: dict[str, Callable[[Tensor, Tensor, float | Scalar], Scalar]] = {
    "clip": info_nce,
    "soft_clip": soft_clip,
    "barlow": lambda z_v, z_o, _: barlow_twins(z_v, z_o),
    "cca": lambda z_v, z_o, _: cca(z_v, z_o),
}


def barlow(x_hat: Expression, x: Expression) -> Scalar:
    """Barlow term: each predicted gene should correlate with its own measurement over the batch.

    sum_i (1 - c_ii)^2,  c = Z1' Z2 / B of the batch-standardised prediction and target; B >= 2

    Returns
    -------
    No unit; summed over genes.

    Source: release, where lambda, the weight of the pairs of genes, is 0 by default.
    """
    return ((1 - (_standardise(x_hat) * _standardise(x)).mean(dim=0)) ** 2).sum()


def _standardise(x: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the batch, [B, G]."""
    return (x - x.mean(dim=0)) / torch.sqrt(x.var(dim=0, correction=0) + EPSILON)


def standardised_mse(x_hat: Expression, x: Expression, mean: PerGene, sd: PerGene) -> Scalar:
    """Mean squared error of standardised values.

    1/(B G) sum_bg (z_hat_bg - z_bg)^2,  z = (x - mean) / sd

    Parameters
    ----------
    x_hat, x
        Predicted and measured expression, log1p of counts per 10,000, [B, G].
    mean, sd
        Of each gene over the training spots, [G]; sd > 0.

    Returns
    -------
    In squared sd of a gene.

    Source: release, which takes mean and sd of the spots' own counts; ours are of what is predicted.
    """
    return F.mse_loss((x_hat - mean) / sd, (x - mean) / sd)


def pcc(x_hat: Expression, x: Expression) -> Scalar:
    """One minus the Pearson correlation over genes, averaged over spots.

    1 - 1/B sum_b r_b,  r_b = cov_g(x_hat_b, x_b) / (sd_g(x_hat_b) sd_g(x_b))

    Returns
    -------
    In [0, 2], no unit; a spot of one value has r_b = 0. It leaves mean and scale of a spot's prediction free.

    Source: release.
    """
    return 1 - F.cosine_similarity(x_hat - x_hat.mean(dim=1, keepdim=True), x - x.mean(dim=1, keepdim=True)).mean()


def pls(x_hat: Expression, x: Expression) -> Scalar:
    """Minus the size of the covariance between predicted and measured genes, as in partial least squares.

    - 1e-4 |C|_F,  C = (x_hat - mean_b)' (x - mean_b) / (B - 1)

    Returns
    -------
    At most 0 and without lower bound: larger predictions lower it, whichever gene they are of. B >= 2.

    Source: release.
    """
    c = (x_hat - x_hat.mean(dim=0)).T @ (x - x.mean(dim=0)) / (len(x) - 1)  # [G, G]
    return -PLS_WEIGHT * torch.linalg.matrix_norm(c)


def mmd(x_hat: Expression, x: Expression) -> Scalar:
    """Squared maximum mean discrepancy between predicted and measured genes, each a point in the batch's space.

    mean k(a, a') + mean k(b, b') - 2 mean k(a, b'),  k(a, b) = sum over s of exp(-|a - b|^2 / (2 s)),
    s in `MMD_BANDWIDTHS`, with a the columns of x_hat and b those of x

    Returns
    -------
    In [0, 8], no unit. Which prediction belongs to which gene plays no part in it.

    Source: release; Gretton et al. 2012, equation 5 (the biased estimate).
    """

    def mean_kernel(a: Tensor, b: Tensor) -> Tensor:
        square = a.square().sum(dim=0)[:, None] + b.square().sum(dim=0) - 2 * a.T @ b  # [G, G]
        return sum(torch.exp(-square / (2 * s)).mean() for s in MMD_BANDWIDTHS)

    return mean_kernel(x_hat, x_hat) + mean_kernel(x, x) - 2 * mean_kernel(x_hat, x)


def negbin(x_hat: Expression, x: Expression) -> Scalar:
    """Negative log-likelihood of a negative binomial, on counts per 10,000.

    - log [Gamma(k + alpha) / (Gamma(alpha) Gamma(k + 1)) (1 - p)^alpha p^k],
    k = exp(x) - 1,  mu = exp(x_hat) - 1,  p = mu / (mu + alpha),  alpha = 0.1 for all genes

    Returns
    -------
    Nats a gene and spot. A prediction below zero counts as none and has no gradient.

    Source: release, its guards against log(0) too; that x_hat ends at `NEGBIN_CEILING` is ours.
    """
    k = torch.expm1(x).clamp_min(0)
    mu = torch.expm1(x_hat.clamp_max(NEGBIN_CEILING)).clamp_min(NEGBIN_FLOOR)
    p = mu / (mu + NEGBIN_ALPHA)
    ways = torch.lgamma(k + NEGBIN_ALPHA) - math.lgamma(NEGBIN_ALPHA) - torch.lgamma(k + 1)
    return -(ways + NEGBIN_ALPHA * torch.log(1 - p + NEGBIN_FLOOR) + k * torch.log(p + NEGBIN_FLOOR)).mean()


# Losses of values as they are.
_RAW = {"pcc": pcc, "pls": pls, "mmd": mmd, "negbin": negbin, "l1": F.l1_loss, "huber": F.huber_loss}
# Of omics.gene_loss in seal.profiles, each with its scale: the release's, but for mse.
GENE_LOSSES = {"barlow_mse": 0.1, "mse": 1.0, "standardized_mse": 10.0, "pcc": 5.0, "pls": 1.0, "mmd": 1.0,
               "negbin": 10.0, "l1": 10.0, "huber": 10.0}  # fmt: skip


@_in_float32
def gene_loss(name: str, x_hat: Expression, x: Expression, mean: PerGene, sd: PerGene) -> dict[str, Tensor]:
    """L_REC, the gene loss of that name; by default L_REC = 0.1 (0.05 L_barlow + 5 L_mse).

    l1 is 1/(B G) sum_bg |e_bg|, huber 1/(B G) sum_bg h(e_bg) of e = x_hat - x, with h(e) = e^2 / 2 if |e| <= 1, else
    |e| - 1/2. The others have functions of their own.

    Parameters
    ----------
    name
        One of `GENE_LOSSES`.
    x_hat, x, mean, sd
        As for `standardised_mse`; B >= 2.

    Returns
    -------
    The loss's terms by name, unscaled, and total, which is minimised; scalars, float32.

    Source: release, under the same names but two: its default, our barlow_mse, is barlow_std_mse there (its barlow_mse
    and mse are of values as they are); our mse is standardized_mse without its scale. The scales are those of stage 2;
    stage 1 has none there, which AdamW does not notice.
    """
    if name == "barlow_mse":
        terms = {"barlow": barlow(x_hat, x), "mse": standardised_mse(x_hat, x, mean, sd)}
        return {**terms, "total": GENE_LOSSES[name] * (BARLOW_WEIGHT * terms["barlow"] + MSE_WEIGHT * terms["mse"])}
    if name in _RAW:
        value = _RAW[name](x_hat, x)
        return {name: value, "total": GENE_LOSSES[name] * value}
    value = standardised_mse(x_hat, x, mean, sd)
    return {"mse": value, "total": GENE_LOSSES[name] * value}


@_in_float32
def flow_kl(
    z: Float[Tensor, "batch dim"],
    z0: Float[Tensor, "batch dim"],
    mu: Float[Tensor, "batch dim"],
    logvar: Float[Tensor, "batch dim"],
    log_det: Float[Tensor, " batch"],
    form: Literal["closed", "drawn"],
) -> Scalar:
    """KL term of the flow posterior, one Monte Carlo draw (drawn) or as the release has it (closed).

    drawn: E[log q0(z0) - log|det J| - log p(z_K)],  q0 = N(mu, exp(logvar)),  p = N(0, 1)
    closed: 1/d (KL[q0 | p] - log|det J|),  KL[q0 | p] = 1/2 sum (exp(logvar) + mu^2 - 1 - logvar)

    with log|det J| = `log_det`, the sum over the flows. The closed form takes p at z0, before them: it bounds nothing.

    Returns
    -------
    Nats a spot; closed: nats a spot and dimension.

    Source: release (closed; off by default); Rezende and Mohamed 2015, equation 15 (drawn).
    """
    if form == "closed":
        base = 0.5 * (logvar.exp() + mu**2 - 1 - logvar).sum(dim=1)  # [B]
        return (base - log_det).mean() / mu.shape[1]
    log_q = -0.5 * (logvar + (z0 - mu) ** 2 / logvar.exp())
    log_p = -0.5 * z**2
    return ((log_q - log_p).sum(dim=1) - log_det).mean()
