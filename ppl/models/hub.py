"""Models on the Hugging Face Hub, in the file format of the library."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download
from typing_extensions import Self

from ppl.errors import PPLError
from ppl.io import atomic_write
from ppl.models.card import model_card

__all__ = ["HubMixin", "set_file_format"]

_FILE = "model.safetensors"
_FORMATS: dict[type, tuple[Callable[[Any, Path], None], Callable[[Path], Any]]] = {}


def set_file_format(kind: type, save: Callable[[Any, Path], None], load: Callable[[Path], Any]) -> None:
    """Say how models of a class are written to a file and read again; the functions' module calls this.

    Args:
        kind: the class, a `HubMixin`.
        save: function `save(model, path)`.
        load: function `load(path) -> model`.
    """
    _FORMATS[kind] = save, load


class HubMixin:
    """Give a model the methods `save_pretrained`, `from_pretrained` and `push_to_hub`.

    A folder or repository holds `model.safetensors`, as the library's own save functions write it (settings and classes
    lie in its header), and `README.md`, the model card. Nothing is unpickled.
    """

    classes: tuple[str, ...] | None
    config: Any

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        run: str | os.PathLike[str] | None = None,
        repo_id: str | None = None,
    ) -> None:
        """Write the model and its card into a folder.

        Args:
            folder: the folder, made if missing.
            run: folder of the run that trained the model; its manifest and recipe fill the model card with data,
                scores, and thresholds with the split that they were chosen on.
            repo_id: name of the model on the Hub, for the card.

        Raises:
            PPLFileNotFoundError: if `run` holds no manifest.
            PPLValueError: if `run` trained a model of other classes.
            FileWriteError: if the folder cannot be written to.
        """
        config: Mapping[str, Any] = self.config
        card = model_card(type(self).__name__, config, self.classes, run, repo_id)
        _FORMATS[type(self)][0](self, Path(folder) / _FILE)
        with atomic_write(Path(folder) / "README.md", "w") as file:
            file.write(card)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Return the model of a folder of `save_pretrained`, or of a repository of the Hub.

        Args:
            source: the folder, or the name of the repository ("user/name"), whose file is downloaded if it is not in
                the cache.
            revision: branch, tag or commit of the repository.
            token: token of the Hub for a private repository; None: the one of `hf auth login`.
            cache_dir: folder of the downloads; None: the Hub's own.

        Returns:
            The model, on the CPU, in eval mode.

        Raises:
            PPLError: if the repository or its file is not available.
            PPLFileNotFoundError: if the folder holds no model.
            PPLValueError: if the file holds another kind of model.
        """
        if Path(source).is_dir():
            return cls._read(Path(source) / _FILE)
        try:
            cache = None if cache_dir is None else Path(cache_dir)
            path = hf_hub_download(str(source), _FILE, revision=revision, token=token, cache_dir=cache)
        except (OSError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise PPLError(
                f"{os.fspath(source)} is no folder, and the Hub gives no {_FILE} of it ({reason}): check the name, the "
                "connection, and the token of a private repository"
            ) from error
        return cls._read(Path(path))

    @classmethod
    def _read(cls, path: Path) -> Self:
        model = _FORMATS[cls][1](path)
        assert isinstance(model, cls)
        model.eval()  # type: ignore[attr-defined]
        return model

    def push_to_hub(
        self,
        repo_id: str,
        *,
        run: str | os.PathLike[str] | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str = "Add the model and its card",
    ) -> str:
        """Upload the model and its card to a repository of the Hub, which is made if it is missing.

        Args:
            repo_id: name of the repository, "user/name".
            run: folder of the run that trained the model, see :meth:`save_pretrained`.
            private: whether a new repository is private; None: the owner's default.
            token: token of the Hub with write access; None: the one of `hf auth login`.
            revision: branch; None: the main one.
            commit_message: message of the commit.

        Returns:
            The address of the commit.

        Raises:
            PPLFileNotFoundError: if `run` holds no manifest.
            PPLError: if the Hub refuses the upload.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, run=run, repo_id=repo_id)
            api = HfApi(token=token)
            try:
                api.create_repo(repo_id, private=private, exist_ok=True)
                commit = api.upload_folder(
                    repo_id=repo_id, folder_path=folder, revision=revision, commit_message=commit_message
                )
            except (OSError, ValueError) as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise PPLError(f"the Hub refuses {repo_id}: {reason}; log in with `hf auth login`") from error
        return str(commit)
