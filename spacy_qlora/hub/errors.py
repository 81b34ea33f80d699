"""What the hub's library raises, as errors of one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from spacy_qlora.engine.source import hub_errors
from spacy_qlora.errors import InputError, RunError

# requests, httpx or httpx2, by the version of the hub's library. Errors of the disk are OSErrors too.
TRANSPORT: tuple[type[Exception], ...] = (*HfHubHTTPError.__bases__, OSError)


@contextmanager
def repository_errors(repo: str) -> Iterator[None]:
    """Like `hub_errors` for the cache, the network and gated repositories, and tells the hub's other refusals apart."""
    with hub_errors(repo):
        try:
            yield
        except (GatedRepoError, HFValidationError, LocalEntryNotFoundError):
            raise
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            raise InputError("Q806", repo=repo) from error
        except HfHubHTTPError as error:
            raise _answer(repo, error.response.status_code) from error
        except TRANSPORT as error:
            if getattr(error, "errno", None) is not None:
                raise
            raise RunError("Q807", repo=repo, reason=type(error).__name__) from error


@contextmanager
def refusals(error: InputError) -> Iterator[None]:
    """Raises `error` where the hub's library itself refuses what it is given; within `repository_errors`."""
    try:
        yield
    except (HFValidationError, OSError):  # of the repository's name; of the network and the cache, some ValueErrors too
        raise
    except ValueError as cause:
        raise error from cause


def _answer(repo: str, status: int) -> InputError | RunError:
    if status == 401:
        return InputError("Q804", repo=repo)
    if status == 403:
        return InputError("Q805", repo=repo)
    if status == 400:
        return InputError("Q811", repo=repo)
    return RunError("Q807", repo=repo, reason=f"it answers {status}")
