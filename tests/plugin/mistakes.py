# ruff: noqa: E501 — what is replaced is written as it stands.
"""Known mistakes in Attic's adapter, each with the promises of the kit that it breaks.

A mistake is a replacement of text, so that the adapter stays as plain as a stranger would write it.
"""

from __future__ import annotations

import importlib.util
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ADAPTER = "attic_cloud"


@dataclass(frozen=True)
class Mistake:
    name: str
    changes: tuple[tuple[str, str], ...]
    breaks: tuple[str, ...]


def mistake(name: str, *changes: tuple[str, str], breaks: str) -> Mistake:
    return Mistake(name, changes, tuple(f"test_{promise}" for promise in breaks.split()))


def mistaken(made: Mistake) -> Any:
    """The adapter's class with that mistake. Fails if the text that it changes is not there."""
    found = importlib.util.find_spec(ADAPTER)
    assert found is not None
    assert found.origin is not None
    source = Path(found.origin).read_text()
    for old, new in made.changes:
        assert old in source, f"{made.name}: the adapter has no {old!r}"
        source = source.replace(old, new, 1)
    module = types.ModuleType(f"{ADAPTER}_{made.name}")
    exec(compile(source, module.__name__, "exec"), module.__dict__)
    return module.Attic


# --- Texts that more than one mistake changes -------------------------------------------------------------

_READ = "        return _body(self._known(self.client.read(call)), 200)"
_MENU = '        body = self._read("quotes", "/menu")'
_PAGE = '            page = self._read("list", "/machines", **after)'
_COUNT = """        if type(page.get("total")) is not int or page["total"] != len(found):
            raise NotUnderstood("attic list: another number of machines than was announced")
"""
_ROOM_COUNT = """        if body.get("count") != len(rows):
            raise NotUnderstood("attic quotes: another number of rooms than was announced")
"""
_DESTROY = """        if not _is_absent(answer):
            _body(answer, 202)
"""
_SEND_DESTROY = '        answer = self._known(self.client.send_once(_call("destroy", "DELETE", machine_id)))\n'
_SEND_CREATE = 'self.client.send_once(Call(operation="create"'
_ERROR = "    Account,\n", "    Account,\n    ProviderError,\n    Unavailable,\n"


def _caught(call: str, instead: str) -> tuple[str, str]:
    """`call`, whose errors are swallowed."""
    indent = " " * (len(call) - len(call.lstrip()))
    return call, f"{indent}try:\n    {call}\n{indent}except ProviderError:\n{indent}    {instead}"


def _by_hand(how: str) -> tuple[str, str]:
    """Reads without our client, and with nothing of its manners but what `how` says."""
    return (
        _READ,
        f"""        from providers.http import parsed
        try:
            headers = {{"Authorization": f"Bearer {{self.client._key}}"}}
            response = self.client.session.request("GET", URL + path, params=params, headers=headers, {how})
            answer = Answer(response.status_code, parsed(response.content), "")
        except requests.RequestException as error:
            raise NotUnderstood("attic does not answer") from error
        return _body(self._known(answer), 200)""",
    )


