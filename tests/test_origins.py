from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.cors import Cors, CrossOrigin, canonical_origin
from proxy.dialects import Failed
from proxy.headers import read_request_fields
from proxy.origins import OriginGuard, canonical_name, is_loopback

GUARD = OriginGuard(["host.docker.internal", "10.0.0.7"], Cors(["https://app.example"]).allows, any_host=False)
OPEN = OriginGuard([], Cors([]).allows, any_host=True)


def refusal(
    *lines: str, guard: OriginGuard = GUARD, method: str = "GET", target: str = "/v1/models", is_ours: bool = False
) -> str | None:
    """The code that a request of these fields is refused with, if it is."""
    raw = [(name.encode(), value.encode("latin-1")) for name, _, value in (line.partition(": ") for line in lines)]
    try:
        guard.check(method, target, read_request_fields(raw), is_ours=is_ours)
    except Failed as failed:
        return failed.code if failed.status == 403 else str(failed.status)
    return None


@pytest.mark.parametrize(
    "host",
    [
        *(
            "localhost",
            "localhost:8787",
            "LOCALHOST:9",
            "localhost.",
            "localhost.:8787",
            "localhost:",
            "kibitz.localhost",
        ),
        *(
            "127.0.0.1",
            "127.0.0.1:8787",
            "127.9.9.9:1",
            "[::1]",
            "[::1]:8787",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]",
        ),
        *("host.docker.internal", "HOST.docker.internal.:8787", "10.0.0.7:80"),
    ],
)
def test_a_server_answers_to_the_names_of_loopback_and_those_it_was_given(host: str) -> None:
    assert refusal(f"Host: {host}") is None


FOREIGN_HOSTS = [
    *("evil.example", "evil.example:8787", "localhost.evil.example", "127.0.0.1.evil.example", "evillocalhost"),
    *("0.0.0.0:8787", "[::]:8787", "10.0.0.8", "192.168.0.1", "169.254.169.254", "[fe80::1]", "[::ffff:10.0.0.8]"),
    *("user@localhost", "localhost@evil.example", "localhost/", "localhost#", "localhost?x", "localhost\\evil", ""),
    *(
        "localhost..",
        "..localhost",
        ".localhost",
        "[::1",
        "::1",
        "[::1]x",
        "[::1%25lo]",
        "localhost:80:80",
        "localhost:x",
    ),
    *(
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "127.000.000.001",
        "loc%61lhost",
        "localhost evil",
        "l\xf6calhost",
    ),
    *("localhost,evil.example", "evil.example,localhost", "sub.host.docker.internal"),
]


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_any_other_name_is_somebody_elses(host: str) -> None:
    assert refusal(f"Host: {host}") == "host_not_allowed"
    assert refusal(f"Host: {host}", is_ours=True) == "host_not_allowed"


def test_two_hosts_are_none() -> None:
    assert refusal("Host: localhost", "Host: localhost") == "host_not_allowed"
    assert refusal("Host: localhost", "host: evil.example") == "host_not_allowed"


def test_no_host_is_no_browser() -> None:
    assert refusal() is None
    assert refusal("Origin: http://localhost") == "origin_not_allowed"


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("http://localhost:8787/v1/models", None),
        ("HTTP://127.0.0.1/v1/models?u=http://evil.example/", None),
        ("http://host.docker.internal?x", None),
        ("http://evil.example/v1/models", "host_not_allowed"),
        ("http://evil.example?http://localhost/v1", "host_not_allowed"),
        ("http://localhost@evil.example/v1", "host_not_allowed"),
        ("http://evil.example@localhost/v1", "host_not_allowed"),
        ("http://localhost\\@evil.example/v1", "host_not_allowed"),
        ("http:///v1/models", "host_not_allowed"),
        ("http://\udcff/v1", "host_not_allowed"),
        ("*", None),
    ],
)
def test_the_authority_of_an_absolute_target_counts_too(target: str, code: str | None) -> None:
    assert refusal("Host: localhost", target=target) == code
    assert refusal("Host: evil.example", target=target) == "host_not_allowed"


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8787", "http://localhost:8787"),
        ("127.0.0.1:8787", "http://127.0.0.1:8787"),
        ("[::1]:8787", "http://[::1]:8787"),
        ("localhost", "http://localhost"),
        ("localhost:80", "http://localhost"),
        ("localhost", "https://localhost"),
        ("host.docker.internal:8787", "http://host.docker.internal:8787"),
        ("localhost:8787", "https://app.example"),
    ],
)
def test_a_page_of_the_server_itself_or_of_a_configured_origin_may(host: str, origin: str) -> None:
    assert refusal(f"Host: {host}", f"Origin: {origin}", method="POST") is None


