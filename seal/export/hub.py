"""Saved models put on the Hugging Face hub, if asked; `seal.export.load` fetches them."""

from pathlib import Path

from seal.errors import SealError, explain_hub_error
from seal.export.card import may_share_derivatives
from seal.export.load import MERGED, RECORD, hub_page, read_record


def push(folder: str | Path, repo_id: str, *, private: bool = True) -> str:
    """Upload a saved model.

    Where the base licence forbids sharing changed weights, all but those are uploaded: `seal.load` then puts the
    adapter on the base weights.

    Parameters
    ----------
    repo_id
        "user/name"; made if it does not exist.
    private
        Whether only its owner sees it.

    Returns
    -------
    The repository's address.

    Raises
    ------
    SealError
        The folder is damaged, its licence lets nothing of use be shared, the repository is public though a
        private one was asked for, or there is no network, token or access.
    """
    import huggingface_hub

    record = read_record(Path(folder))
    keep_back = set() if may_share_derivatives(record["licence"]) else {MERGED}
    # what the folder says it holds, and nothing that was put beside it later
    own = sorted({*record["files"], "README.md", RECORD} - keep_back)
    if keep_back and record["adapter"]["kind"] == "full":
        raise SealError(
            f"{record['licence']} forbids sharing changed weights, and in this model they are all there is",
            expected="an adapter beside the base weights",
            do="train with vision.adapter = 'lora' or 'bottleneck', or keep the model to yourself",
        )
    api = huggingface_hub.HfApi()
    try:
        address = str(api.create_repo(repo_id, private=private, exist_ok=True))
        exposed = private and not api.repo_info(repo_id).private
        if not exposed:
            api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                allow_patterns=own,
                commit_message=f"{record['encoder']['label']} after SEAL",
            )
    except Exception as error:  # as in `load.find_folder`
        raise explain_hub_error(
            error,
            f"cannot upload to {repo_id}",
            expected="a repository that your token can write to",
            address=hub_page(repo_id),
        ) from error
    if exposed:
        raise SealError(
            f"{repo_id} exists and is public",
            expected="a private repository, as asked for",
            do="make it private on the hub, choose another name, or call push(..., private=False)",
        )
    return address