MISTAKES = (
    # What it is called, and how it comes to be.
    mistake("no_bill", ("def charges", "def bill"), breaks="the_adapter_has_every_verb"),
    mistake("a_fine_name", ('name = "attic"', 'name = "Attic Cloud"'), breaks="its_name_is_short_and_plain"),
    mistake(
        "settles_at_once", ("settle=timedelta(minutes=5)", "settle=timedelta(0)"),
        breaks="its_traits_are_such_that_the_rules_can_go_by_them",
    ),
    mistake(
        "goes_without_a_key", ('env.get("ATTIC_KEY", "")', 'env.get("ATTIC_KEY", "none")'),
        breaks="without_a_key_there_is_no_adapter",
    ),
    mistake(
        "shows_a_key_that_is_none",
        ("        return cls(Client(", "        if not key.isprintable():\n            raise ValueError(f'what a key: {key!r}')\n        return cls(Client("),
        breaks="what_can_be_no_key_is_told_without_showing_it",
    ),
    # The menu.
    mistake(
        "prices_as_floats", ('gpu=_number(row, "usd_per_hour"),', 'gpu=float(_number(row, "usd_per_hour")),'),
        breaks="a_menu_has_quotes_that_can_be_read",
    ),
    mistake(
        "ids_of_the_moment", ('provider_id=_text(row, "id")', 'provider_id=f"{id(object())}-{datetime.now()}"'),
        breaks="two_looks_at_the_menu_give_the_same_ids",
    ),
    mistake(
        "the_disk_is_free", ('storage_per_gb=_number(row, "usd_per_gb_hour")', "storage_per_gb=Decimal(0)"),
        breaks="prices_are_those_of_the_service_to_the_micro_dollar",
    ),
    mistake(
        "no_menu_is_an_empty_menu", _ERROR, _caught(_MENU, "return []"),
        breaks="a_menu_of_which_a_part_is_missing_is_none",
    ),
    mistake(
        "no_rooms_are_no_offers", ('_list(body, "rooms")', 'body.get("rooms") or []'), (_ROOM_COUNT, ""),
        breaks="a_menu_with_a_broken_member_raises_or_can_be_read",
    ),
    # Creates.
    mistake(
        "looks_before_it_creates", ("        order = {", "        self.quotes(disk_gb=spec.disk_gb)\n        order = {"),
        breaks="a_create_is_one_request_and_makes_one_machine",
    ),
    mistake(
        "cuts_labels", ('"label": spec.label', '"label": spec.label[:40]'),
        breaks="our_label_is_kept_as_it_is_and_read_as_ours "
        "a_create_that_is_not_heard_of_is_sent_once_and_found_by_its_label",
    ),
    mistake(
        "creates_again", (_SEND_CREATE, _SEND_CREATE.replace("send_once", "read")),
        breaks="a_create_that_is_not_heard_of_is_sent_once_and_found_by_its_label "
        "a_create_without_an_answer_of_the_service_is_sent_once_and_is_no_refusal "
        "a_create_among_too_many_requests_is_sent_once",
    ),
    mistake(
        "whatever_is_no_yes_is_a_no",
        ("        return _id(_body(answer, 201))", "        if answer.status != 201:\n"
         "            raise Refused('no', why=Refusal.OFFER_GONE)\n        return _id(_body(answer, 201))"),
        breaks="a_create_without_an_answer_of_the_service_is_sent_once_and_is_no_refusal",
    ),
    mistake(
        "any_id_will_do", ("return _id(_body(answer, 201))", 'return str(_body(answer, 201).get("id"))'),
        breaks="a_yes_with_a_broken_member_is_the_machine_or_no_answer",
    ),
    mistake(
        "no_money_is_another_offer", ('"no_money": Refusal.NO_MONEY', '"no_money": Refusal.OFFER_GONE'),
        breaks="a_refusal_says_why_and_makes_nothing",
    ),
    mistake(
        "forgets_what_a_refusal_made", (", machine_id=_id(answer.fields))", ")"),
        breaks="a_refusal_that_made_a_machine_all_the_same_names_it",
    ),
    mistake(
        "rents_something_else", ('"room": spec.quote_id', '"room": spec.quote_id if spec.quote_id[:2] == "r-" else "r-8"'),
        breaks="a_quote_that_is_none_makes_nothing",
    ),
    # Listings.
    mistake(
        "an_empty_list_is_an_error", ("not isinstance(rows, list) or", "not rows or not isinstance(rows, list) or"),
        breaks="an_account_without_machines_is_an_empty_list",
    ),
    mistake(
        "reads_one_page", ('            if page.get("next") is None:\n                break', "            break"), (_COUNT, ""),
        breaks="every_machine_is_listed_with_its_label",
    ),
    mistake(
        "shows_its_own_only",
        ("        return list(found.values())",
         '        return [each for each in found.values() if str(each.label).startswith("gs-kit")]'),
        breaks="machines_of_others_on_the_account_are_listed_too",
    ),
    mistake(
        "a_page_that_fails_is_the_end", _ERROR, _caught(_PAGE, "return list(found.values())"),
        breaks="a_listing_of_which_a_part_fails_is_whole_or_none "
        "a_listing_that_fails_as_a_whole_is_never_an_empty_account",
    ),
    mistake(
        "leaves_out_rows_that_it_cannot_read",
        ("map(_machine, _list(page, \"machines\"))",
         "(_machine(row) for row in _list(page, \"machines\") if _ID.fullmatch(str(row.get(\"id\"))))"), (_COUNT, ""),
        breaks="a_listing_with_a_broken_member_is_whole_or_none",
    ),
    mistake(
        "lists_what_runs",
        ("        return list(found.values())",
         "        return [each for each in found.values() if each.state is MachineState.UP]"),
        breaks="a_listing_with_a_broken_member_is_whole_or_none",
    ),
    mistake("does_not_count", (_COUNT, ""), breaks="a_listing_that_the_service_cut_short_is_none"),
    # Look-ups.
    mistake(
        "two_labels_for_one_machine",
        ("found = _machine(_body(answer, 200))", 'found = _machine({**_body(answer, 200), "label": None})'),
        breaks="what_is_listed_is_found_by_its_id_and_is_the_same our_label_is_kept_as_it_is_and_read_as_ours",
    ),
    mistake(
        "every_404_is_absence", (' and answer.fields.get("error") == "no_such_machine"', ""),
        breaks="a_look_that_fails_is_no_news_of_the_machine",
    ),
    mistake(
        "an_error_is_absence", _ERROR,
        _caught('        answer = self._known(self.client.read(_call("get", "GET", machine_id)))', "return None"),
        breaks="a_look_that_fails_is_no_news_of_the_machine",
    ),
    mistake(
        "does_not_say_for_how_long", _ERROR,
        (_READ, "        try:\n    " + _READ + "\n        except Unavailable:\n            raise Unavailable('busy') from None"),
        breaks="too_many_requests_say_how_long_to_keep_away",
    ),
    mistake(
        "what_it_cannot_read_is_absent", _caught("        found = _machine(_body(answer, 200))", "return None"), _ERROR,
        breaks="an_answer_with_a_broken_member_never_reads_as_absent",
    ),
    mistake(
        "any_text_is_an_id", ("    if not _ID.fullmatch(machine_id):", "    if machine_id is None:"),
        breaks="what_can_be_no_id_is_not_asked_for",
    ),
    # Keys.
    mistake(
        "a_wrong_key_is_a_riddle", ('("bad_key", "key_withdrawn")', '("key_withdrawn",)'),
        breaks="a_wrong_key_is_told_as_that_by_every_verb_and_changes_nothing",
    ),
    mistake(
        "knows_one_way_to_reject", ('("bad_key", "key_withdrawn")', '("bad_key",)'),
        breaks="a_key_that_is_rejected_in_another_way_is_told_as_that",
    ),
    mistake(
        "logs_the_key",
        ("        return answer\n", "        __import__('logging').warning('answered with %s', self.client._key)\n        return answer\n"),
        breaks="the_key_is_in_no_error_and_in_no_log",
    ),
    mistake(
        "errors_with_the_key", _ERROR,
        (_READ, "        try:\n    " + _READ + "\n        except ProviderError as error:\n"
         "            raise NotUnderstood(f'{error} with {self.client._key}') from None"),
        breaks="the_key_is_in_no_error_and_in_no_log",
    ),
    mistake(
        "shows_what_was_rejected", ('Unauthorized("attic rejects our key")', "Unauthorized(f'no: {self.client._key}')"),
        breaks="a_wrong_key_is_shown_as_little_as_a_right_one",
    ),
    mistake(
        "looks_like_its_key",
        ("        self.client = client", "        self.client = client\n\n    def __repr__(self):\n        return f'Attic({self.client._key})'"),
        breaks="the_key_is_not_shown_by_what_the_adapter_looks_like",
    ),
    # Ends.
    mistake(
        "nothing_is_ever_gone",
        ("            return None  # A gateway's 404", "            raise NotUnderstood('not found')  # A gateway's 404"),
        breaks="a_destroyed_machine_is_not_there_by_either_way_of_asking",
    ),
    mistake(
        "what_is_gone_is_an_error", (_DESTROY, "        _body(answer, 202)\n"),
        breaks="to_destroy_what_is_gone_is_no_error",
    ),
    mistake(
        "destroys_again", (_SEND_DESTROY, _SEND_DESTROY.replace("send_once", "read")),
        breaks="a_destroy_is_sent_once_whatever_comes_of_it",
    ),
    mistake(
        "swallows_a_failed_destroy", _ERROR, _caught(_SEND_DESTROY.rstrip("\n"), "return"),
        breaks="a_destroy_that_failed_is_told",
    ),
    mistake(
        "believes_a_yes",
        (_DESTROY, _DESTROY + '        self.__dict__.setdefault("gone", set()).add(machine_id)\n'),
        ("        answer = self._known(self.client.read(_call(\"get\"",
         "        if machine_id in getattr(self, \"gone\", ()):\n            return None\n"
         "        answer = self._known(self.client.read(_call(\"get\""),
        breaks="a_yes_to_a_destroy_is_not_believed",
    ),
    # Manners.
    mistake(
        "waits_for_ever", _by_hand("allow_redirects=False"),
        breaks="every_request_has_a_time_out_and_checks_the_certificate",
    ),
    mistake(
        "trusts_any_certificate", _by_hand("allow_redirects=False, timeout=60, verify=False"),
        breaks="every_request_has_a_time_out_and_checks_the_certificate",
    ),
    mistake("follows_redirects", _by_hand("timeout=60"), breaks="no_redirect_is_followed"),
    mistake(
        "reads_what_drips_and_does_not_end", _by_hand("timeout=60, allow_redirects=False"),
        breaks="an_answer_that_drips_is_given_up an_answer_without_end_is_given_up",
    ),
    mistake(
        "knows_its_own_machines_only",
        ("        return _id(_body(answer, 201))", "        made = _id(_body(answer, 201))\n"
         '        self.__dict__.setdefault("mine", set()).add(made)\n        return made'),
        (_SEND_DESTROY, '        if machine_id not in getattr(self, "mine", ()):\n            return\n' + _SEND_DESTROY),
        breaks="another_process_with_the_same_key_rents_sees_and_ends",
    ),
    mistake(
        "dollars_for_micro_dollars", ('balance=micros(_number(body, "usd"))', 'balance=_number(body, "usd")'),
        breaks="an_account_is_told_in_whole_micro_dollars",
    ),
    mistake(
        "an_account_of_nobody", _ERROR, _caught('        body = self._read("account", "/account")', 'return Account(id="")'),
        breaks="an_account_that_does_not_answer_is_no_account",
    ),
    mistake(
        "half_the_price", ("PriceParts(gpu=micros(row[\"usd_per_hour\"])", "PriceParts(gpu=micros(row[\"usd_per_hour\"] / 2)"),
        breaks="a_machine_s_price_is_the_quote_s_where_it_is_told",
    ),
    mistake(
        "cuts_new_labels", ('body={"label": label}', 'body={"label": label[:8]}'),
        breaks="a_new_label_is_one_request_and_is_read_back",
    ),
    mistake(
        "relabels_again", ("_body(self._known(self.client.send_once(call)), 200)", "_body(self._known(self.client.read(call)), 200)"),
        breaks="a_new_label_and_a_key_are_sent_once_whatever_comes_of_it",
    ),
    mistake(
        "a_key_that_is_there_is_an_error",
        ("        call = _call(\"attach_key\"", "        keys = self.__dict__.setdefault(\"keys\", set())\n"
         "        if public_key in keys:\n            raise NotUnderstood('it is there')\n"
         "        keys.add(public_key)\n        call = _call(\"attach_key\""),
        breaks="a_key_may_be_added_twice",
    ),
    mistake(
        "times_of_nowhere", ("datetime.fromisoformat(_text(line, name))", "datetime.fromisoformat(_text(line, name)[:19])"),
        breaks="charges_have_times_and_whole_micro_dollars",
    ),
    mistake(
        "no_bill_is_an_empty_bill", _ERROR,
        _caught('        body = self._read("charges", "/bill", since=since.isoformat(), until=until.isoformat())', "return []"),
        breaks="a_bill_that_does_not_come_is_not_an_empty_one",
    ),
)  # fmt: skip
