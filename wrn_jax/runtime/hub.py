"""The Hugging Face Hub: weights fetched from a repository, a folder published to one. Needs the package `huggingface_hub`.

HF_ENDPOINT names another server, HF_TOKEN or `hf auth login` says who one is; no token ever stands in a message.
"""

import importlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import reason

PREFIX = "hub:"
"""What the name of a repository begins with where a path may stand as well."""

WEIGHTS = ("model.safetensors", "best_model.pth", "pytorch_model.bin")
"""Files of weights that are looked for in a repository, the first that is there is taken."""

BESIDE = ("config.json", "evaluation.json")
"""What is fetched with them where it is there."""

_NAME = r"(?!.*(\.\.|--))[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}"
_SECRET = re.compile(r"\b(?:hf|api_org)_\w{8,}")


def fetch(name: str) -> Path:
    """The file of weights of USER/NAME or USER/NAME@REVISION, in the Hub's cache, with what is `BESIDE` it.

    Raises UserError.
    """
    repo, _, revision = name.partition("@")
    check_name(repo)
    hub = _package()
    options = {"endpoint": _endpoint()}
    for file in WEIGHTS:
        try:
            path = Path(hub.hf_hub_download(repo, file, revision=revision or None, **options))
        except hub.errors.EntryNotFoundError as error:
            if _is_unreachable(error, hub):
                raise UserError(f"{PREFIX}{name}: {_explained(error, hub)}") from None
            continue
        except Exception as error:  # of httpx, of the package, of the disk
            raise UserError(f"{PREFIX}{name}: {_explained(error, hub)}") from None
        for other in BESIDE:
            try:
                hub.hf_hub_download(repo, other, revision=path.parent.name, **options)
            except Exception as error:
                if not isinstance(error, hub.errors.EntryNotFoundError) or _is_unreachable(error, hub):
                    raise UserError(f"{PREFIX}{name}: {other}: {_explained(error, hub)}") from None
        return path
    trouble = "is not in the cache, and HF_HUB_OFFLINE is set" if hub.is_offline_mode() else "holds no weights"
    raise UserError(f"{PREFIX}{name}: {trouble}; looked for {', '.join(WEIGHTS)}")


def is_of(path: Path, name: str) -> bool:
    """Whether a file that `fetch` gave is of the repository USER/NAME or USER/NAME@REVISION; the revision is not compared."""
    return f"models--{name.partition('@')[0].replace('/', '--')}" in path.parts


def read_text(repo: str, file: str) -> str | None:
    """The text of a file of the repository; None where there is no such file or repository. Raises UserError."""
    hub = _package()
    try:
        path = hub.hf_hub_download(repo, file, endpoint=_endpoint())
    except (hub.errors.RemoteEntryNotFoundError, hub.errors.RepositoryNotFoundError):
        return None
    except Exception as error:
        raise UserError(f"{PREFIX}{repo}: {file}: {_explained(error, hub)}") from None
    return Path(path).read_text(encoding="utf-8", errors="replace")


def push(folder: Path, repo: str, names: Sequence[str], gone: Sequence[str], message: str) -> str:
    """Uploads files of a folder by their names, in a repository that is made if it is not there; its address.

    Files of the names in `gone` are deleted there, in the same commit. Raises UserError.
    """
    check_name(repo)
    hub = _package()
    api = hub.HfApi(endpoint=_endpoint())
    try:
        url = str(api.create_repo(repo, exist_ok=True))
        api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message=message,
            allow_patterns=list(names),
            delete_patterns=list(gone) or None,
        )
    except Exception as error:
        raise UserError(f"{PREFIX}{repo}: could not be written to: {_explained(error, hub)}") from None
    return url


def check_installed() -> None:
    """Raises UserError where the package is not installed."""
    _package()


def without_secrets(text: str) -> str:
    """The text with what looks like a token of the Hub, or is the one in use, replaced."""
    token = os.environ.get("HF_TOKEN")
    return _SECRET.sub("***", text.replace(token, "***") if token else text)


def check_name(repo: str) -> None:
    """Raises UserError for what is no USER/NAME."""
    if not re.fullmatch(_NAME, repo):
        raise UserError(f"{without_secrets(repo)!r}: is no repository of the Hub; should be USER/NAME")


def _package() -> Any:
    try:
        hub = importlib.import_module("huggingface_hub")
        importlib.import_module("huggingface_hub.errors")
    except ImportError:
        raise UserError("the Hub is reached by huggingface_hub, which is not installed: pip install 'wrn_jax[hub]'") from None
    return hub


def _is_unreachable(error: Exception, hub: Any) -> bool:
    """Whether a file could not be asked for, though the Hub is to be asked: that it is not there is not known."""
    return isinstance(error, hub.errors.LocalEntryNotFoundError) and not hub.is_offline_mode()


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT")  # now, since the package looks when it is imported


def _explained(error: Exception, hub: Any) -> str:
    kinds = {
        "GatedRepoError": "asks for permission; ask for it on its page, and log in (hf auth login)",
        "RepositoryNotFoundError": "there is no such repository, or it is private; hf auth login says who you are",
        "RevisionNotFoundError": "has no such revision",
        "LocalEntryNotFoundError": "could not be reached, and is not in the cache",
        "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set",
    }
    for kind, text in kinds.items():
        if isinstance(error, getattr(hub.errors, kind)):
            return text
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "you may not; log in with a token that may write (hf auth login)"
    return without_secrets(reason(error))
