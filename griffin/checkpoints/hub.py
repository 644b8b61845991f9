"""Repositories on the Hugging Face Hub, through its own client and its own cache.

HF_HOME, HF_TOKEN and HF_HUB_OFFLINE mean here what they mean there.
"""

from __future__ import annotations

import re
from pathlib import Path

from griffin.checkpoints.errors import CheckpointError

# Weights that are not code, and what belongs to them; pickles and Python files never arrive.
PATTERNS = ["*.safetensors", "*.json", "*.jinja", "tokenizer*"]


def is_repo_id(text: str) -> bool:
    """Return whether a text could name a repository: "owner/name"."""
    return re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*", text) is not None


def download(repo: str, revision: str | None = None) -> Path:
    """Fetch a repository into the Hub's cache, or find it there, and return its folder.

    Raises CheckpointError with one line and what to do: a licence not accepted, no such repository
    or revision, no network and nothing cached.
    """
    import huggingface_hub
    from huggingface_hub import errors

    where = f"huggingface.co/{repo}"
    try:
        return Path(
            huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=PATTERNS)
        )
    except errors.GatedRepoError:
        raise CheckpointError(_gated(repo, where)) from None
    except errors.RevisionNotFoundError:
        raise CheckpointError(
            f"{where} has no revision {revision!r}; expected a branch, tag or commit"
        ) from None
    except errors.RepositoryNotFoundError:
        raise CheckpointError(
            f"there is no {where} that you can see; check the name (owner/name), or log in with "
            "`hf auth login` if it is private"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        asked = f" at revision {revision!r}" if revision else ""
        reason = "HF_HUB_OFFLINE is set" if _offline() else "the Hub cannot be reached"
        raise CheckpointError(
            f"{repo}{asked} is not in the local cache and {reason}; connect once, or give a folder"
        ) from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise CheckpointError(_gated(repo, where)) from None
        raise CheckpointError(f"{where} answered {status}: {str(error).splitlines()[0]}") from None
    except errors.HFValidationError as error:
        raise CheckpointError(
            f"{repo!r} is no repository name: {str(error).splitlines()[0]}"
        ) from None
    except _http_error() as error:
        raise CheckpointError(
            f"the download of {where} broke off ({type(error).__name__}); run it again, what"
            " arrived is kept"
        ) from None


def _http_error() -> type[Exception]:
    """Return the base of what the client's HTTP library raises; its versions use different
    libraries."""
    from huggingface_hub import errors

    base = errors.HfHubHTTPError.__bases__[0]
    assert issubclass(base, Exception)
    return base


def _gated(repo: str, where: str) -> str:
    terms = "the Gemma terms of use" if repo.startswith("google/") else "its licence"
    return (
        f"{where} is gated: accept {terms} at https://{where}, then log in with `hf auth login` "
        "(or set HF_TOKEN to a token that may read it)"
    )


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
