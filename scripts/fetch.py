"""One file over HTTP that may be broken off at any byte and gone on with later.

What has arrived lies in NAME.part, what the server said of the file in NAME.part.json; the file gets its name when its
length, and its checksum where the server publishes one, are right.
"""

import base64
import hashlib
import http.client
import json
import re
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from email.message import Message
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import HTTPError, URLError

from program import size_text
from tqdm import tqdm

from msth_taichi.errors import DataError, RunError
from msth_taichi.files import write_json

BLOCK = 1 << 20
_PASSING = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Remote:
    """What a server said of a file.

    Args:
        url: where it was asked for.
        validator: strong ETag or date of the version; empty if the server names none.
        total: bytes, None if unknown.
        digest: name of a hash and its hexadecimal value, or empty.
    """

    url: str
    validator: str = ""
    total: int | None = None
    digest: tuple[str, ...] = ()


class _DroppedError(Exception):
    """The transfer ended before the file did; asking again may help."""


def fetch(
    url: str, target: Path, *, attempts: int = 5, pause: float = 1.0, timeout: float = 60.0, hint: str = ""
) -> Path:
    """Download `url` to `target`, from where an earlier call stopped.

    A target that exists is complete and left alone. A request that brings nothing is repeated, with longer and
    longer pauses.

    Args:
        attempts: requests in a row that may bring nothing.
        pause: seconds before the second of them; doubles each time.
        timeout: seconds without a byte after which a connection counts as lost.
        hint: what to do if the server does not have the file.
    Raises:
        DataError: the server does not have the file, or what arrived is not what it announced.
        RunError: the network is lost, or the disk is full; the partial file is kept.

    Example:
        >>> fetch("https://example.org/scene.zip", Path("data/scene.zip"))  # doctest: +SKIP
        PosixPath('data/scene.zip')
    """
    if target.exists():
        return target
    part = _beside(target, ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    failures, most = 0, _size(part)
    while True:
        try:
            remote = _request(url, target, timeout, hint)
            break
        except _DroppedError as error:
            # more than ever before: a server may take back what it sent, again and again
            failures = 0 if _size(part) > most else failures + 1
            most = max(most, _size(part))
            if failures >= attempts:
                kept = f"{size_text(_size(part))} are kept in {part}" if _size(part) else "nothing has arrived"
                raise RunError(f"{url}: {error}; {kept}; check the network, then run the same command") from error
            delay = pause * 2**failures
            print(f"{error}; asking again in {delay:.0f} s", file=sys.stderr)
            time.sleep(delay)
    _check_digest(part, remote)
    part.replace(target)
    _beside(target, ".part.json").unlink(missing_ok=True)
    return target


def published_digest(replies: Sequence[Message], whole: bool) -> tuple[str, ...]:
    """The checksum of the whole file that the headers of a chain of redirects carry, strongest first.

    Google's storage sends `x-goog-hash`, Azure's (GitHub releases) `x-ms-blob-content-md5`, Hugging Face the SHA-256 as
    `x-linked-etag`. `whole`: the last reply is the whole file, so that its Content-MD5 counts.

    Example:
        >>> headers = Message()
        >>> headers["x-goog-hash"] = "md5=1B2M2Y8AsgTpgAmY7PhCfg=="
        >>> published_digest([headers], whole=True)
        ('md5', 'd41d8cd98f00b204e9800998ecf8427e')
    """
    for headers in replies:
        tag = headers.get("x-linked-etag", "").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", tag):
            return ("sha256", tag)
    coded = [
        item.strip().removeprefix("md5=")
        for headers in replies
        for item in ",".join(headers.get_all("x-goog-hash", [])).split(",")
        if item.strip().startswith("md5=")
    ]
    coded += [headers["x-ms-blob-content-md5"] for headers in replies if "x-ms-blob-content-md5" in headers]
    if whole:
        coded += [headers["content-md5"] for headers in replies[-1:] if "content-md5" in headers]
    for text in coded:
        try:
            value = base64.b64decode(text, validate=True)
        except ValueError:
            continue
        if len(value) == 16:
            return ("md5", value.hex())
    return ()


def _request(url: str, target: Path, timeout: float, hint: str) -> Remote:
    """Ask once for what is missing and append it; the file is complete when this returns."""
    part, note = _beside(target, ".part"), _beside(target, ".part.json")
    known = _read_note(note, url)
    have = _size(part) if known else 0
    if known and known.total is not None and have == known.total:
        return known
    headers = {"User-Agent": "msth-taichi", "Accept-Encoding": "identity"}
    if known and have:
        headers["Range"] = f"bytes={have}-"
        if known.validator:
            headers["If-Range"] = known.validator
    redirects = _Redirects()
    try:
        request = urllib.request.Request(url, headers=headers)
        response = urllib.request.build_opener(redirects).open(request, timeout=timeout)
    except HTTPError as error:
        error.close()
        if error.code == 416 and known and have:
            if error.headers.get("content-range", "").rpartition("/")[2] == str(have):
                return replace(known, total=have)  # the first answer promised more than there is
            part.unlink()  # shorter than what is here: another version, so begin again
            raise _DroppedError("has another version of the file now") from error
        if error.code in _PASSING:
            raise _DroppedError(f"the server answers {error.code} ({error.reason})") from error
        raise DataError(
            f"{url}: the server answers {error.code} ({error.reason}); {hint or 'check the URL'}"
        ) from error
    except (URLError, OSError, http.client.HTTPException) as error:
        raise _DroppedError(_reason(error)) from error
    except ValueError as error:
        raise DataError(f"{url}: not a URL ({error}); write https://...") from error
    with response:
        replies = [*redirects.replies, response.headers]
        if response.headers.get_content_type() == "text/html" and target.suffix != ".html":
            raise DataError(f"{url}: a web page came instead of the file; {hint or 'open the URL in a browser'}")
        start = _agreed_start(response, known, have, part)
        if not start:
            part.unlink(missing_ok=True)
        whole = response.status == 200
        digest = published_digest(replies, whole) or (known.digest if known and not whole else ())
        remote = Remote(url, _validator(response.headers), _total(response), digest)
        write_json(note, asdict(remote))
        _append(response, part, start, remote)
    if remote.total is None:
        remote = replace(remote, total=_size(part))
        write_json(note, asdict(remote))
    return remote


def _agreed_start(response: Any, known: Remote | None, have: int, part: Path) -> int:
    """The byte at which the answer begins: `have`, or 0 where the server sends the whole file."""
    if response.status == 200:
        return 0
    match = re.match(r"bytes (\d+)-\d*/(\d+|\*)", response.headers.get("content-range", ""))
    validator = _validator(response.headers)
    same = known is not None and (not known.validator or not validator or known.validator == validator)
    length = None if match is None or match[2] == "*" else int(match[2])
    same = same and (length is None or known is None or known.total in (None, length))
    if response.status != 206 or match is None or int(match[1]) != have or not same:
        part.unlink(missing_ok=True)
        raise _DroppedError("sends another part or version of the file than was asked for")
    return have


def _append(response: Any, part: Path, start: int, remote: Remote) -> None:
    progress = tqdm(
        total=remote.total, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=None, leave=False
    )
    with part.open("r+b" if start else "wb", buffering=0) as file, progress:
        file.seek(start)
        while block := _read(response):
            try:
                _write(file, block)
            except OSError as error:
                raise RunError(
                    f"{part}: cannot be written ({error.strerror}); {size_text(_size(part))} are kept: "
                    "free the disk, then run the same command"
                ) from error
            progress.update(len(block))
    size = _size(part)
    if remote.total is not None and size < remote.total:
        raise _DroppedError(f"the connection ended after {size} of {remote.total} bytes")
    if remote.total is not None and size > remote.total:
        part.unlink()
        raise DataError(f"{remote.url}: {size} bytes came, but {remote.total} were announced; run the command again")


def _read(response: Any) -> bytes:
    try:
        return response.read1(BLOCK)  # what has come, so that a lost connection loses nothing
    except (OSError, http.client.HTTPException) as error:
        raise _DroppedError(_reason(error)) from error


def _write(file: BinaryIO, block: bytes) -> None:
    # unbuffered, so that what the disk took before it was full counts
    view = memoryview(block)
    while view:
        view = view[file.write(view) :]


def _check_digest(part: Path, remote: Remote) -> None:
    if not remote.digest:
        return
    name, expected = remote.digest
    found = hashlib.new(name, usedforsecurity=False)
    with (
        part.open("rb") as file,
        tqdm(total=_size(part), unit="B", unit_scale=True, desc=f"check {name}", disable=None, leave=False) as progress,
    ):
        while block := file.read(BLOCK):
            found.update(block)
            progress.update(len(block))
    if found.hexdigest() != expected:
        # no byte of it can be trusted, so that the next call begins at the first
        part.unlink()
        _beside(part.with_suffix(""), ".part.json").unlink(missing_ok=True)
        raise DataError(
            f"{remote.url}: {name} is {found.hexdigest()}, but the source says {expected}; "
            "the file was damaged on the way and is removed: run the command again"
        )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects and keeps their headers: checksums come with the first reply, not with the last."""

    def __init__(self) -> None:
        self.replies: list[Message] = []

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        self.replies.append(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _validator(headers: Message) -> str:
    tag = headers.get("etag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("last-modified", "")


def _total(response: Any) -> int | None:
    text = response.headers.get("content-length", "")
    if response.status == 206:
        text = response.headers.get("content-range", "").rpartition("/")[2]
    return int(text) if text.isdigit() else None


def _read_note(note: Path, url: str) -> Remote | None:
    """What an earlier call noted of the same URL; None if there is nothing to go on from."""
    try:
        values = json.loads(note.read_text())
        remote = Remote(values["url"], values["validator"], values["total"], tuple(values["digest"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return remote if remote.url == url else None


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", None) or error
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return f"the network is lost ({text})"


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
