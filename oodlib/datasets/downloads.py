"""Published archives into the data folder: over https alone, checked by MD5, and never half there.

torchvision's own downloads write straight to a file's final name, start anew when broken off, and fall back to
plain http; hence this module.
"""

import hashlib
import os
import platform
import shutil
import ssl
import tarfile
import urllib.request
import zlib
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit

from oodlib.errors import InputError
from oodlib.files import lock

TIMEOUT = 30  # seconds in which nothing comes
# Bytes of an archive, and of what it unpacks to: several times those of any set in `published`, no danger to a disk.
LARGEST = 2**30


class Unavailable(InputError):
    """A file that is not in the data folder and cannot be fetched."""


class TooLarge(InputError):
    """A download is given up, since it has more than `LARGEST` bytes."""


class _HttpsRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request, file, code, message, headers, url):
        return super().redirect_request(request, file, code, message, headers, _checked(url))


def https_only(context: ssl.SSLContext | None = None) -> urllib.request.OpenerDirector:
    """An opener that is not led away from https by a redirect.

    Args:
        context: Whom to trust; the system's certificate authorities if None.
    """
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _HttpsRedirects())


def fetch(url: str, md5: str, folder: Path, opener: urllib.request.OpenerDirector | None = None) -> Path:
    """The file of `url` in `folder`, downloaded if it is not there yet.

    The bytes go to `<name>.part`, which a later call goes on with, and which is renamed once its MD5 is right.

    Raises:
        Unavailable: It is not there and cannot be fetched.
        InputError: It is there, with another MD5.
    """
    file = folder / Path(urlsplit(url).path).name
    if file.exists():
        if _md5(file) != md5:
            raise InputError(f"{file} is damaged, its MD5 is not {md5}; remove it to have it fetched again")
        return file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lock(file):
            if not file.exists():
                part = file.with_name(f"{file.name}.part")
                _download(_checked(url), part, opener or https_only())
                if _md5(part) != md5:
                    part.unlink()
                    raise OSError("what came has another MD5")
                os.replace(part, file)
    except (OSError, HTTPException, InputError) as error:
        raise Unavailable(f"{file} is not there and {url} cannot be fetched ({error})") from error
    return file


def unpacked(url: str, md5: str, folder: Path, opener: urllib.request.OpenerDirector | None = None) -> Path:
    """`folder`, if need be out of the tar archive of `url`, which holds it and lies or is fetched beside it.

    Raises:
        Unavailable: Neither folder nor archive is there, and the archive cannot be fetched.
        InputError: The archive is damaged or unpacks to more than `LARGEST`, a name in it leads out of the folder, or
            Python is too old to see that.
    """
    if folder.is_dir():
        return folder
    archive = fetch(url, md5, folder.parent, opener)
    if not hasattr(tarfile, "data_filter"):
        raise InputError(
            f"Python {platform.python_version()} cannot unpack {archive} safely; unpack it by hand, or take Python "
            "3.11.4 or newer"
        )
    part = folder.with_name(f"{folder.name}.part")
    try:
        with lock(archive):
            if not folder.is_dir():
                try:
                    with tarfile.open(archive) as tar:
                        _check_members(tar)
                        tar.extractall(part, filter="data")
                    os.replace(part / folder.name, folder)
                finally:
                    shutil.rmtree(part, ignore_errors=True)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise InputError(f"{archive} cannot be unpacked to {folder} ({error})") from error
    return folder


def _check_members(tar: tarfile.TarFile) -> None:
    """Raise `TarError` unless all members are files and folders of plain names, together of at most `LARGEST` bytes.

    Links are refused, inward ones too: by chains of them an archive writes outside despite the filter (CVE-2025-4517).
    """
    size = 0
    for member in tar:  # read one by one, since a small archive may hold endless headers
        if not (member.isreg() or member.isdir()):
            raise tarfile.TarError(f"{member.name!r} in it is neither a file nor a folder")
        if "\0" in member.name:
            raise tarfile.TarError(f"the name {member.name!r} in it holds a NUL")
        size += 512 + max(member.size, 0)  # with its header
        if size > LARGEST:
            raise tarfile.TarError(f"it unpacks to more than {LARGEST / 2**20:.0f} MiB")


def _checked(url: str) -> str:
    if not url.startswith("https://"):
        raise OSError(f"{url} is refused, since it is not https")
    return url


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _download(url: str, part: Path, opener: urllib.request.OpenerDirector) -> None:
    """Bring `part` to its full length; when broken off, go on for as long as each attempt brings more."""
    while True:
        before = _size(part)
        try:
            return _append(url, part, opener)
        except (OSError, HTTPException):
            if _size(part) <= before:
                raise


def _append(url: str, part: Path, opener: urllib.request.OpenerDirector) -> None:
    """Ask for what `part` lacks and append it; write the whole where the server sends the whole."""
    start = _size(part)
    headers = {"User-Agent": "oodlib"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and start:  # nothing is left to send: killed just before the renaming
            return
        raise
    with response, open(part, "ab" if response.status == 206 else "wb") as file:
        print(f"fetching {url}" + (f", {response.length / 2**20:.0f} MiB" if response.length else ""))
        size = file.tell() + (response.length or 0)
        while size <= LARGEST and (block := response.read(2**16)):
            file.write(block)
            size = max(size, file.tell())  # a server need not say how much comes
        if size > LARGEST:
            part.unlink()
            raise TooLarge(f"it has more than {LARGEST / 2**20:.0f} MiB")
        if response.length:  # http.client ends a broken response like a whole one
            raise ConnectionError(f"the connection broke off, {response.length} bytes before the end")
