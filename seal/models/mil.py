"""Multiple-instance learning (MIL): R models of one form as one, which read a bag of patches and give one prediction.

A *bag* is all patches of a case, [n, d]. Parameters of the R models ("runs") are stacked: their first axis is the run,
and no run reads another's. Trained together they end where each would end alone; see seal.train.mil.

Sources: mahmoodlab/Patho-Bench (660e770) and the ABMILSlideEncoder of mahmoodlab/TRIDENT, which it trains;
mahmoodlab/MIL-Lab (dfc3c17); Ilse, Tomczak and Welling 2018, equations 7 to 9.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seal.errors import require_known
from seal.shapes import Bool, Float, Int

QUARTILES = 4  # intervals of time in which survival is predicted
EPS = 1e-7  # the least probability whose logarithm the survival loss takes
BITS = 15  # random bits that decide whether an element is dropped
_GOLDEN, _FIRST, _SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # splitmix64's, signed


@dataclass(frozen=True)
class MilForm:
    """Sizes and parts of a model."""

    hidden: int | None  # width of the layers; None: that of the features
    attention: int | None  # width of the attention's hidden layer; None: no attention, the mean of the bag
    gated: bool = False  # tanh times sigmoid instead of tanh
    after: bool = True  # one more layer between the weighted sum and the head
    activation: str = "gelu"
    dropout: float = 0.1  # after a layer
    attention_dropout: float = 0.25  # after tanh, and after sigmoid
    he: bool = False  # weights of +- sqrt(6 / inputs) and no biases; else all of +- sqrt(1 / inputs)


FORMS = {
    "abmil": MilForm(None, 512),  # Patho-Bench
    "abmil_gated": MilForm(None, 512, gated=True),  # TRIDENT's tutorial
    "mil_lab": MilForm(512, 384, gated=True, after=False, activation="relu", dropout=0.0, he=True),
    "mean": MilForm(None, None),
}


def mix(x: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Scramble whole numbers of 64 bits: any two inputs give outputs that look independent (splitmix64's finish)."""
    shifted = x >> 30
    x = x ^ shifted.bitwise_and_(0x3FFFFFFFF)  # what a shift brings in is the sign, not zeros
    x.mul_(_FIRST)
    torch.bitwise_right_shift(x, 27, out=shifted)
    x.bitwise_xor_(shifted.bitwise_and_(0x1FFFFFFFFF)).mul_(_SECOND)
    torch.bitwise_right_shift(x, 31, out=shifted)
    return x.bitwise_xor_(shifted.bitwise_and_(0x1FFFFFFFF))


