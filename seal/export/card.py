"""The model card of a saved model: everything somebody needs who finds the folder without us."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from seal.data.panel import Panel
from seal.errors import SealError
from seal.models.registry import EncoderSpec
from seal.profiles import Profile, setting_rows

LIBRARIES = {"timm": "timm", "transformers": "transformers", "conch": "pytorch"}
# Identifiers that the hub knows; any other licence is written as "other" with its name and link.
_HUB_LICENCES = {"mit", "apache-2.0", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-sa-4.0"}
_STAGES = {"panel": "gene panel", "omics": "1, SEAL-omics", "vision": "2, SEAL-vision", "compute": "2, computation"}
# An absolute path in any system's way, or a token of the hub: neither may be published.
_PRIVATE = re.compile(r"(?:^|[\s'\"=(\[])(?:/|~/|[A-Za-z]:\\)\w|hf_[A-Za-z0-9]{20}")

_CITATION = """```bibtex
@article{hemker2026seal,
  title   = {Towards Spatial Transcriptomics-driven Pathology Foundation Models},
  author  = {Hemker, Konstantin and Song, Andrew H. and Almagro-P{\\'e}rez, Cristina and Jaume, Guillaume and
             Wagner, Sophia J. and Vaidya, Anurag and Simidjievski, Nikola and Jamnik, Mateja and Mahmood, Faisal},
  journal = {arXiv preprint arXiv:2602.14177},
  year    = {2026}
}
```"""


def may_share_derivatives(licence: str) -> bool:
    """Whether a licence lets changed weights be passed on: not if it is a Creative Commons one with ND."""
    words = licence.upper().split("-")
    return words[0] != "CC" or "ND" not in words


def write(
    spec: EncoderSpec,
    record: Mapping[str, Any],
    profile: Profile,
    panel: Panel,
    results: Sequence[Mapping[str, Any]] | None,
) -> str:
    """Write the model card.

    Parameters
    ----------
    spec
        The base encoder.
    record
        The content of seal.json.
    results
        Rows as an evaluation gives them, one mapping a row; all of them are shown.

    Returns
    -------
    Markdown with the hub's YAML header.

    Raises
    ------
    SealError
        It would hold a local path or a token.
    """
    sections = [
        _header(spec, record),
        _what(spec, record, profile),
        _data(profile, panel),
        "## Settings\n\n" + _settings(profile),
        "## Training\n\n" + _training(record),
        "## Results\n\n" + (_table(results) if results else "Not evaluated."),
        "## How to load it\n\n" + _loading(spec, record),
        _limits(record, profile, panel),
        "## Citation\n\nPlease cite the paper whose method this follows:\n\n" + _CITATION,
    ]
    text = "\n\n".join(sections) + "\n"
    if found := _PRIVATE.search(text):
        raise SealError(
            f"the model card would hold {found.group().strip()!r}..., a local path or a token",
            expected="results and training notes that can be published",
            do="take that value out of `results` or `training`",
        )
    return text


def _header(spec: EncoderSpec, record: Mapping[str, Any]) -> str:
    licence = spec.licence.lower()
    rows = {"license": licence if licence in _HUB_LICENCES else "other"}
    if licence not in _HUB_LICENCES:
        rows["license_name"] = re.sub(r"[^a-z0-9.]+", "-", licence).strip("-")
        rows["license_link"] = spec.access
    rows["library_name"] = LIBRARIES[spec.family]
    rows["pipeline_tag"] = "image-feature-extraction"
    if spec.hub:
        rows["base_model"] = spec.hub
        rows["base_model_relation"] = "finetune" if record["adapter"]["kind"] == "full" else "adapter"
    lines = [f"{key}: {json.dumps(value)}" for key, value in rows.items()]
    tags = ["pathology", "histology", "spatial-transcriptomics", "gene-expression", "seal", record["encoder"]["name"]]
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _what(spec: EncoderSpec, record: Mapping[str, Any], profile: Profile) -> str:
    a = record["adapter"]
    kinds = {
        "lora": f"LoRA (rank {a['rank']}, alpha {a['alpha']}) on the linears of the last {a['blocks']} block(s)",
        "full": f"the weights of the last {a['blocks']} block(s) and of what follows them",
        "bottleneck": f"a residual bottleneck of {a['bottleneck']} units on the embedding; the encoder is unchanged",
    }
    return f"""# {spec.label} after SEAL

