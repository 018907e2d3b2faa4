"""The API is answered before the middleware of pages, and carries the headers that every answer carries."""

import io
from wsgiref.util import FileWrapper

from django.http import StreamingHttpResponse

from config import wsgi
from tests.factories import bearer, make_api_key

EVERYWHERE = (
    "Cache-Control",
    "Content-Security-Policy",
    "Cross-Origin-Opener-Policy",
    "Referrer-Policy",
    "X-Content-Type-Options",
    "X-Frame-Options",
)


def test_the_api_answers_with_the_headers_of_every_answer(client, db):
    answer = client.get("/api/v1/meters", **bearer(make_api_key()[1]))

    assert answer.status_code == 200
    assert int(answer["Content-Length"]) == len(answer.content)
    healthy = client.get("/healthz")
    assert {name: answer[name] for name in EVERYWHERE} == {name: healthy[name] for name in EVERYWHERE}


def test_the_api_knows_no_session(client, alice, django_assert_num_queries):
    client.force_login(alice)
    with django_assert_num_queries(0):
        answer = client.get("/api/v1/meters")

    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert not answer.cookies


def test_the_api_is_not_asked_under_another_host(client, db):
    assert client.get("/api/v1/meters", headers={"host": "elsewhere.test"}).status_code == 400


def test_the_api_serves_its_documents(client, db):
    assert b"swagger" in client.get("/api/v1/docs/").content


def test_a_value_that_only_the_database_refuses_is_a_bad_request_and_noted(client, olivia, caplog):
    client.force_login(olivia)

    assert client.get("/admin/billing/alert/", {"public_id": "\0"}).status_code == 400
    assert "was not validated" in caplog.text


def _asked(path):
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "HTTP_HOST": "localhost", "wsgi.input": io.BytesIO()}
    return wsgi.application(environ, lambda status, headers: None)


def test_a_complete_answer_goes_out_in_one_piece(db):
    assert _asked("/healthz") == [b"ok\n"]


def test_a_streamed_answer_goes_out_as_it_comes(monkeypatch):
    streamed = StreamingHttpResponse([b"a", b"b"])
    monkeypatch.setattr(wsgi, "_django", lambda *_: streamed)

    assert _asked("/") is streamed


def test_a_file_goes_out_as_the_server_sends_files(monkeypatch):
    sent = FileWrapper(io.BytesIO(b"a"))
    monkeypatch.setattr(wsgi, "_django", lambda *_: sent)

    assert _asked("/") is sent