class Draws:
    """Random bits of many runs at once, the same on every device and whichever runs stand together.

    word i of a run = mix(key + i golden), where the key follows from the run's seed, its step and the bag.
    """

    def __init__(self, seeds: Int[Tensor, " runs"], steps: Int[Tensor, " runs"], bag: int = 0) -> None:
        self.keys, self.used = mix(mix(mix(seeds) + steps) + bag), 0  # [R]

    def words(self, n: int) -> Int[Tensor, "runs n"]:
        """Give each run's next n words of 64 bits."""
        at = torch.arange(self.used + 1, self.used + n + 1, device=self.keys.device) * _GOLDEN
        self.used += n
        return mix(self.keys[:, None] + at)

    def sample(self, n: int, size: int) -> Int[Tensor, "runs size"]:
        """Choose `size` of n patches for each run, none twice."""
        return self.words(n).argsort(dim=1)[:, :size]

    def drop(self, x: Float[Tensor, "runs n width"], p: float) -> Float[Tensor, "runs n width"]:
        """Drop elements with probability p' = round(2^15 p) / 2^15 and divide the others by 1 - p'."""
        dropped, size = round(p * 2**BITS), x[0].numel()
        if not dropped:
            return x
        bits = self.words(-(-size // 4)).view(torch.int16)[:, :size].bitwise_and_(2**BITS - 1)
        # the sign of bits - dropped, as the bits of 1.0 or 0.0 in bfloat16: comparing and converting take longer
        ones = bits.sub_(dropped).bitwise_right_shift_(BITS).bitwise_not_().bitwise_and_(0x3F80).view(torch.bfloat16)
        return x * ones.view(x.shape).to(x.dtype).mul_(2**BITS / (2**BITS - dropped))


class StackedLinear(nn.Module):
    """R linear layers of one shape: y_r = x_r W_r + b_r; W [R, inputs, outputs], which spares transposes."""

    def __init__(self, runs: int, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(runs, inputs, outputs))
        self.bias = nn.Parameter(torch.empty(runs, 1, outputs)) if bias else None

    def forward(self, x: Float[Tensor, "*runs n inputs"]) -> Float[Tensor, "stacked n outputs"]:
        """Give each run's outputs for its own rows, or, of [n, inputs], for the same rows."""
        x = x.expand(len(self.weight), *x.shape[-2:])  # [R, n, inputs]
        return x @ self.weight if self.bias is None else torch.baddbmm(self.bias, x, self.weight)

    @torch.no_grad()
    def start(self, run: int, draw: torch.Generator, he: bool, outputs: int | None = None) -> None:
        """Draw a run's weights; those of outputs beyond `outputs`, which another run needs, are zero."""
        bound = self.weight.shape[1] ** -0.5
        wide = bound * 6**0.5 if he else bound
        self.weight[run].zero_()[:, :outputs].uniform_(-wide, wide, generator=draw)
        if self.bias is not None:
            bias = self.bias[run].zero_()[:, :outputs]
            if not he:
                bias.uniform_(-bound, bound, generator=draw)


class _Mil(nn.Module):
    """What both models share: layers after pooling, dropout, and where weights start."""

    def __init__(self, runs: int, width: int, pooled: int, outputs: int, form: MilForm) -> None:
        super().__init__()
        self.form, hidden = form, form.hidden or width
        self.after = StackedLinear(runs, pooled, hidden) if form.after else None
        self.head = StackedLinear(runs, hidden if form.after else pooled, outputs)

    def start(self, run: int, seed: int, outputs: int | None = None) -> None:
        """Draw a run's weights from its seed, the head last, so that its outputs change no other layer."""
        draw = torch.Generator().manual_seed(seed)
        layers = [layer for layer in self.children() if layer is not self.head]
        for layer in layers:
            layer.start(run, draw, self.form.he)
        self.head.start(run, draw, self.form.he, outputs)

    def activate(self, x: Float[Tensor, "runs n width"], draws: Draws | None) -> Float[Tensor, "runs n width"]:
        """Apply a layer's activation and, in training, its dropout."""
        x = F.gelu(x) if self.form.activation == "gelu" else F.relu(x)
        return draws.drop(x, self.form.dropout) if draws else x

    def predict(self, pooled: Float[Tensor, "runs 1 pooled"], draws: Draws | None) -> Float[Tensor, "runs outputs"]:
        """Give the outputs of pooled bags."""
        if self.after is not None:
            pooled = self.activate(self.after(pooled), draws)
        return self.head(pooled)[:, 0]


class Abmil(_Mil):
    """Attention-based MIL.

    h_i = drop(gelu(W x_i + b)),  s_i = w . drop(tanh(V h_i + c)) [* drop(sigmoid(U h_i + e)) if gated]
    a = softmax(s) over patches,  z = drop(gelu(W' sum_i a_i h_i + b')),  outputs = H z + f

    Patho-Bench's by default; see `FORMS`. It draws dropout in training alone, from `draws`.
    """

    def __init__(self, runs: int, width: int, outputs: int, form: MilForm = FORMS["abmil"]) -> None:
        hidden = form.hidden or width
        super().__init__(runs, width, hidden, outputs, form)
        self.before = StackedLinear(runs, width, hidden)
        self.attend = StackedLinear(runs, hidden, form.attention)
        self.gate = StackedLinear(runs, hidden, form.attention) if form.gated else None
        self.score = StackedLinear(runs, form.attention, 1, bias=False)  # softmax would cancel one

    def forward(
        self, bag: Float[Tensor, "*runs patches width"], draws: Draws | None = None
    ) -> tuple[Float[Tensor, "stacked outputs"], Float[Tensor, "stacked patches"]]:
        """Outputs of each run, [R, K], and its attention, [R, n], which sums to 1; of one bag [n, d] or one a run."""
        drop = draws.drop if draws else lambda x, p: x
        h = self.activate(self.before(bag), draws)  # [R, n, h]
        a = drop(torch.tanh(self.attend(h)), self.form.attention_dropout)  # [R, n, a]
        if self.gate is not None:
            a = a * drop(torch.sigmoid(self.gate(h)), self.form.attention_dropout)
        attention = self.score(a).squeeze(-1).softmax(dim=1)  # [R, n]
        return self.predict(attention[:, None] @ h, draws), attention


class MeanMil(_Mil):
    """Mean of the bag, then Abmil's layers after pooling: z = drop(gelu(W' mean_i x_i + b')), outputs = H z + f."""

    def __init__(self, runs: int, width: int, outputs: int, form: MilForm = FORMS["mean"]) -> None:
        super().__init__(runs, width, width, outputs, form)

    def forward(
        self, bag: Float[Tensor, "*runs patches width"], draws: Draws | None = None
    ) -> tuple[Float[Tensor, "stacked outputs"], Float[Tensor, "stacked patches"]]:
        """As Abmil's; every patch has the attention 1 / n."""
        runs, n = len(self.head.weight), bag.shape[-2]
        pooled = bag.mean(dim=-2, keepdim=True).expand(runs, 1, -1)  # [R, 1, d]
        return self.predict(pooled, draws), bag.new_full((runs, n), 1 / n)


def make_mil(name: str, runs: int, width: int, outputs: int, hidden: int | None, attention: int | None) -> _Mil:
    """Make R models of a form of `FORMS`, their weights not drawn yet; other sizes than the form's where given."""
    form = FORMS[require_known("model", name, FORMS)]
    if form.attention is None:
        return MeanMil(runs, width, outputs, replace(form, hidden=hidden or form.hidden))
    form = replace(form, hidden=hidden or form.hidden, attention=attention or form.attention)
    return Abmil(runs, width, outputs, form)


# ---- losses, of each case apart, and predictions ------------------------------------------------------------


def class_loss(
    outputs: Float[Tensor, "*cases outputs"], label: Int[Tensor, "*cases"], weight: Float[Tensor, "*cases"]
) -> Float[Tensor, "*cases"]:
    """w_y times the cross-entropy; outputs of -inf stand for classes that a run does not have.

    torch's own weighted mean divides by the weights, so in Patho-Bench's batches of one bag they cancel; here not.
    """
    return -weight * outputs.log_softmax(dim=-1).gather(-1, label[..., None]).squeeze(-1)


def balance(label: Sequence[Any]) -> list[float]:
    """Weight of each case's class, n / (K n_k) of K classes that occur: all of them count alike, the mean is 1."""
    counts = {k: list(label).count(k) for k in set(label)}
    return [len(label) / (len(counts) * counts[k]) for k in label]


def survival_loss(
    outputs: Float[Tensor, "*cases quartiles"], quartile: Int[Tensor, "*cases"], event: Bool[Tensor, "*cases"]
) -> Float[Tensor, "*cases"]:
    """Negative log-likelihood in discrete time, with hazards h = sigmoid(outputs) and S_q = prod_{i <= q} (1 - h_i).

    - log S_{q-1} - log h_q of an event in quartile q, - log S_q of a censored case; no logarithm below that of `EPS`

    Source: Zadeh and Schmid 2020, as in Patho-Bench (alpha 0), whose head has twice as many outputs as it trains.
    """
    hazard = outputs.sigmoid()
    survival = F.pad((1 - hazard).cumprod(dim=-1), (1, 0), value=1.0)  # [..., Q + 1]
    take = lambda x, at: x.gather(-1, at[..., None]).squeeze(-1).clamp(min=EPS).log()  # noqa: E731
    return -torch.where(event, take(survival, quartile) + take(hazard, quartile), take(survival, quartile + 1))


def cox_loss(
    risk: Float[Tensor, "runs cases"],
    days: Float[Tensor, "runs cases"],
    event: Bool[Tensor, "runs cases"],
    member: Bool[Tensor, "runs cases"],
) -> Float[Tensor, " runs"]:
    """Negative log partial likelihood of each run's cases, a mean over events: log sum_{t_j >= t_i} e^{r_j} - r_i.

    Breslow's for ties; cases that are no member of a run take no part; 0 where there is no event.
    """
    at_risk = member[:, None] & (days[:, None] >= days[..., None])  # [R, i, j]
    at_risk = at_risk | torch.eye(risk.shape[1], dtype=torch.bool, device=risk.device)  # no empty sum: its gradient
    total = risk[:, None].masked_fill(~at_risk, -torch.inf).logsumexp(dim=-1)  # [R, i]
    counted = event & member
    return torch.where(counted, total - risk, 0.0).sum(dim=1) / counted.sum(dim=1).clamp(min=1)


def survival_curve(outputs: Float[Tensor, "*cases quartiles"]) -> Float[Tensor, "*cases quartiles"]:
    """Probability to live beyond each quartile; Patho-Bench's risk is minus their sum."""
    return (1 - outputs.sigmoid()).cumprod(dim=-1)
