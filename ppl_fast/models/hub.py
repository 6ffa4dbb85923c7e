"""Models by their names on the Hugging Face Hub: through huggingface_hub, its cache, settings and offline mode."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ppl_fast._extras import needing
from ppl_fast.models.checkpoint import CONFIG, WEIGHTS

NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")  # org/name
FILES = [WEIGHTS, CONFIG, "confidence.json", "joints.json", "joints.safetensors"]  # nothing else is fetched


def local(
    name: str | os.PathLike[str], revision: str | None = None, cache_dir: str | os.PathLike[str] | None = None
) -> Path:
    """The folder of a model: `name` itself, or where that is none and has the form org/name, the hub's in the cache.

    Args:
        name: of a folder, or on the hub.
        revision: branch, tag or commit on the hub; None for its main branch.
        cache_dir: in place of huggingface_hub's own.

    Raises:
        FileNotFoundError: there is neither a folder nor a model or revision of this name.
        ImportError: the extra `hub` is not installed.
        OSError: the hub cannot be reached, and the cache does not have it.
        ValueError: a revision of a folder.
    """
    text = os.fspath(name)
    if Path(text).is_dir() or not NAME.fullmatch(text):
        if revision is not None:
            raise ValueError(f"from_pretrained: revision is for models on the hub, got {revision!r} for {text}")
        return Path(text)
    with needing(f"{text} is no folder, and models on the hub need", "hub"):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
    try:
        return Path(
            snapshot_download(
                text,
                revision=revision,
                cache_dir=None if cache_dir is None else Path(cache_dir),
                allow_patterns=FILES,
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