A pathology image encoder, {spec.label}, trained further on pairs of histology patches and measured gene expression
in the way of the paper "Towards Spatial Transcriptomics-driven Pathology Foundation Models" (arXiv 2602.14177).
**This is not the authors' model**: it was trained with an independent companion to that paper.

| | |
|---|---|
| base encoder | {f"[{spec.hub}]({spec.access})" if spec.hub else spec.access} |
| licence of the base weights, which binds these too | {spec.licence} |
| trained | {kinds[a["kind"]]} |
| input | {record["image_size"]} x {record["image_size"]} px at {profile.um_per_px:g} um/px, RGB |
| normalisation | mean {list(spec.mean)}, sd {list(spec.std)} of values in [0, 1] |
| embedding | {record["embedding_size"]} numbers, pooling: {spec.pooling} |"""


def _data(profile: Profile, panel: Panel) -> str:
    kind = (
        "**SIMULATED DATA.** This model has seen no real tissue. It shows that the software works; it must not be used "
        "to study tissue."
        if profile.simulated
        else "Real data."
    )
    return f"""## Data

{kind} Profile `{profile.name}`, source `{profile.source}`, {len(panel.donors)} training donors.

Gene panel: {len(panel.genes)} genes in the order of `panel.json`, SHA-256 of that order `{panel.hash}`. The first are
{", ".join(panel.genes[:8])}. Output i of the decoder (`decoder.safetensors`) is gene i of that file, as log1p of
counts per {profile.panel.target_sum:g} of the spot and its neighbours."""


def _settings(profile: Profile) -> str:
    rows = [
        {"stage": _STAGES[row["stage"]], "setting": row["setting"], "value": row["value"], "source": row["source"]}
        for row in setting_rows(profile)
        if row["stage"] in _STAGES
    ]
    return _table(rows)


def _training(record: Mapping[str, Any]) -> str:
    facts = {**record["training"], **{f"version of {name}": value for name, value in record["versions"].items()}}
    return _table([{"": name, "value": value} for name, value in facts.items()])


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(column)) for column in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if value is None or value != value:  # NaN: there is no number
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (tuple, list)):
        return ", ".join(_cell(item) for item in value)
    return str(value).replace("|", "\\|").replace("\n", " ")


def _code(text: str) -> str:
    return f"```python\n{text.strip()}\n```"


def _loading(spec: EncoderSpec, record: Mapping[str, Any]) -> str:
    parts = [
        "The folder of these files is the current one; `patch.png` is a square RGB patch at the scale above.",
        "With the companion that made it:",
        _code(_SEAL),
    ]
    if not may_share_derivatives(spec.licence):
        parts.append(
            f"{spec.licence} forbids sharing changed weights, so `model.safetensors` exists only where it was made. "
            f"Without it, `seal.load` puts the adapter on the base weights, and you need access to them: {spec.access}"
        )
    parts += [_PLAIN_TITLES[spec.family], _code(_plain(spec, record))]
    if record["adapter"]["kind"] == "lora":
        parts += ["The adapter alone, with PEFT, on the base model:", _code(_peft(spec, record))]
    return "\n\n".join(parts)


_SEAL = """
import torch
from PIL import Image

import seal

model, transform = seal.load(".")
with torch.inference_mode():
    z = model(transform(Image.open("patch.png"))[None])
"""

_PLAIN_TITLES = {
    "timm": "With timm alone (1.0.31 or newer); on the hub `hf-hub:USER/NAME` instead of `local-dir:.`:",
    "transformers": "With transformers alone:",
    "conch": "With the authors' `conch` package, whose image tower has these keys (at 448 px):",
}

_TIMM = """
import timm
import torch
from PIL import Image

