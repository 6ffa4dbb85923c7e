"""Models by their names on the Hugging Face Hub: through huggingface_hub, its cache, settings and offline mode."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppl_fast._extras import needing
from ppl_fast._files import write_text
from ppl_fast.models import checkpoint
from ppl_fast.models.card import CARD, card, check_license

if TYPE_CHECKING:
    from ppl_fast.models.base import KeypointModel

NAME = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([^\s@]+))?")  # org/name, or org/name@revision
PICTURES = ["prior.png", "connectivity.png", "poses.png"]
SENT = [*checkpoint.FILES, CARD, *PICTURES]  # nothing else is, and these are replaced or removed


def is_name(text: str | os.PathLike[str]) -> bool:
    """Whether this is no folder, and has the form org/name or org/name@revision."""
    return not Path(text).is_dir() and NAME.fullmatch(os.fspath(text)) is not None


def local(
    name: str | os.PathLike[str], revision: str | None = None, cache_dir: str | os.PathLike[str] | None = None
) -> Path:
    """The folder of a model: `name` itself, or where that is none and has the form org/name, the hub's in the cache.

    Args:
        name: of a folder, or on the hub, where org/name@revision names a revision as well.
        revision: branch, tag or commit on the hub; None for its main branch.
        cache_dir: in place of huggingface_hub's own.

    Raises:
        FileNotFoundError: there is neither a folder nor a model or revision of this name.
        ImportError: the extra `hub` is not installed.
        OSError: the hub cannot be reached, and the cache does not have it.
        ValueError: a revision of a folder, or two of them.
    """
    text = os.fspath(name)
    found = NAME.fullmatch(text)
    if Path(text).is_dir() or not found:
        if revision is not None:
            raise ValueError(f"from_pretrained: revision is for models on the hub, got {revision!r} for {text}")
        return Path(text)
    if found[2] is not None and revision is not None:
        raise ValueError(f"from_pretrained: expected one revision, got {revision!r} for {text}")
    text, revision = found[1], revision or found[2]
    with needing(f"{text} is no folder, and models on the hub need", "hub"):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
    try:
        return Path(
            snapshot_download(
                text,
                revision=revision,
                cache_dir=None if cache_dir is None else Path(cache_dir),
                allow_patterns=checkpoint.FILES,
                library_name="ppl_fast",
            )
        )
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{text} on the hub has no revision {revision}") from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{text} is neither a folder nor a model on the hub that may be read from here"
        ) from error
    except LocalEntryNotFoundError as error:
        raise OSError(f"{text} is no folder; the hub was not reached, and its cache does not have the model") from error


def title(folder: Path) -> str:
    """What to call the folder of a model or run: by its name, or in the hub's cache by the model's."""
    kept = folder.parent.parent.name  # models--org--name/snapshots/COMMIT
    if folder.parent.name == "snapshots" and kept.startswith("models--"):
        return kept.removeprefix("models--").replace("--", "/", 1)
    return folder.name


def push(model: KeypointModel, name: str, *, license: str, private: bool = False, revision: str | None = None) -> str:
    """Send a model and a card that describes it to the hub; `ppl-fast push` sends what a run has beside it as well.

    Args:
        model: as `save_pretrained` takes it; options of the machine, such as where weights are found, are not sent.
        name: org/name; it is made where it is not there.
        license: as the hub names them, such as mit or cc-by-4.0.
        private: whether none but the owner may read it.
        revision: the branch to send to, made where it is not there; None for the main one.

    Returns:
        The address of the commit.

    Raises:
        ImportError: the extra `hub` is not installed.
        OSError: the hub is not reached, or refuses; the sentence says why.
        ValueError: a wrong name or licence, or the model is a copy that `optimize` made.
    """
    check(name, license)
    with tempfile.TemporaryDirectory(prefix="ppl_fast_") as folder:
        model.save_pretrained(folder)
        without_machine(Path(folder), model)
        write_text(Path(folder, CARD), card(model, name, license, revision=revision))
        return send(Path(folder), name, private=private, revision=revision)


def check(name: str, license: str) -> None:
    """Raise a ValueError where this is no name, or no licence; an ImportError where nothing can be sent."""
    found = NAME.fullmatch(name)
    if not found or found[2]:
        raise ValueError(f"push: a model on the hub is named org/name, got {name}")
    check_license(license)
    with needing("models are sent to the hub by", "hub"):
        import huggingface_hub  # noqa: F401


def without_machine(folder: Path, model: KeypointModel) -> None:
    """Write a saved model's options anew without those of the machine, which may name its folders."""
    options = {name: value for name, value in model.config.items() if name not in model.Config.machine}
    checkpoint.write_config(folder, model.architecture, options)


def send(folder: Path, name: str, *, private: bool = False, revision: str | None = None) -> str:
    """Send the files of a folder in one commit, which takes away what earlier ones left of `SENT`.

    Arguments, and what it returns and raises, as `push`.
    """
    from huggingface_hub import HfApi

    other = sorted({path.name for path in folder.iterdir()} - set(SENT))
    if other:
        raise ValueError(f"push: expected none but {', '.join(SENT)} to send, got {other[0]}")
    api = HfApi(library_name="ppl_fast")
    shown: dict[str, Any] = {"private": True} if private else {}  # else as its owner has it
    try:
        api.create_repo(name, exist_ok=True, **shown)
        if private and not api.model_info(name).private:
            raise ValueError(f"push: {name} is there already, and public; make it private on the hub first")
        if revision not in (None, "main"):
            api.create_branch(name, branch=str(revision), exist_ok=True)
        return api.upload_folder(
            repo_id=name,
            folder_path=folder,
            revision=revision,
            commit_message="A model of ppl_fast",
            delete_patterns=SENT,
        ).commit_url
    except ValueError:
        raise
    except Exception as error:  # of the library for HTTP, which is another one from version to version
        raise OSError(f"push: {name} was not sent to the hub: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Why the hub could not be written to, in a sentence."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    response = getattr(error, "response", None)
    if response is not None and response.status_code in (401, 403):
        return f"it refuses (HTTP {response.status_code}); log in by `hf auth login`, or set HF_TOKEN"
    text = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
    return f"{constants.ENDPOINT} says: {text}" if response is not None else f"{constants.ENDPOINT}: {text}"
