"""The model card of a saved model, card.md filled in: everything somebody needs who finds the folder without us."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from seal.data.panel import Panel
from seal.errors import SealError
from seal.models.encoder_registry import EncoderSpec
from seal.profiles import Profile, setting_rows

_LIBRARIES = {"timm": "timm", "transformers": "transformers", "conch": "pytorch"}
# Identifiers that the hub knows; any other licence is written as "other" with its name and link.
_HUB_LICENCES = {"mit", "apache-2.0", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-sa-4.0"}
_STAGES = {"panel": "gene panel", "omics": "1, SEAL-omics", "vision": "2, SEAL-vision", "compute": "2, computation"}
_TRAINED = {
    "lora": "LoRA (rank {rank}, alpha {alpha}) on {linears} linears of the last {blocks} block(s)",
    "full": "the weights of the last {blocks} block(s) and of what follows them",
    "bottleneck": "a residual bottleneck of {bottleneck} units on the embedding; the encoder is unchanged",
    "bottleneck_twice": "a bottleneck of {bottleneck} units, twice, on the embedding; the encoder is unchanged",
}
# An absolute path in any system's way, or a token of the hub: neither may be published.
_PRIVATE = re.compile(r"(?:^|[\s'\"=(\[])(?:/|~/|[A-Za-z]:\\)\w|hf_[A-Za-z0-9]{20}")


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
    """Write the model card: Markdown with the hub's YAML header.

    Parameters
    ----------
    spec
        The base encoder.
    record
        The content of seal.json.
    results
        Rows as an evaluation gives them, one mapping a row; all of them are shown.

    Raises
    ------
    SealError
        It would hold a local path or a token.
    """
    tokens = [1 + spec.geometry.registers + (k * record["image_size"] // spec.geometry.patch) ** 2 for k in (1, 2)]
    facts = {**record["training"], **{f"version of {name}": value for name, value in record["versions"].items()}}
    settings = [
        {"stage": _STAGES[row["stage"]], "setting": row["setting"], "value": row["value"], "source": row["source"]}
        for row in setting_rows(profile)
        if row["stage"] in _STAGES
    ]
    text = _read_template().render(
        spec=spec,
        record=record,
        profile=profile,
        panel=panel,
        header=_header(spec, record),
        tokens=tokens,
        trained=_TRAINED[record["adapter"]["kind"]].format_map(record["adapter"]),
        mean=list(spec.mean),
        sd=list(spec.std),
        shareable=may_share_derivatives(spec.licence),
        settings=settings,
        training=[{"": name, "value": value} for name, value in facts.items()],
        results=results,
    )
    if found := _PRIVATE.search(text):
        raise SealError(
            f"the model card would hold {found.group().strip()!r}..., a local path or a token",
            expected="results and training notes that can be published",
            do="take that value out of `results` or `training`",
        )
    return text


def _read_template() -> jinja2.Template:
    """Read card.md; a name in it that is not given raises."""
    lines = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}  # a tag's own line leaves none
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, **lines)
    environment.filters.update(quoted=json.dumps, cell=_cell, table=_table)
    return environment.from_string(Path(__file__).with_name("card.md").read_text(encoding="utf-8"))


def _header(spec: EncoderSpec, record: Mapping[str, Any]) -> dict[str, str]:
    licence = spec.licence.lower()
    header = {"license": licence if licence in _HUB_LICENCES else "other"}
    if licence not in _HUB_LICENCES:
        header["license_name"] = re.sub(r"[^a-z0-9.]+", "-", licence).strip("-")
        header["license_link"] = spec.access
    header["library_name"] = _LIBRARIES[spec.family]
    header["pipeline_tag"] = "image-feature-extraction"
    if spec.hub:
        header["base_model"] = spec.hub
        header["base_model_relation"] = "finetune" if record["adapter"]["kind"] == "full" else "adapter"
    return header


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
