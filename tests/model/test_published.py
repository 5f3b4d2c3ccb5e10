"""Downloads from a server on this machine, over real TLS; nothing leaves it."""

import datetime
import ipaddress
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import xxhash
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hsf_tune.errors import ModelError
from hsf_tune.model.arunet import Architecture
from hsf_tune.model.published import PUBLISHED, Published, fetch, file_checksum
from hsf_tune.model.weights import load_base


def write_certificate(path):
    """A certificate for 127.0.0.1 that signs itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(pem))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        answer = self.server.answers.get(self.path, 404)
        if isinstance(answer, str):
            self.send_response(302)
            self.send_header("Location", answer)
            self.end_headers()
        elif isinstance(answer, int):
            self.send_error(answer)
        else:
            content, announced = answer if isinstance(answer, tuple) else (answer, len(answer))
            self.send_response(200)
            self.send_header("Content-Length", str(announced))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """An https server; `answers` maps a path to content, a redirect's target or a status."""
    write_certificate(tmp_path / "server.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "server.pem"))
    for proxy in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.upper(), raising=False)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    httpd.answers, httpd.asked = {}, []
    httpd.url = f"https://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield httpd
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def checksum_of(content):
    return f"xxh3_64:{xxhash.xxh3_64(content).hexdigest()}"


def kept(cache):
    return sorted(p.name for p in cache.glob("*") if p.suffix != ".lock")


def test_download_is_verified_kept_and_not_repeated(server, cache):
    """The second fetch asks the server nothing."""
    server.answers["/a.ckpt"] = b"weights" * 1000
    expected = checksum_of(b"weights" * 1000)
    path = fetch(f"{server.url}/a.ckpt", expected, cache)
    assert path.read_bytes() == b"weights" * 1000
    assert fetch(f"{server.url}/a.ckpt", expected, cache) == path
    assert server.asked == ["/a.ckpt"]


def test_wrong_content_is_refused_and_does_not_survive(server, cache):
    """A download that is not what was promised leaves nothing behind."""
    server.answers["/a.ckpt"] = b"something else"
    with pytest.raises(ModelError, match=r"not the file that was expected.*removed"):
        fetch(f"{server.url}/a.ckpt", checksum_of(b"weights"), cache)
    assert kept(cache) == []


def test_interrupted_download_is_refused_and_does_not_survive(server, cache):
    """A connection that breaks half way leaves nothing behind."""
    server.answers["/a.ckpt"] = (b"half", 1000)
    with pytest.raises(ModelError, match="Could not download"):
        fetch(f"{server.url}/a.ckpt", checksum_of(b"weights"), cache)
    assert kept(cache) == []


def test_tampered_copy_in_the_cache_is_fetched_again(server, cache):
    """A cached file is verified each time; a bad one is replaced."""
    server.answers["/a.ckpt"] = b"weights"
    path = fetch(f"{server.url}/a.ckpt", checksum_of(b"weights"), cache)
    path.write_bytes(b"tampered")
    assert fetch(f"{server.url}/a.ckpt", checksum_of(b"weights"), cache).read_bytes() == b"weights"
    path.write_bytes(b"tampered")
    server.answers["/a.ckpt"] = 500
    with pytest.raises(ModelError, match="500 Server Error"):
        fetch(f"{server.url}/a.ckpt", checksum_of(b"weights"), cache)
    assert not path.exists()


def test_redirect_is_followed_over_https_only(server, cache):
    """Published files sit behind redirects; one to http, file or ftp is not followed."""
    server.answers |= {"/a.ckpt": f"{server.url}/b.ckpt", "/b.ckpt": b"weights"}
    assert fetch(f"{server.url}/a.ckpt", checksum_of(b"weights"), cache).name.endswith("a.ckpt")
    plain = server.url.replace("https", "http")
    for target in (f"{plain}/b.ckpt", "file:///etc/hostname", "ftp://127.0.0.1/b.ckpt"):
        server.answers["/c.ckpt"], server.asked[:] = target, []
        with pytest.raises(ModelError, match=r"redirects to .* no https address"):
            fetch(f"{server.url}/c.ckpt", checksum_of(b"weights"), cache)
        assert server.asked == ["/c.ckpt"]


