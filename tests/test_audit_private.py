"""Personal data and secrets are found; order numbers, dates and placeholders are not taken for them."""

import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.audit import audit_examples
from luthier.audit.finding import Material
from luthier.audit.personal_data import BEGIN_DIGITS, find_personal_data, passes_luhn, personal_data
from luthier.audit.secret import find_secrets, secrets
from luthier.examples.example import Example, Message


def material(asked: str) -> Material:
    held = Example("1", (Message("user", asked), Message("assistant", "fine")), "f", 1)
    return Material({"all": [held]}, None, None, (), None, "text")


PERSONAL = [
    ("write to ann.lee+shop@mail.example.co.uk.", "mail"),
    ("<ann@example.org>", "mail"),
    ("call +49 30 1234567 today", "phone"),
    ("call +1 (555) 123-4567", "phone"),
    ("my number is 415-555-2671", "phone"),
    ("my number is (415) 555-2671.", "phone"),
    ("0171 2345678 is mine", "phone"),
    ("ring 06 12 34 56 78", "phone"),
    ("+442079460958", "phone"),
    ("card 4111 1111 1111 1111 please", "card"),
    ("4111-1111-1111-1111", "card"),
    ("5500000000000004", "card"),
    ("amex 378282246310005", "card"),
    ("IBAN DE89 3704 0044 0532 0130 00", "iban"),
    ("GB82WEST12345698765432", "iban"),
    ("from NL91 ABNA 0417 1643 00 to you", "iban"),
    ("call 1-415-555-2671 now", "phone"),
    ("you did +33618594959 ring", "phone"),
    ("my mobile is 612 345 678", "phone"),
    ("tel. 98530 99722", "phone"),
    ("seen from 91.23.114.7 today", "ip"),
    ("seen from 91.2.114.73 today", "ip"),
    ("host 2001:4860:4860::8888 is up", "ip"),
    ("host 2a00:fb1c:c0de:beef:abcd:ef01:abcd:ef12 is up", "ip"),
]


@pytest.mark.parametrize(("text", "kind"), PERSONAL)
def test_personal_data_is_found(text: str, kind: str) -> None:
    assert [found for found, _ in personal_data(text)] == [kind]
    (finding,) = find_personal_data(material(f"So: {text}"))
    assert finding.message.startswith(f"the input holds {kind} ")


def test_digits_of_every_script_are_left_to_the_patterns() -> None:
    decimals = [chr(code) for code in range(0x80, 0x110000) if chr(code).isdecimal()]
    assert len(decimals) > 500
    assert all(digit.encode()[0] in BEGIN_DIGITS for digit in decimals)
    assert all(0x80 <= byte < 0xC0 for digit in decimals for byte in digit.encode()[1:])
    arabic = "call me at ٠١٧١ ٢٣٤٥٦٧٨ or ٩"
    assert len(find_personal_data(material(arabic))) == len(list(personal_data(arabic)))


@pytest.mark.parametrize(
    "text",
    [
        "order 4111111111111111 is late",
        "order number: 415-555-2671",
        "Bestellnummer 0171 2345678",
        "tracking no. 0012345678905",
        "my order #123456789",
        "order ORD-2024-00123456",
        "item 123-4567890-1234567",
        "invoice 2024-0001234567",
        "it costs 1234567890 dollars",
        "between 2024-01-02 and 2024-03-04",
        "on 01.02.2024 at 10:30",
        "on 01/02/2024 - 03/02/2024",
        "at 192.168.100.100",
        "version 91.23.114.7 is out",
        "bind to 0.0.0.0 or 127.0.0.1",
        "release 8.8.1.4",
        "from 12:30:45 to 13:30:45",
        "id: 612 345 678",
        "pi is 3.14159265358979",
        "version 10.2.3.400000001",
        "4111 1111 1111 1112",
        "1234567812345670",
        "DE89 3704 0044 0532 0130 01",
        "XX89 3704 0044 0532 0130 00",
        "follow @ann or a@b",
        "1 000 000 000 people",
    ],
)
def test_other_numbers_are_not_personal(text: str) -> None:
    assert list(personal_data(text)) == []


def test_random_order_numbers_do_not_trigger() -> None:
    rng = random.Random(0)
    digits = ["".join(rng.choices(string.digits, k=rng.randint(5, 16))) for _ in range(3000)]
    texts = [f"Where is my order {d}?" for d in digits] + [
        f"Order no. {d[:3]}-{d[3:]} has not come" for d in digits
    ]
    assert [text for text in texts if list(personal_data(text))] == []


