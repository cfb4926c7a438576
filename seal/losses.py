"""The losses of both stages. Each returns its terms by name; `total` is what is minimised."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Weights of the gene loss (release).
BARLOW_WEIGHT = 0.05
MSE_WEIGHT = 5.0
GENE_LOSS_SCALE = 0.1


def info_nce(z_v: Tensor, z_o: Tensor, temperature: float) -> Tensor:
    """L_INFO, the symmetric contrastive loss of paired embeddings.

    L_INFO = 1/2 [CE(S, I) + CE(S', I)],  S_ij = z_v,i . z_o,j / (|z_v,i| |z_o,j| tau)

    Parameters
    ----------
    z_v, z_o
        Image and omics embeddings, [B, d]; row i of one belongs to row i of the other.
    temperature
        tau, fixed.

    Returns
    -------
    Scalar, in nats.

    Source: release (tau 0.05).
    """
    logits = F.normalize(z_v, dim=1) @ F.normalize(z_o, dim=1).T / temperature
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


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
    Scalar.

    Source: release (lambda 0).
    """
    z1, z2 = _standardise(x_hat), _standardise(x)
    if lambd == 0:
        return ((1 - (z1 * z2).mean(dim=0)) ** 2).sum()
    c = z1.T @ z2 / len(z1)
    off = (c - torch.eye(len(c), device=c.device, dtype=c.dtype)) ** 2
    return (1 - lambd) * torch.diagonal(off).sum() + lambd * off.sum()


def _standardise(x: Tensor) -> Tensor:
    # The small constant keeps a gene that is constant in the batch at zero instead of at NaN.
    return (x - x.mean(dim=0)) / torch.sqrt(x.var(dim=0, correction=0) + 1e-6)


def standardised_mse(x_hat: Tensor, x: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    """Mean squared error of values standardised by the training set's gene mean and sd.

    1/(B G) sum ((x_hat - mean)/sd - (x - mean)/sd)^2;  shapes [B, G], [G].

    Source: release.
    """
    return F.mse_loss((x_hat - mean) / sd, (x - mean) / sd)


def gene_loss(x_hat: Tensor, x: Tensor, mean: Tensor, sd: Tensor) -> dict[str, Tensor]:
    """L_REC, the gene loss.

    L_REC = 0.1 (0.05 L_barlow + 5 L_mse)

    Returns
    -------
    barlow and mse unweighted, and total = L_REC.

    Source: release.
    """
    terms = {"barlow": barlow(x_hat, x), "mse": standardised_mse(x_hat, x, mean, sd)}
    total = GENE_LOSS_SCALE * (BARLOW_WEIGHT * terms["barlow"] + MSE_WEIGHT * terms["mse"])
    return {**terms, "total": total}


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
