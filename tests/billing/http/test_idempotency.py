"""A POST with an Idempotency-Key happens once, whatever clients and processes do."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import F
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory

from accounts import services
from accounts.models import Customer, IdempotentRequest
from billing import clock
from billing.http import ApiError, ApiView
from tests.factories import make_api_key

running, gate = threading.Event(), threading.Event()  # a slow request says that it runs, and waits


class Customers(ApiView):
    def post(self, request):
        name = request.data["name"]
        Customer.objects.create(key=f"c{Customer.objects.count()}", name=name)
        if name == "refused":
            raise ApiError("refused", "No.", 422)
        if name == "denied":
            return Response({"decision": "deny"}, status=402)
        if name == "slow":
            running.set()
            gate.wait(20)
        if name == "crash":
            raise SystemExit(1)
        return Response({"made": Customer.objects.count()}, status=201)


class Secrets(ApiView):
    secret_answer = True

    def post(self, request):
        return Response({"id": "key_1", "secret": "hr_topsecret"}, status=201)


class Unguarded(Customers):
    idempotent = False

    def post(self, request):
        return Response({"made": 1})


def send(secret, key, name="Acme", *, view=Customers, path="/customers"):
    headers = {"Authorization": f"Bearer {secret}"} | ({"Idempotency-Key": key} if key is not None else {})
    body = json.dumps({"name": name})
    request = APIRequestFactory().post(path, body, content_type="application/json", headers=headers)
    return view.as_view()(request).render()


def code(response):
    return response.status_code, response.data.get("code")


@pytest.fixture
def secret(db):
    return make_api_key()[1]


def test_a_repeat_gets_the_first_answer_and_changes_nothing(secret):
    first, second = send(secret, "k"), send(secret, "k")
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.content == second.content
    assert second["Idempotency-Replayed"] == "true"
    assert Customer.objects.count() == 1


def test_without_a_key_each_request_counts(secret):
    send(secret, None)
    send(secret, None)
    assert Customer.objects.count() == 2


@pytest.mark.parametrize("change", [{"name": "Other"}, {"path": "/elsewhere"}])
def test_the_same_key_with_another_request_is_a_conflict(secret, change):
    send(secret, "k")
    assert code(send(secret, "k", **change)) == (409, "idempotency_conflict")
    assert Customer.objects.count() == 1


def test_keys_of_two_programs_do_not_meet(secret):
    send(secret, "k")
    assert send(make_api_key()[1], "k", "Other").status_code == 201


def test_an_error_leaves_nothing_so_that_it_can_be_sent_again(secret):
    assert send(secret, "k", "refused").status_code == 422
    assert not Customer.objects.exists()
    assert send(secret, "k", "Acme").status_code == 201


def test_a_denial_is_not_stored(secret):
    assert [send(secret, "k", "denied").status_code for _ in range(2)] == [402, 402]
    assert not IdempotentRequest.objects.exists()


def test_a_secret_is_not_stored_and_the_repeat_names_what_was_made(secret):
    assert send(secret, "k", view=Secrets).data["secret"] == "hr_topsecret"
    repeat = send(secret, "k", view=Secrets)
    assert (*code(repeat), repeat.data["id"]) == (409, "already_created", "key_1")
    assert "topsecret" not in str(IdempotentRequest.objects.values().get())


def test_a_view_may_do_without(secret):
    assert send(secret, "k", view=Unguarded).data == {"made": 1}
    assert not IdempotentRequest.objects.exists()


@pytest.mark.parametrize("key", ["", "x" * 256, "a\x00b", "a\tb"])
def test_a_wrong_key_is_refused(secret, key):
    response = send(secret, key)
    assert (code(response), response.data["errors"][0]["field"]) == ((400, "invalid_field"), "Idempotency-Key")


def test_after_a_day_the_key_is_free_again(secret):
    send(secret, "k")
    IdempotentRequest.objects.update(created_at=F("created_at") - timedelta(hours=24, seconds=1))
    assert send(secret, "k", "Other").status_code == 201
    assert Customer.objects.count() == 2


def test_old_answers_are_forgotten(secret):
    send(secret, "old")
    IdempotentRequest.objects.update(created_at=F("created_at") - timedelta(hours=25))
    send(secret, "new")
    assert services.forget_old_answers(at=clock.now()) == 1
    assert IdempotentRequest.objects.get().key == "new"


# --- real transactions


def in_thread(*args):
    try:
        return send(*args)
    finally:
        connection.close()


def test_of_many_at_once_one_happens_and_the_others_are_told(committed):
    _, secret = make_api_key()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: in_thread(secret, "k"), range(8)))
    assert {code(answer) for answer in answers} <= {(201, None), (409, "idempotency_in_progress")}
    assert {answer.data["made"] for answer in answers if answer.status_code == 201} == {1}
    assert Customer.objects.count() == 1


def test_while_the_first_runs_the_second_is_told_to_wait(committed):
    _, secret = make_api_key()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(in_thread, secret, "k", "slow")
        assert running.wait(20)
        waiting = send(secret, "k", "slow")
        gate.set()
        assert first.result().status_code == 201
    assert (code(waiting), waiting["Retry-After"]) == ((409, "idempotency_in_progress"), "1")
    assert send(secret, "k", "slow").data == {"made": 1}


def test_a_crash_leaves_neither_effect_nor_lock(committed):
    _, secret = make_api_key()
    with pytest.raises(SystemExit):
        send(secret, "k", "crash")
    assert not Customer.objects.exists()
    assert send(secret, "k").data == {"made": 1}