@given(st.from_regex(r"[0-9]{12,18}", fullmatch=True))
def test_luhn_catches_every_changed_digit(digits: str) -> None:
    (check,) = (c for c in string.digits if passes_luhn(digits + c))
    number = digits + check
    for place in (0, len(number) // 2, len(number) - 1):
        changed = str((int(number[place]) + 1) % 10)
        assert not passes_luhn(number[:place] + changed + number[place + 1 :])


def key(alphabet: str, length: int) -> str:
    return "".join(random.Random(length).choices(alphabet, k=length))


ALNUM = string.ascii_letters + string.digits
HEX, UPPER = "0123456789abcdef", string.ascii_uppercase + string.digits
SECRETS = [
    f"use AKIA{key(string.ascii_uppercase + string.digits, 16)} here",
    f"ghp_{key(ALNUM, 36)}",
    f"github_pat_{key(ALNUM, 40)}",
    f"glpat-{key(ALNUM, 20)}",
    f"sk-{key(ALNUM, 48)}",
    f"sk-proj-{key(ALNUM, 60)}",
    f"sk-ant-api03-{key(ALNUM, 80)}",
    f"sk_live_{key(ALNUM, 24)}",
    f"xoxb-{key(string.digits, 12)}-{key(ALNUM, 24)}",
    f"AIza{key(ALNUM, 35)}",
    f"hf_{key(ALNUM, 34)}",
    f"npm_{key(ALNUM, 36)}",
    f"SG.{key(ALNUM, 22)}.{key(ALNUM, 43)}",
    f"eyJ{key(ALNUM, 20)}.eyJ{key(ALNUM, 40)}.{key(ALNUM, 43)}",
    "postgres://admin:hunter2horse@db.example.org/main",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA",
    "-----BEGIN PRIVATE KEY-----",
    f'api_key = "{key(ALNUM, 32)}"',
    f"SECRET_KEY: {key(ALNUM, 40)}",
    f"Authorization: Bearer {key(ALNUM, 40)}",
    f"sk_test_{key(ALNUM, 24)}",
    f"https://hooks.slack.com/services/T0{key(UPPER, 7)}/B0{key(UPPER, 7)}/{key(ALNUM, 24)}",
    f"GOCSPX-{key(ALNUM, 28)}",
    f"pypi-AgEIcHlwaS5vcmc{key(ALNUM, 120)}",
    f"shpat_{key(HEX, 32)}",
    f"dop_v1_{key(HEX, 64)}",
    f"dapi{key(HEX, 32)}",
    f"SK{key(HEX, 32)}",
    f"123456789:AA{key(ALNUM, 33)}",
    f"aws_secret_access_key = {key(ALNUM, 40)}",
    f"AccountKey={key(ALNUM, 86)}==",
    f'token: "{key(HEX, 40)}"',
    "password = hunter2horse!",
    "DB_PASSWORD='Winter_2031x'",
]


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_are_found(text: str) -> None:
    assert len(list(secrets(text))) == 1
    for around in (text, f"é {text}", f"one\u00a0two {text} three"):
        assert len(find_secrets(material(around))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "set api_key to YOUR_API_KEY_GOES_HERE",
        "api_key: <your key>",
        "the secret ingredient is internationalization of everything",
        "a risk-averse-and-long-hyphenated-compound-word",
        "-----BEGIN PUBLIC KEY-----",
        "https://example.org:8080/path",
        "commit 3f2a9c1b7d4e5f60718293a4b5c6d7e8f9012345",
        "reset my password please",
        "password: must be 12 characters long",
        "password: ********",
        "password=required, name=optional",
        "password = os.environ['DB_PASSWORD']",
        "AKIAIOSFODNN7EXAMPLE",
        "postgres://user:password@localhost/db",
        "token: <your-token>",
        "the token of my gratitude: a long-lasting friendship",
    ],
)
def test_placeholders_and_prose_are_not_secrets(text: str) -> None:
    assert list(secrets(text)) == []


def test_findings_mask_what_they_found() -> None:
    secret, mail = f"ghp_{key(ALNUM, 36)}", "ann.lee@example.org"
    messages = (Message("user", f"use {secret}"), Message("assistant", f"ask {mail} and {mail}"))
    result = audit_examples({"all": [Example("a", messages, "f.jsonl", 3)]})
    found = {f.check: f for f in result.findings if f.check in ("secret", "personal_data")}
    assert found["secret"].severity == "error"
    assert found["personal_data"].message.startswith("the answer holds mail an…rg")
    assert found["personal_data"].score == 1.0
    for finding in found.values():
        assert [e.where for e in finding.examples] == ["f.jsonl:3"]
        assert secret not in finding.message
        assert mail not in finding.message