FOREIGN_ORIGINS = [
    *(
        "https://evil.example",
        "http://localhost",
        "http://localhost:3000",
        "http://127.0.0.1:8787",
        "http://app.example",
    ),
    *("https://app.example:8443", "https://app.example.evil.example", "https://APP.example", "https://app.example/"),
    *(
        "null",
        "",
        "file://",
        "http://localhost:8787@evil.example",
        "http://evil.example@localhost:8787",
        "localhost:8787",
    ),
    *("ftp://localhost:8787", "http://localhost:8787,https://evil.example", "http://localhost:8787/x", "http://[::1"),
]


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
@pytest.mark.parametrize("is_ours", [True, False])
def test_a_page_of_any_other_origin_may_not(origin: str, *, is_ours: bool) -> None:
    lines = ("Host: localhost:8787", f"Origin: {origin}")
    assert refusal(*lines, method="POST", is_ours=is_ours) == "origin_not_allowed"
    assert refusal(*lines, guard=OPEN, method="POST", is_ours=is_ours) == "origin_not_allowed"


@pytest.mark.parametrize(
    "referer",
    [
        *("http://evil.example/", "http://evil.example", "https://evil.example/?http://kibitz.lan:8787/", "null", ""),
        *("http://kibitz.lan/", "http://kibitz.lan:8787@evil.example/", "http://evil.example/a/http://kibitz.lan:8787"),
        *("http://kibitz.lan:8787.evil.example/", "about:blank", "//kibitz.lan:8787/", "ftp://kibitz.lan:8787/"),
    ],
)
@pytest.mark.parametrize("is_ours", [True, False])
def test_what_a_foreign_page_gets_without_an_origin_is_refused_where_it_says_which_page(
    referer: str, *, is_ours: bool
) -> None:
    """Browsers send neither Origin nor Sec-Fetch-Site with a GET over plain HTTP beyond loopback."""
    lines = ("Host: kibitz.lan:8787", f"Referer: {referer}")
    for method in ("GET", "HEAD"):
        assert refusal(*lines, guard=OPEN, method=method, is_ours=is_ours) == "origin_not_allowed"


@pytest.mark.parametrize("referer", ["http://kibitz.lan:8787/", "http://kibitz.lan:8787/dashboard?a=b#c"])
def test_what_a_page_of_the_server_itself_gets_passes(referer: str) -> None:
    assert refusal("Host: kibitz.lan:8787", f"Referer: {referer}", guard=OPEN) is None


def test_a_referer_says_nothing_where_the_browser_says_more_or_is_none() -> None:
    """Its origin counts for what has no Origin, and a POST that has none comes from no page."""
    host, foreign = "Host: localhost:8787", "Referer: https://evil.example/"
    assert refusal(host, foreign, method="POST") is None
    assert refusal(host, foreign, "Sec-Fetch-Site: none") is None
    assert refusal(host, foreign, "Origin: http://localhost:8787") is None
    assert refusal(host, "Referer: https://app.example/a?b") is None
    assert refusal(host, "Referer: http://localhost:8787/", "Origin: https://evil.example") == "origin_not_allowed"


def test_of_two_origins_none_counts() -> None:
    lines = ("Host: localhost", "Origin: http://localhost")
    assert refusal(*lines, "origin: https://evil.example") == "origin_not_allowed"


@pytest.mark.parametrize("site", ["cross-site", "same-site", "made-up", "same-origin,cross-site", ""])
def test_what_a_page_requests_without_an_origin_is_refused_where_the_browser_says_so(site: str) -> None:
    """An image's address, a script's, a form that gets."""
    lines = ("Host: localhost:8787", f"Sec-Fetch-Site: {site}")
    for mode in ("no-cors", "websocket"):
        assert refusal(*lines, f"Sec-Fetch-Mode: {mode}", is_ours=True) == "origin_not_allowed"
    assert refusal(*lines) == "origin_not_allowed"


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_what_the_browser_says_is_the_users_own_doing_passes(site: str) -> None:
    assert refusal("Host: localhost:8787", f"Sec-Fetch-Site: {site}") is None
    # A reverse proxy may call the server by another name than the browser does.
    assert refusal("Host: localhost", f"Sec-Fetch-Site: {site}", "Origin: https://kibitz.example") is None
    assert refusal("Host: evil.example", f"Sec-Fetch-Site: {site}") == "host_not_allowed"


