"""Against an https server on this machine: it breaks off, ignores Range, redirects, or answers an error."""

import hashlib
import io
import os
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError

import pytest
from conftest import can_unpack

from oodlib.datasets import downloads
from oodlib.datasets.downloads import Unavailable, fetch, https_only, unpacked
from oodlib.errors import InputError

CONTENT = bytes(range(256)) * 4096  # 1 MiB
MD5 = hashlib.md5(CONTENT).hexdigest()


class Site:
    """What the server does, and the Range of each request that it got."""

    def __init__(self, port: int, certificate: str):
        self.url, self.certificate = f"https://127.0.0.1:{port}/files/set.tar?dl=1", certificate
        self.opener = https_only(ssl.create_default_context(cafile=certificate))
        self.content, self.heeds_range, self.location, self.status = CONTENT, True, None, 200
        self.tells_length = True
        self.stops: list[int] = []
        """How many bytes the first, second, ... request gets before the connection is closed; later ones get all."""
        self.hold = threading.Event()
        """Where cleared, a connection that stops stays open until it is set."""
        self.hold.set()
        self.ranges: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        site = self.server.site
        asked = self.headers["Range"]
        site.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and site.heeds_range else 0
        body = site.content[start:]
        if site.location and not self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", site.location)
            body = b""
        elif start >= len(site.content):
            self.send_response(416)
        else:
            self.send_response(206 if start else site.status)
        if site.tells_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: site.stops.pop(0)] if site.stops else body)
        self.wfile.flush()
        site.hold.wait(10)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if not shutil.which("openssl"):
        pytest.skip("needs the openssl command, for a certificate of the test's own server")
    folder = tmp_path_factory.mktemp("certificate")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test "
        "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out certificate.pem"
    )
    subprocess.run(shlex.split(command), cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def site(certificate, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "certificate.pem", certificate / "key.pem")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # a client that was killed
    server.site = Site(server.server_port, str(certificate / "certificate.pem"))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server.site
    server.site.hold.set()
    server.shutdown()
    server.server_close()


def visible(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def test_a_file_is_fetched_under_the_last_part_of_its_url(site, tmp_path):
    file = fetch(site.url, MD5, tmp_path / "data", site.opener)
    assert file == tmp_path / "data" / "set.tar"
    assert file.read_bytes() == CONTENT
    assert visible(tmp_path / "data") == ["set.tar"]


def test_a_file_that_is_there_is_not_asked_for(site, tmp_path):
    (tmp_path / "set.tar").write_bytes(CONTENT)
    fetch(site.url, MD5, tmp_path, site.opener)
    assert site.ranges == []


def test_a_file_in_a_folder_that_cannot_be_written_is_taken(site, tmp_path, monkeypatch):
    (tmp_path / "set.tar").write_bytes(CONTENT)
    monkeypatch.setattr(downloads, "lock", None)  # nothing may be locked there
    assert fetch(site.url, MD5, tmp_path, site.opener).read_bytes() == CONTENT


def test_a_broken_download_goes_on_where_it_was(site, tmp_path):
    site.stops = [300_000, 200_000]
    assert fetch(site.url, MD5, tmp_path, site.opener).read_bytes() == CONTENT
    assert site.ranges == [None, "bytes=300000-", "bytes=500000-"]


def test_a_download_that_gets_no_further_leaves_its_part(site, tmp_path):
    site.stops = [300_000, 0, 0, 0]
    with pytest.raises(Unavailable, match=r"set\.tar is not there and .* cannot be fetched"):
        fetch(site.url, MD5, tmp_path, site.opener)
    assert visible(tmp_path) == ["set.tar.part"]
    assert (tmp_path / "set.tar.part").read_bytes() == CONTENT[:300_000]


def test_a_later_call_goes_on_with_the_part(site, tmp_path):
    (tmp_path / "set.tar.part").write_bytes(CONTENT[:1000])
    assert fetch(site.url, MD5, tmp_path, site.opener).read_bytes() == CONTENT
    assert site.ranges == ["bytes=1000-"]


def test_a_server_that_ignores_range_sends_the_whole_again(site, tmp_path):
    site.heeds_range, site.stops = False, [300_000]
    assert fetch(site.url, MD5, tmp_path, site.opener).read_bytes() == CONTENT
    assert site.ranges == [None, "bytes=300000-"]


def test_a_part_that_is_whole_only_takes_its_name(site, tmp_path):
    (tmp_path / "set.tar.part").write_bytes(CONTENT)
    assert fetch(site.url, MD5, tmp_path, site.opener).read_bytes() == CONTENT
    assert visible(tmp_path) == ["set.tar"]


def test_a_download_with_another_checksum_is_thrown_away(site, tmp_path):
    with pytest.raises(Unavailable, match=r"cannot be fetched \(what came has another MD5\)"):
        fetch(site.url, "0" * 32, tmp_path, site.opener)
    assert visible(tmp_path) == []


def test_a_part_of_something_else_does_not_spoil_the_next_attempt(site, tmp_path):
    (tmp_path / "set.tar.part").write_bytes(b"x" * 1000)
    with pytest.raises(Unavailable):
        fetch(site.url, MD5, tmp_path, site.opener)
    assert fetch(site.url, MD5, tmp_path, site.opener).read_bytes() == CONTENT


def test_a_local_file_with_another_checksum_is_an_error_and_stays(site, tmp_path):
    (tmp_path / "set.tar").write_bytes(b"mine")
    with pytest.raises(InputError, match=rf"set\.tar is damaged, its MD5 is not {MD5}; remove it") as error:
        fetch(site.url, MD5, tmp_path, site.opener)
    assert not isinstance(error.value, Unavailable)
    assert (tmp_path / "set.tar").read_bytes() == b"mine"


def test_an_error_of_the_server_is_told(site, tmp_path):
    site.status = 404
    with pytest.raises(Unavailable, match="HTTP Error 404") as error:
        fetch(site.url, MD5, tmp_path, site.opener)
    assert isinstance(error.value.__cause__, HTTPError)
    assert visible(tmp_path) == []


def test_a_server_that_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(Unavailable, match=r"https://127\.0\.0\.1:1/set\.tar cannot be fetched \(.*refused"):
        fetch("https://127.0.0.1:1/set.tar", MD5, tmp_path)


def test_a_certificate_that_nobody_vouches_for_is_refused(site, tmp_path):
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        fetch(site.url, MD5, tmp_path)
    assert visible(tmp_path) == []


@pytest.mark.parametrize("scheme", ["http", "ftp", "file"])
def test_another_scheme_than_https_is_refused(tmp_path, scheme):
    with pytest.raises(Unavailable, match=f"{scheme}://localhost/set.tar is refused, since it is not https"):
        fetch(f"{scheme}://localhost/set.tar", MD5, tmp_path)


@pytest.mark.parametrize("scheme", ["http", "ftp"])
def test_a_redirect_away_from_https_is_refused(site, tmp_path, scheme):
    site.location = f"{scheme}://127.0.0.1/moved/set.tar"
    with pytest.raises(Unavailable, match=f"{scheme}://127.0.0.1/moved/set.tar is refused"):
        fetch(site.url, MD5, tmp_path, site.opener)


def test_a_redirect_within_https_is_followed_with_its_range(site, tmp_path):
    site.location = "/moved/set.tar"
    (tmp_path / "set.tar.part").write_bytes(CONTENT[:1000])
    assert fetch(site.url, MD5, tmp_path, site.opener).read_bytes() == CONTENT
    assert site.ranges == ["bytes=1000-"] * 2


@pytest.mark.parametrize("tells_length", [True, False])
def test_a_download_that_is_too_large_is_given_up_and_removed(site, tmp_path, monkeypatch, tells_length):
    monkeypatch.setattr(downloads, "LARGEST", 2**19)
    site.tells_length = tells_length
    with pytest.raises(Unavailable, match=r"cannot be fetched \(it has more than 0 MiB\)"):
        fetch(site.url, MD5, tmp_path, site.opener)
    assert site.ranges == [None] and visible(tmp_path) == []


def test_a_process_killed_in_the_middle_leaves_a_part_that_is_gone_on_with(site, tmp_path):
    site.stops, part = [len(CONTENT) // 2], tmp_path / "set.tar.part"
    site.hold.clear()
    program = (
        "import ssl, sys; from pathlib import Path; from oodlib.datasets.downloads import fetch, https_only; "
        "url, md5, folder, certificate = sys.argv[1:]; "
        "fetch(url, md5, Path(folder), https_only(ssl.create_default_context(cafile=certificate)))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, site.url, MD5, str(tmp_path), site.certificate]
    )
    deadline = time.monotonic() + 20
    while (not part.exists() or not part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    site.hold.set()
    assert visible(tmp_path) == ["set.tar.part"]
    kept = part.stat().st_size
    assert 0 < kept <= len(CONTENT) // 2
    assert fetch(site.url, MD5, tmp_path, site.opener).read_bytes() == CONTENT
    assert site.ranges == [None, f"bytes={kept}-"]


def test_two_at_once_fetch_a_file_once(site, tmp_path):
    threads = [threading.Thread(target=fetch, args=(site.url, MD5, tmp_path, site.opener)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert site.ranges == [None]
    assert (tmp_path / "set.tar").read_bytes() == CONTENT


URL = "https://127.0.0.1:1/set.tar.gz"


@pytest.fixture
def archive(tmp_path):
    """A function that writes `set.tar.gz` with these members and gives its MD5."""
    can_unpack()

    def write(*members, content=b"a picture"):
        with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as tar:
            for member in members:
                if isinstance(member, str):
                    member = tarfile.TarInfo(member)
                    member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return hashlib.md5((tmp_path / "set.tar.gz").read_bytes()).hexdigest()

    return write


def link(name, target, kind):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def pax(name):
    """A member that has its name in a header, which may hold anything."""
    member = tarfile.TarInfo("set/b.png")
    member.pax_headers = {"path": name}
    return member


def test_an_archive_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "LARGEST", 2**20)
    monkeypatch.setattr(tarfile.TarFile, "extractall", None)
    md5 = archive("set/a.png", "set/b.png", content=bytes(2**19))  # a thousand bytes as an archive
    with pytest.raises(InputError, match=r"set\.tar\.gz cannot be unpacked .*unpacks to more than 1 MiB"):
        unpacked(URL, md5, tmp_path / "set")
    assert visible(tmp_path) == ["set.tar.gz"]


def test_many_empty_members_count_too(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "LARGEST", 2**12)
    md5 = archive(*(f"set/{i}" for i in range(9)), content=b"")
    with pytest.raises(InputError, match="unpacks to more than"):
        unpacked(URL, md5, tmp_path / "set")


def test_an_archive_is_unpacked_beside_itself(archive, tmp_path):
    folder = unpacked(URL, archive("set/a.png", "set/test/b.png"), tmp_path / "set")
    assert folder == tmp_path / "set"
    assert (folder / "test" / "b.png").read_bytes() == b"a picture"
    assert visible(tmp_path) == ["set", "set.tar.gz"]


def test_a_python_that_cannot_unpack_safely_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    (tmp_path / "set.tar.gz").write_bytes(CONTENT)
    with pytest.raises(
        InputError, match=r"^Python .* cannot unpack .*set\.tar\.gz safely; unpack it by hand, or"
    ):
        unpacked(URL, MD5, tmp_path / "set")
    assert visible(tmp_path) == ["set.tar.gz"]


def test_an_unpacked_folder_needs_no_archive(tmp_path):
    (tmp_path / "set").mkdir()
    assert unpacked(URL, MD5, tmp_path / "set") == tmp_path / "set"


def test_an_archive_is_fetched_and_unpacked(site, archive, tmp_path):
    md5 = archive("set/a.png")
    site.content = (tmp_path / "set.tar.gz").read_bytes()
    site.url = site.url.replace("set.tar", "set.tar.gz")
    folder = unpacked(site.url, md5, tmp_path / "elsewhere" / "set", site.opener)
    assert (folder / "a.png").read_bytes() == b"a picture"


@pytest.mark.parametrize(
    "member",
    [
        "../outside.png",
        "set/../../outside.png",
        link("set/outside", "../../", tarfile.SYMTYPE),
        link("set/outside", "/etc", tarfile.SYMTYPE),
        link("set/outside.png", "../outside.png", tarfile.LNKTYPE),
        link("set/device", "", tarfile.CHRTYPE),
        link("set/pipe", "", tarfile.FIFOTYPE),
        link("set/inside", "a.png", tarfile.SYMTYPE),
        link("set/inside", "set/a.png", tarfile.LNKTYPE),
        pax("set/b\0.png"),
    ],
    ids=[
        *("parent", "hidden parent", "symlink", "absolute symlink", "hard link", "device", "pipe"),
        *("symlink within", "hard link within", "NUL"),
    ],
)
def test_a_member_that_leads_out_of_the_folder_is_refused(archive, tmp_path, member):
    inside = tmp_path / "data"
    inside.mkdir()
    (tmp_path / "outside.png").write_bytes(b"untouched")
    md5 = archive("set/a.png", member)
    shutil.move(tmp_path / "set.tar.gz", inside)
    with pytest.raises(InputError, match=r"set\.tar\.gz cannot be unpacked to .*set \("):
        unpacked(URL, md5, inside / "set")
    assert visible(inside) == ["set.tar.gz"]
    assert (tmp_path / "outside.png").read_bytes() == b"untouched"


def test_an_absolute_member_stays_in_the_folder(archive, tmp_path):
    outside = tmp_path / "outside.png"
    unpacked(URL, archive("set/a.png", str(outside)), tmp_path / "set")
    assert not outside.exists()
    assert visible(tmp_path) == ["set", "set.tar.gz"]


def test_what_lies_beside_the_folder_in_an_archive_is_left_there(archive, tmp_path):
    unpacked(URL, archive("set/a.png", "._set", "other/b.png"), tmp_path / "set")
    assert visible(tmp_path) == ["set", "set.tar.gz"]


@pytest.mark.parametrize("kept", [10, 0.5, 0.95])
def test_a_truncated_archive_leaves_no_folder(archive, tmp_path, kept):
    archive(*(f"set/{i}.png" for i in range(20)), content=os.urandom(1000))
    file = tmp_path / "set.tar.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[: kept if kept == 10 else int(kept * len(whole))])
    md5 = hashlib.md5(file.read_bytes()).hexdigest()  # as if the truncated file had been published
    with pytest.raises(InputError, match=r"set\.tar\.gz cannot be unpacked"):
        unpacked(URL, md5, tmp_path / "set")
    assert visible(tmp_path) == ["set.tar.gz"]


def test_a_truncated_archive_fails_its_checksum(archive, tmp_path):
    md5 = archive("set/a.png")
    file = tmp_path / "set.tar.gz"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"set\.tar\.gz is damaged"):
        unpacked(URL, md5, tmp_path / "set")
    assert visible(tmp_path) == ["set.tar.gz"]


def test_an_archive_without_the_folder_is_refused(archive, tmp_path):
    with pytest.raises(InputError, match=r"set\.tar\.gz cannot be unpacked to .*set \(.*No such file"):
        unpacked(URL, archive("another/a.png"), tmp_path / "set")


def test_what_a_killed_unpacking_left_is_in_nobody_s_way(archive, tmp_path):
    (tmp_path / "set.part" / "set").mkdir(parents=True)
    (tmp_path / "set.part" / "set" / "a.png").write_bytes(b"half")
    folder = unpacked(URL, archive("set/a.png"), tmp_path / "set")
    assert (folder / "a.png").read_bytes() == b"a picture"
    assert visible(tmp_path) == ["set", "set.tar.gz"]