model = timm.create_model("local-dir:.", pretrained=True).eval()
config = timm.data.resolve_data_config(model.pretrained_cfg, model=model)
transform = timm.data.create_transform(**config)
with torch.inference_mode():
    tokens = model.forward_features(transform(Image.open("patch.png").convert("RGB"))[None])
    z = {pooling}
"""

_TRANSFORMERS = """
import numpy as np
import torch
from PIL import Image
from transformers import AutoModel

model = AutoModel.from_pretrained(".").eval()
image = Image.open("patch.png").convert("RGB").resize(({size}, {size}), Image.Resampling.BICUBIC)
x = (torch.from_numpy(np.array(image)) / 255 - torch.tensor({mean})) / torch.tensor({std})
with torch.inference_mode():
    z = model(pixel_values=x.permute(2, 0, 1)[None]).last_hidden_state[:, 0]
"""

_CONCH = """
from conch.open_clip_custom import create_model_from_pretrained
from safetensors.torch import load_file

model, transform = create_model_from_pretrained("conch_ViT-B-16", "hf_hub:MahmoodLab/conch")
model.visual.load_state_dict(load_file("model.safetensors"), strict=True)
# z = model.encode_image(x, proj_contrast=False, normalize=False)
"""

_BOTTLENECK = """
from safetensors.torch import load_file

b = load_file("bottleneck.safetensors")
z = z + torch.relu(z @ b["down.weight"].T + b["down.bias"]) @ b["up.weight"].T + b["up.bias"]
"""

_SWIGLU = "arguments.update(mlp_layer=timm.layers.SwiGLUPacked, act_layer=torch.nn.SiLU)  # JSON cannot say it\n"


def _plain(spec: EncoderSpec, record: Mapping[str, Any]) -> str:
    first = 1 + spec.geometry.registers
    means = f"torch.cat([tokens[:, 0], tokens[:, {first}:].mean(dim=1)], dim=1)"
    size, mean, std = record["image_size"], list(spec.mean), list(spec.std)
    text = {
        "timm": _TIMM.format(pooling="tokens[:, 0]" if spec.pooling == "cls" else means),
        "transformers": _TRANSFORMERS.format(size=size, mean=mean, std=std),
        "conch": _CONCH,
    }[spec.family]
    return text + (_BOTTLENECK if record["adapter"]["kind"] == "bottleneck" else "")


def _peft(spec: EncoderSpec, record: Mapping[str, Any]) -> str:
    if spec.family == "timm" and spec.hub:
        swiglu = spec.geometry.swiglu
        imports = "import json\n\nimport peft\nimport timm\n" + ("import torch\n" if swiglu else "")
        arguments = '\narguments = json.load(open("config.json"))["model_args"]\n' + (_SWIGLU if swiglu else "")
        base = f'{imports}{arguments}base = timm.create_model("hf-hub:{spec.hub}", pretrained=True, **arguments)'
    elif spec.family == "transformers":
        base = f'import peft\nfrom transformers import AutoModel\n\nbase = AutoModel.from_pretrained("{spec.hub}")'
    else:
        name, size = record["encoder"]["name"], record["image_size"]
        base = (
            "import peft\n\nfrom seal.models import encoders\n\n"
            f'base = encoders.build("{name}", image_size={size}).model'
        )
    return base + '\nmodel = peft.PeftModel.from_pretrained(base, "adapter").eval()'


def _limits(record: Mapping[str, Any], profile: Profile, panel: Panel) -> str:
    lines = [
        "For research on histology images stained with haematoxylin and eosin; not for diagnosis or treatment.",
        f"It expects patches at {profile.um_per_px:g} um/px; at another scale it has not been tried.",
        "Predicted expression is an estimate from appearance: it does not replace a measurement.",
        f"It was trained on {len(panel.donors)} donors ({record['data']}, profile `{profile.name}`). Elsewhere it can "
        "be worse than the base encoder; compare the two on your own data.",
    ]
    return "## Intended use and limits\n\n" + "\n".join(f"- {line}" for line in lines)