def test_a_link_may_be_followed_to_a_route_of_ours_but_not_to_an_upstream() -> None:
    link = ("Host: localhost:8787", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate")
    assert refusal(*link, is_ours=True) is None
    assert refusal(*link, is_ours=False) == "origin_not_allowed"
    assert refusal(*link, method="POST", is_ours=True) == "origin_not_allowed"
    assert refusal(*link, "Origin: https://evil.example", is_ours=True) == "origin_not_allowed"


def test_beyond_loopback_a_server_has_any_name_but_pages_of_others_may_not_use_it() -> None:
    assert refusal("Host: kibitz.example", guard=OPEN) is None
    assert refusal("Host: kibitz.example:1", "Origin: http://kibitz.example:1", guard=OPEN) is None
    assert refusal("Host: kibitz.example", "Origin: https://evil.example", guard=OPEN) == "origin_not_allowed"
    assert refusal("Host: kibitz.example, b", guard=OPEN) == "host_not_allowed"


@given(st.binary(max_size=40), st.binary(max_size=40), st.text(max_size=40))
def test_whatever_comes_is_let_in_or_refused(host: bytes, origin: bytes, target: str) -> None:
    fields = read_request_fields([(b"Host", host), (b"Origin", origin)])
    with pytest.raises(Failed):
        GUARD.check("GET", target, fields, is_ours=False)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *(("kibitz.example", "kibitz.example"), ("KIBITZ.example.", "kibitz.example"), ("10.0.0.7", "10.0.0.7")),
        *(("::1", "[::1]"), ("[0::1]", "[::1]"), ("fd00::2", "[fd00::2]")),
    ],
)
def test_a_name_is_compared_in_its_one_spelling(text: str, name: str) -> None:
    assert canonical_name(text) == name


@pytest.mark.parametrize(
    "text",
    ["", "*", "http://kibitz.example", "kibitz.example:80", "[::1]:80", "a b", "k\xf6", "a..b", ".a", "a/b", "u@a"],
)
def test_what_is_no_name_can_not_be_configured(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical_name(text)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        *(("https://app.example", "https://app.example"), ("HTTPS://App.example:443", "https://app.example")),
        *(("http://localhost:3000", "http://localhost:3000"), ("http://[0::1]:80", "http://[::1]")),
        *(("http://app.example:443", "http://app.example:443"), ("chrome-extension://abc", "chrome-extension://abc")),
        ("*", "*"),
    ],
)
def test_an_origin_is_configured_as_browsers_write_it(text: str, origin: str) -> None:
    assert canonical_origin(text) == origin


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "null",
            "app.example",
            "https://app.example/",
            "https://app.example/x",
            "https://*.app.example",
            "https://",
        ),
        *(
            "https://u@app.example",
            "https://app.example?x",
            " https://app.example",
            "https://app.example, https://b",
            "**",
        ),
        *("https://\xe4pp.example", "https://app.example:x", "https://app..example"),
    ],
)
def test_what_no_browser_sends_can_not_be_configured_as_an_origin(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical_origin(text)


@pytest.mark.parametrize("host", ["localhost", "a.localhost", "127.0.0.1", "127.255.0.1", "::1", "[::1]"])
def test_loopback_is_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example", "kibitz", "128.0.0.1", ""])
def test_what_is_not_loopback_is_known(host: str) -> None:
    assert not is_loopback(host)


def test_an_upstreams_word_on_who_may_read_gives_way_but_what_it_exposes_stays() -> None:
    sent = [
        (b"X-A", b"1"),
        (b"access-control-allow-origin", b"*"),
        (b"Access-Control-Allow-Credentials", b"true"),
        (b"Vary", b"Accept"),
        (b"Access-Control-Expose-Headers", b"X-A"),
        (b"access-control-expose-headers", b""),
        (b"access-control-expose-headers", b"x-b, x-c"),
    ]
    stays = [(b"X-A", b"1"), (b"Vary", b"Accept"), (b"Vary", b"Origin")]
    ids = b"Helicone-Id, Helicone-Request-Id, Helicone-Status, x-portkey-trace-id"
    assert CrossOrigin(None).settle(sent) == stays
    assert CrossOrigin(b"https://app.example").settle(sent) == [
        *stays,
        (b"Access-Control-Allow-Origin", b"https://app.example"),
        (b"Access-Control-Expose-Headers", b"X-A, x-b, x-c, " + ids),
    ]


def test_all_origins_may_where_that_is_configured() -> None:
    assert Cors(["*"]).about(b"https://any.example") == CrossOrigin(b"https://any.example")
    assert Cors(["https://a.example"]).about(b"https://b.example") == CrossOrigin(None)