@pytest.mark.parametrize("url", ["http://127.0.0.1/a.ckpt", "file:///a.ckpt", "ftp://x/a.ckpt"])
def test_address_that_is_no_https_is_refused(url, cache):
    """Before anything is asked."""
    with pytest.raises(ModelError, match="no https address"):
        fetch(url, checksum_of(b"weights"), cache)


def test_without_a_network_the_error_says_what_to_fetch_and_where_to_put_it(cache):
    """Putting the file there by hand then works."""
    with pytest.raises(ModelError) as raised:  # nothing listens on port 9
        fetch("https://127.0.0.1:9/a.ckpt", checksum_of(b"weights"), cache)
    message = str(raised.value)
    assert "https://127.0.0.1:9/a.ckpt" in message
    assert "models.checkpoint" in message
    assert checksum_of(b"weights") in message
    path = next(word for word in message.replace(",", " ").split() if str(cache) in word)
    with open(path, "wb") as file:
        file.write(b"weights")
    found = fetch("https://127.0.0.1:9/a.ckpt", checksum_of(b"weights"), cache)
    assert found.read_bytes() == b"weights"


def test_certificate_of_a_stranger_is_refused(server, cache, monkeypatch):
    """Over https with a server that nobody vouches for, nothing is read."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    server.answers["/a.ckpt"] = b"weights"
    with pytest.raises(ModelError, match="Could not download"):
        fetch(f"{server.url}/a.ckpt", checksum_of(b"weights"), cache)
    assert server.asked == []


def test_known_name_is_fetched_into_the_cache_folder_of_the_environment(
    server, cache, monkeypatch, tmp_path, draw_network
):
    """A published model needs no checksum from the user and brings its labels, as does a copy."""
    torch.save(draw_network(Architecture(f_maps=2)).state_dict(), tmp_path / "hsf.ckpt")
    server.answers["/hsf.ckpt"] = (tmp_path / "hsf.ckpt").read_bytes()
    known = Published(
        f"{server.url}/hsf.ckpt",
        file_checksum(tmp_path / "hsf.ckpt", "xxh3_64:"),
        PUBLISHED["hsf"].labels_names,
    )
    monkeypatch.setitem(PUBLISHED, "hsf", known)
    monkeypatch.setenv("HSF_TUNE_CACHE", str(cache))
    base = load_base("hsf")
    assert (base.name, base.source) == ("hsf", f"{server.url}/hsf.ckpt")
    assert list(base.labels_names.values()) == ["DG", "CA1", "CA2", "CA3", "SUB"]
    assert len(kept(cache)) == 1
    copy = load_base(tmp_path / "hsf.ckpt")
    assert (copy.name, copy.source) == ("hsf", str(tmp_path / "hsf.ckpt"))
    assert copy.labels_names == base.labels_names


@pytest.mark.parametrize("source", ["path", "address"])
def test_address_and_path_load_the_same_base(source, server, cache, tmp_path, draw_network):
    """An address with its checksum is as good as a file."""
    path = tmp_path / "own.ckpt"
    torch.save(draw_network(Architecture(f_maps=2)).state_dict(), path)
    server.answers["/own.ckpt"] = path.read_bytes()
    checksum = file_checksum(path)
    where = str(path) if source == "path" else f"{server.url}/own.ckpt"
    base = load_base(where, checksum=checksum, cache_dir=cache)
    assert base.architecture == Architecture(f_maps=2)
    assert f"sha256:{base.sha256}" == checksum


def test_published_models_are_those_that_hsf_lists():
    """Addresses by https and xxh3_64 checksums, as HSF's own configuration has them."""
    assert list(PUBLISHED) == ["hsf", "bag_0", "bag_1", "bag_2", "bag_3", "bag_4"]
    host = "https://huggingface.co/poiretclement/hsf/resolve/main"
    assert PUBLISHED["hsf"].url == f"{host}/ckpt/arunet_4.0.0single_1706895706.ckpt"
    assert PUBLISHED["hsf"].checksum == "xxh3_64:3165f610a375ba33"
    assert PUBLISHED["bag_3"].url == f"{host}/onnx/arunet_4.0.0b3_1706858428.onnx"
    assert PUBLISHED["bag_3"].checksum == "xxh3_64:85259d3c0c8baa21"
