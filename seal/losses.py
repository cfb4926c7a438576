"""The losses of both stages. Each gene loss returns its terms by name; `total` is what is minimised.

All of them compute in float32 whatever they are given: a batch's covariances and exponentials need it, and
beside an encoder they cost nothing.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor

from seal.errors import SealError

# Weights of barlow_mse (release).
BARLOW_WEIGHT = 0.05
MSE_WEIGHT = 5.0
GENE_LOSS_SCALE = 0.1

# Our choices, for the losses of which only the names are public.
HUBER_DELTA = 1.0  # in sd of a gene: errors beyond it count linearly
MMD_BANDWIDTHS = (0.25, 1.0, 4.0)  # of the kernels' sigma^2, in mean squared distances between the batch's spots
NB_THETA = 1.0  # inverse dispersion: variance = mu + mu^2 / theta
NB_FLOOR = 1e-4  # of mu, counts per 10,000: log(mu) stays finite where no count is predicted
NB_CEILING = 20.0  # of x_hat: exp(x_hat) stays finite; no measured x exceeds log(10,001) = 9.2

EPSILON = 1e-6  # beside variances of about 1: keeps a gene that is constant in the batch at zero, not at NaN

GeneLoss = Callable[[Tensor, Tensor, Tensor, Tensor], dict[str, Tensor]]
P = ParamSpec("P")


def _in_float32(loss: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Cast 16-bit tensors up and switch autocast off around a loss; float64 is left as it is."""

    def up(value: object) -> object:
        half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
        return value.float() if half else value

    @functools.wraps(loss)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        device = next(value.device for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        with torch.autocast(device_type=device.type, enabled=False):
            return loss(*map(up, args), **{name: up(value) for name, value in kwargs.items()})

    return wrapped


@_in_float32
def info_nce(z_v: Tensor, z_o: Tensor, temperature: float | Tensor) -> Tensor:
    """L_INFO, the symmetric contrastive loss of paired embeddings.

    L_INFO = 1/2 [CE(S, I) + CE(S', I)],  S_ij = z_v,i . z_o,j / (|z_v,i| |z_o,j| tau)

    Parameters
    ----------
    z_v, z_o
        Image and omics embeddings, [B, d]; row i of one belongs to row i of the other.
    temperature
        tau > 0; a number, or a tensor of no dimensions that is learnt and gets its gradient here.

    Returns
    -------
    Scalar, in nats.

    Source: release (tau 0.05, fixed by default).
    """
    logits = F.normalize(z_v, dim=1) @ F.normalize(z_o, dim=1).T / temperature
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


@_in_float32
def barlow(x_hat: Tensor, x: Tensor, lambd: float = 0.0) -> Tensor:
    """Barlow term: each predicted gene should correlate with its own measurement over the batch.

    c = Z1' Z2 / B of the batch-standardised prediction and target,
    (1 - lambda) sum_i (1 - c_ii)^2 + lambda sum_ij (c_ij - delta_ij)^2

    Parameters
    ----------
    x_hat, x
        Predicted and measured expression, [B, G], B >= 2.
    lambd
        lambda; at 0 only the diagonal of c is needed, and only it is computed.

    Returns
    -------
    Scalar, no unit; summed over genes.

    Source: release (lambda 0).
    """
    z1, z2 = _standardise(x_hat), _standardise(x)
    if lambd == 0:
        return ((1 - (z1 * z2).mean(dim=0)) ** 2).sum()
    c = z1.T @ z2 / len(z1)
    off = (c - torch.eye(len(c), device=c.device, dtype=c.dtype)) ** 2
    return (1 - lambd) * torch.diagonal(off).sum() + lambd * off.sum()


def _standardise(x: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the batch, [B, G]."""
    return (x - x.mean(dim=0)) / torch.sqrt(x.var(dim=0, correction=0) + EPSILON)


@_in_float32
def standardised_mse(x_hat: Tensor, x: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
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
    Scalar, in squared sd of a gene.

    Source: release.
    """
    return F.mse_loss(*_z(x_hat, x, mean, sd))


def _z(x_hat: Tensor, x: Tensor, mean: Tensor, sd: Tensor) -> tuple[Tensor, Tensor]:
    """Prediction and measurement, standardised by the training spots."""
    return (x_hat - mean) / sd, (x - mean) / sd


def barlow_mse(x_hat: Tensor, x: Tensor, mean: Tensor, sd: Tensor) -> dict[str, Tensor]:
    """L_REC, the default gene loss.

    L_REC = 0.1 (0.05 L_barlow + 5 L_mse)

    Parameters
    ----------
    x_hat, x, mean, sd
        As for `standardised_mse`; B >= 2.

    Returns
    -------
    barlow and mse unweighted, and total = L_REC.

    Source: release.
    """
    terms = {"barlow": barlow(x_hat, x), "mse": standardised_mse(x_hat, x, mean, sd)}
    total = GENE_LOSS_SCALE * (BARLOW_WEIGHT * terms["barlow"] + MSE_WEIGHT * terms["mse"])
    return {**terms, "total": total}


@_in_float32
def pcc(x_hat: Tensor, x: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    """One minus the Pearson correlation over the batch, averaged over genes.

    1 - 1/G sum_g r_g,  r_g = cov_b(z_hat_g, z_g) / (sd_b(z_hat_g) sd_b(z_g))

    Parameters
    ----------
    x_hat, x, mean, sd
        As for `standardised_mse`; B >= 2. A gene that is constant in the batch has r_g = 0.

    Returns
    -------
    Scalar in [0, 2], no unit. It leaves mean and scale of the prediction free.

    Source: our choice; the release lists the name.
    """
    z_hat, z = (_standardise(v) for v in _z(x_hat, x, mean, sd))
    return 1 - (z_hat * z).mean()


@_in_float32
def pls(x_hat: Tensor, x: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    """Minus the covariance of prediction and measurement, as in partial least squares.

    - <C_hat, C> / (|C_hat| |C|),  C = z - mean_b(z),  inner product and norms over spots and genes

    Covariance alone could be lowered without end by predicting larger values; partial least squares keeps its
    weights at length one, here the two matrices are. A gene counts by how much it varies in the batch, where in
    `pcc` all count alike.

    Parameters
    ----------
    x_hat, x, mean, sd
        As for `standardised_mse`; B >= 2.

    Returns
    -------
    Scalar in [-1, 1], no unit. It leaves the genes' means and the common scale of the prediction free.

    Source: our choice; the release lists the name.
    """
    c_hat, c = (v - v.mean(dim=0) for v in _z(x_hat, x, mean, sd))
    return -(c_hat * c).mean() / torch.sqrt((c_hat.square().mean() + EPSILON) * (c.square().mean() + EPSILON))


@_in_float32
def mmd(x_hat: Tensor, x: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    """Squared maximum mean discrepancy between the predicted and the measured spots of a batch.

    mean k(z_hat, z_hat') + mean k(z, z') - 2 mean k(z_hat, z'),
    k(a, b) = mean over s of exp(-|a - b|^2 / (2 s m)),  s in `MMD_BANDWIDTHS`

    with m the mean squared distance between the 2B spots, predicted and measured, held constant in the
    gradient. It compares the two sets of spots; which prediction belongs to which spot plays no part in it.

    Parameters
    ----------
    x_hat, x, mean, sd
        As for `standardised_mse`.

    Returns
    -------
    Scalar in [0, 2], no unit.

    Source: our choice; the release lists the name. Gretton et al. 2012, equation 5 (the biased estimate).
    """
    spots = torch.cat(_z(x_hat, x, mean, sd))
    square = spots.square().sum(dim=1)
    distance = (square[:, None] + square[None] - 2 * spots @ spots.T).clamp_min(0)
    scale = 2 * distance.detach().mean().clamp_min(EPSILON)
    kernel = torch.stack([torch.exp(-distance / (scale * s)) for s in MMD_BANDWIDTHS]).mean(dim=0)
    b = len(x)
    return kernel[:b, :b].mean() + kernel[b:, b:].mean() - 2 * kernel[:b, b:].mean()


@_in_float32
def l1(x_hat: Tensor, x: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    """Mean absolute error of standardised values.

    1/(B G) sum_bg |z_hat_bg - z_bg|

    Parameters
    ----------
    x_hat, x, mean, sd
        As for `standardised_mse`.

    Returns
    -------
    Scalar, in sd of a gene.

    Source: release lists the name; that values are standardised is our choice.
    """
    return F.l1_loss(*_z(x_hat, x, mean, sd))


@_in_float32
def huber(x_hat: Tensor, x: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    """Huber loss of standardised values: squared for small errors, linear for large ones.

    1/(B G) sum_bg h(z_hat_bg - z_bg),  h(e) = e^2 / 2 if |e| <= delta, else delta (|e| - delta / 2)

    Parameters
    ----------
    x_hat, x, mean, sd
        As for `standardised_mse`.

    Returns
    -------
    Scalar, in squared sd of a gene.

    Source: release lists the name; standardised values and delta = `HUBER_DELTA` are our choice.
    """
    return F.huber_loss(*_z(x_hat, x, mean, sd), delta=HUBER_DELTA)


@_in_float32
def nb(x_hat: Tensor, x: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    """Negative log-likelihood of a negative binomial, on counts per 10,000.

    - log [Gamma(k + theta) / (Gamma(theta) k!) (theta / (theta + mu))^theta (mu / (theta + mu))^k],
    k = exp(x) - 1,  mu = exp(max(x_hat, 0)) - 1,  k! = Gamma(k + 1) as k is no integer here

    Parameters
    ----------
    x_hat, x
        Predicted and measured expression, log1p of counts per 10,000, [B, G]. A prediction below zero is none,
        and has no gradient.
    mean, sd
        Not used: standardised values are no counts.

    Returns
    -------
    Scalar, nats a gene and spot.

    Source: our choice; the release lists the name. One dispersion for all genes, theta = `NB_THETA`.
    """
    k = torch.expm1(x.clamp_min(0))
    mu = torch.expm1(x_hat.clamp(0, NB_CEILING)) + NB_FLOOR
    theta = torch.as_tensor(NB_THETA, dtype=mu.dtype, device=mu.device)
    ways = torch.lgamma(k + theta) - torch.lgamma(theta) - torch.lgamma(k + 1)
    log_sum = torch.log(theta + mu)
    return -(ways + theta * (torch.log(theta) - log_sum) + k * (torch.log(mu) - log_sum)).mean()


def _alone(name: str, loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> GeneLoss:
    """Make a gene loss of a single term."""

    def terms(x_hat: Tensor, x: Tensor, mean: Tensor, sd: Tensor) -> dict[str, Tensor]:
        value = loss(x_hat, x, mean, sd)
        return {name: value, "total": value}

    return terms


_SINGLE = {"mse": standardised_mse, "pcc": pcc, "pls": pls, "mmd": mmd, "l1": l1, "huber": huber, "nb": nb}

GENE_LOSSES: dict[str, GeneLoss] = {
    "barlow_mse": barlow_mse,
    **{name: _alone(name, loss) for name, loss in _SINGLE.items()},
}


def check_gene_loss(name: str) -> None:
    """Refuse a gene loss that does not exist.

    Raises
    ------
    SealError
        Names those that do.
    """
    if name not in GENE_LOSSES:
        raise SealError(
            f"unknown gene loss {name!r}",
            expected=f"one of {', '.join(GENE_LOSSES)}",
            do="change omics.gene_loss in the profile",
        )


def gene_loss(name: str, x_hat: Tensor, x: Tensor, mean: Tensor, sd: Tensor) -> dict[str, Tensor]:
    """L_REC, the gene loss of that name.

    Parameters
    ----------
    name
        A key of `GENE_LOSSES`.
    x_hat, x
        Predicted and measured expression, log1p of counts per 10,000, [B, G].
    mean, sd
        Of each gene over the training spots, [G]; sd > 0.

    Returns
    -------
    The loss's terms by name, unweighted, and total, which is minimised; scalars, float32.

    Raises
    ------
    SealError
        There is no loss of that name.

    Source: release (barlow_mse by default).
    """
    check_gene_loss(name)
    return GENE_LOSSES[name](x_hat, x, mean, sd)


@_in_float32
def flow_kl(z: Tensor, z0: Tensor, mu: Tensor, logvar: Tensor, log_det: Tensor) -> Tensor:
    """KL term of the flow posterior, one Monte Carlo draw.

    E[log q0(z0) - log|det J| - log p(z_K)],  q0 = N(mu, exp(logvar)),  p = N(0, 1)

    Parameters
    ----------
    z, z0, mu, logvar
        [B, d].
    log_det
        Sum of the flows' log-determinants, [B].

    Returns
    -------
    Scalar, nats a spot.

    Source: release (weight 0 by default); Rezende and Mohamed 2015, equation 15.
    """
    log_q = -0.5 * (logvar + (z0 - mu) ** 2 / logvar.exp())
    log_p = -0.5 * z**2
    return ((log_q - log_p).sum(dim=1) - log_det).mean()
