import functools
import gzip
import hashlib
import http.server
import threading

import pytest

from momentumrnn.data.fetch import fetch_files
from momentumrnn.errors import DataError, DataMissingError

CONTENT = b"digits" * 100
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        self.server.asked.append(self.path)


@pytest.fixture
def server(tmp_path):
    root = tmp_path / "served"
    for mirror in ("good", "wrong", "cut", "empty"):
        (root / mirror).mkdir(parents=True)
    # Compressed at another level than any published copy: only the contents are compared.
    (root / "good" / "images.gz").write_bytes(gzip.compress(CONTENT, compresslevel=1))
    (root / "wrong" / "images.gz").write_bytes(gzip.compress(CONTENT + b"!"))
    (root / "cut" / "images.gz").write_bytes(gzip.compress(CONTENT)[:-8])
    handler = functools.partial(QuietHandler, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.asked = []
        running.address = f"http://127.0.0.1:{running.server_port}/"
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def fetch(server, folder, *mirrors):
    return fetch_files({"images.gz": SHA256}, [f"{server.address}{mirror}/" for mirror in mirrors], folder)


@pytest.mark.parametrize("first", ["good", "wrong", "cut", "empty"])
def test_the_first_good_mirror_is_taken(server, tmp_path, first):
    folder = tmp_path / "data"
    (path,) = fetch(server, folder, first, "good")
    assert gzip.decompress(path.read_bytes()) == CONTENT
    assert [entry.name for entry in folder.iterdir()] == ["images.gz"]


def test_what_is_there_is_not_fetched_again(server, tmp_path):
    fetch(server, tmp_path / "data", "good")
    asked = len(server.asked)
    fetch(server, tmp_path / "data", "good")
    assert len(server.asked) == asked


def test_no_mirror_has_it(server, tmp_path):
    folder = tmp_path / "data"
    with pytest.raises(DataMissingError) as caught:
        fetch(server, folder, "wrong", "cut", "empty")
    message = str(caught.value)
    assert "wrong/images.gz: expected contents with sha256" in message
    assert "cut/images.gz" in message
    assert "empty/images.gz: 404" in message
    assert str(folder) in message
    assert list(folder.iterdir()) == []


def test_a_damaged_file_in_the_way_is_named_and_kept(server, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "images.gz").write_bytes(gzip.compress(b"mine"))
    with pytest.raises(DataError, match=r"images\.gz: expected contents with sha256"):
        fetch(server, folder, "good")
    assert gzip.decompress((folder / "images.gz").read_bytes()) == b"mine"
