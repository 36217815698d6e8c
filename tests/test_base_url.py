from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from proxy.base_url import BaseUrl

SEGMENT = st.from_regex(r"[A-Za-z0-9_~!$&'()*+,;=:@-]{1,8}|%(2[0-46-9A-F]|[13-9A-F][0-9A-F])[a-z]{1,4}", fullmatch=True)
BASE_URLS = st.builds(
    BaseUrl,
    scheme=st.sampled_from(["http", "https"]),
    host=st.from_regex(r"[a-z0-9_-]{1,8}(\.[a-z0-9-]{1,8}){0,3}", fullmatch=True)
    | st.ip_addresses(v=6).map(lambda address: f"[{address.compressed}]"),
    port=st.integers(1, 65535),
    path=st.lists(SEGMENT, max_size=4).map(lambda segments: "".join(f"/{segment}" for segment in segments)),
)
# Texts that are an address but for a character or two.
NEARLY = st.builds(
    "{}{}{}".format,
    st.sampled_from(["http://", "https://", "HTTPS://", "http\u017f://", "http:/", "ftp://", "http:\\\\", ""]),
    st.text("ab.1-_[]:@?#%/\\ \t\n\0\u017f\u212a\u00e9\u3002", max_size=12),
    st.sampled_from(["", "/", "/v1", "/v1/", "/../x", "/%2e%2E", "?q", "#f", ":80", ":0", "@host"]),
)


@given(BASE_URLS)
def test_what_is_written_is_read_back_the_same(url: BaseUrl) -> None:
    assert BaseUrl.parse(str(url)) == url
    assert BaseUrl.parse(f" {url.origin.upper()}{url.path}/ ") == url


@given(NEARLY | st.text())
def test_every_text_is_refused_or_means_the_same_to_every_reader(text: str) -> None:
    try:
        url = BaseUrl.parse(text)
    except ValueError:
        return
    assert str(url).isascii()
    assert BaseUrl.parse(str(url)) == url
    split, connected = urlsplit(str(url)), URL(url.origin)
    assert (split.scheme, split.hostname, split.path) == (url.scheme, url.host.strip("[]"), url.path)
    assert (split.username, split.password, split.query, split.fragment) == (None, None, "", "")
    assert (connected.scheme, connected.host, connected.port) == (url.scheme, url.host.strip("[]"), url.port)
    assert "/./" not in url.path + "/"
    assert "/../" not in url.path + "/"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("HTTPS://API.OpenAI.com/V1/", "https://api.openai.com/V1"),
        ("  http://localhost:11434  ", "http://localhost:11434"),
        ("http://host:80/", "http://host"),
        ("https://host:443", "https://host"),
        ("https://host:80", "https://host:80"),
        ("https://host.:8443//", "https://host:8443"),
        ("http://[0:0::1]:9000/v1", "http://[::1]:9000/v1"),
        ("http://host/a%2Fb//c", "http://host/a%2Fb//c"),
    ],
)
def test_an_address_has_one_canonical_form(text: str, canonical: str) -> None:
    assert str(BaseUrl.parse(text)) == canonical


@pytest.mark.parametrize(
    "text",
    [
        *("", "host", "//host", "http://", "https:///v1", "ftp://host", "http:host", "http:/host", "http:\\\\host"),
        *("http://user@host", "http://user:password@host", "http://host\\@other", "http://host:80@other"),
        *("http://host?q=1", "http://host/v1?q=1", "http://host#f", "http://host/v1#f"),
        *("http://host/..", "http://host/./v1", "http://host/v1/../x", "http://host/%2e%2E/x", "http://host/.%2e"),
        *("http://host/v1/%252e%252e/x", "http://host/v1/%252e%252fx", "http://host/v1/.%00./x"),
        *("http://host/v1/..;/admin", "http://host/v1/..;x=1/admin", "http://host/v1/.;/x", "http://host/v1/%2e.%3b/x"),
        *(
            "http://host/v1%2f..%2fadmin",
            "http://host/v1/..%2Fadmin",
            "http://host/v1%5C..%5cadmin",
            "http://host/%2f..",
        ),
        *("http://host:", "http://host:0", "http://host:65536", "http://host:-1", "http://host:80x", "http://host:八"),
        *("http://[::1", "http://[gg::1]", "http://[fe80::1%25eth0]", "http://::1", "http://[1.2.3.4]"),
        *("http://hóst", "http://ho\u017ft", "http://\u212aibitz", "http\u017f://host", "http://host/é"),
        *("http://a..b", "http://.host", "http://.", "http://ho st", "http://host/a b", "http://ho\nst"),
        *('http://host/"', "http://host/<x>", "http://host/a\\b", "http://host/\0", "http://host%2eexample"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        BaseUrl.parse(text)


@pytest.mark.parametrize(
    ("text", "origin", "authority"),
    [
        ("https://host/v1", "https://host", "host"),
        ("https://host:8443/v1", "https://host:8443", "host:8443"),
        ("http://[::1]:8080", "http://[::1]:8080", "[::1]:8080"),
    ],
)
def test_the_authority_names_the_port_unless_it_is_the_default(text: str, origin: str, authority: str) -> None:
    url = BaseUrl.parse(text)
    assert (url.origin, url.authority) == (origin, authority)


@pytest.mark.parametrize(
    ("allowed", "target", "covered"),
    [
        ("https://host", "https://host", True),
        ("https://host", "https://HOST:443/", True),
        ("https://host", "https://host/any/path", True),
        ("https://host/v1", "https://host/v1", True),
        ("https://host/v1", "https://host/v1/more", True),
        ("https://host/v1", "https://host/v10", False),
        ("https://host/v1", "https://host", False),
        ("https://host/v1", "https://host/V1", False),
        ("https://host/v1", "https://host/v1%2fmore", False),
        ("https://host/v1", "https://host/v1;x", False),
        ("https://host/v1", "https://host//v1", False),
        ("https://host/v1", "https://host/%76%31", False),
        ("https://host", "https://host.", True),
        ("https://host", "https://0host", False),
        ("http://[::1]", "http://[0:0:0:0:0:0:0:1]", True),
        ("http://127.0.0.1", "http://[::ffff:127.0.0.1]", False),
        ("http://127.0.0.1", "http://2130706433", False),
        ("http://127.0.0.1", "http://0177.0.0.1", False),
        ("http://127.0.0.1", "http://0x7f.1", False),
        ("http://xn--hst-sna.example", "http://XN--HST-SNA.example", True),
        ("https://host", "http://host", False),
        ("https://host", "https://host:8443", False),
        ("https://host", "https://host.evil.example", False),
        ("https://host", "https://other-host", False),
    ],
)
def test_an_address_covers_itself_and_what_lies_below_it(allowed: str, target: str, *, covered: bool) -> None:
    assert BaseUrl.parse(allowed).covers(BaseUrl.parse(target)) is covered
