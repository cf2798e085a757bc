"""Secrets and personal data, made up by the forms that their issuers publish, planted in real texts."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from bench.checks.rates import Tally
from luthier.audit.personal_data import personal_data
from luthier.audit.secret import secrets

ALNUM = string.ascii_letters + string.digits
UPPER = string.ascii_uppercase + string.digits
URL_SAFE = ALNUM + "-_"
HEX = "0123456789abcdef"
Maker = Callable[[random.Random], str]
Detector = Callable[[str], Iterable[tuple[str, str]]]


def _random(rng: random.Random, alphabet: str, length: int) -> str:
    return "".join(rng.choices(alphabet, k=length))


def _key(prefix: str, alphabet: str, length: int, end: str = "") -> Maker:
    return lambda rng: prefix + _random(rng, alphabet, length) + end


def _password(rng: random.Random) -> str:
    word = rng.choice(("sunrise", "Hunter", "tulip", "Falcon", "bicycle", "Winter", "dragon", "Pepper"))
    return word + rng.choice("!#$%_-.") + _random(rng, string.digits, rng.randint(2, 4)) + rng.choice("xQz!k")


def _assigned(rng: random.Random) -> str:
    name = rng.choice(("password", "passwd", "DB_PASSWORD", "pwd", "admin_password", "PGPASSWORD"))
    sign, quote = rng.choice((" = ", "=", ": ")), rng.choice(("", '"', "'"))
    return f"{name}{sign}{quote}{_password(rng)}{quote}"


def _named_key(rng: random.Random) -> str:
    names = ("api_key", "API_KEY", "apikey", "secret_key", "client_secret", "access_token", "auth_token")
    quote = rng.choice(("", '"', "'"))
    value = _random(rng, rng.choice((HEX, ALNUM, ALNUM)), rng.choice((32, 40, 64)))
    return f"{rng.choice(names)}{rng.choice((' = ', '=', ': '))}{quote}{value}{quote}"


def _private_key(rng: random.Random) -> str:
    kind = rng.choice(("RSA ", "EC ", "OPENSSH ", "DSA ", "", "ENCRYPTED "))
    body = _random(rng, ALNUM + "+/", 64)
    return f"-----BEGIN {kind}PRIVATE KEY-----\n{body}\n-----END {kind}PRIVATE KEY-----"


def _web_token(rng: random.Random) -> str:
    return f"eyJ{_random(rng, URL_SAFE, 33)}.eyJ{_random(rng, URL_SAFE, 60)}.{_random(rng, URL_SAFE, 43)}"


def _address(rng: random.Random) -> str:
    scheme = rng.choice(("postgres", "mysql", "mongodb+srv", "redis", "https", "amqp", "ftp"))
    user, password = rng.choice(("admin", "root", "svc", "deploy")), _password(rng).replace("#", "")
    return f"{scheme}://{user}:{password}@db.example.org/main"


SECRETS: dict[str, Maker] = {
    "AWS access key": lambda rng: (
        rng.choice(("AKIA", "ASIA")) + _random(rng, string.ascii_uppercase + "234567", 16)
    ),
    "AWS secret key": lambda rng: f"aws_secret_access_key = {_random(rng, ALNUM + '+/', 40)}",
    "GitHub token": lambda rng: (
        rng.choice(("ghp_", "gho_", "ghu_", "ghs_", "ghr_")) + _random(rng, ALNUM, 36)
    ),
    "GitHub fine-grained token": lambda rng: (
        f"github_pat_{_random(rng, ALNUM, 22)}_{_random(rng, ALNUM, 59)}"
    ),
    "GitLab token": _key("glpat-", URL_SAFE, 20),
    "OpenAI key": lambda rng: rng.choice(("sk-", "sk-proj-", "sk-svcacct-")) + _random(rng, URL_SAFE, 48),
    "Anthropic key": _key("sk-ant-api03-", URL_SAFE, 93, "AA"),
    "Stripe key": lambda rng: rng.choice(("sk_live_", "rk_live_", "sk_test_")) + _random(rng, ALNUM, 24),
    "Slack token": lambda rng: (
        f"xox{rng.choice('bpa')}-{_random(rng, string.digits, 12)}-{_random(rng, ALNUM, 24)}"
    ),
    "Slack webhook": lambda rng: (
        "https://hooks.slack.com/services/"
        f"T{_random(rng, UPPER, 8)}/B{_random(rng, UPPER, 8)}/{_random(rng, ALNUM, 24)}"
    ),
    "Google key": _key("AIza", URL_SAFE, 35),
    "Google OAuth secret": _key("GOCSPX-", URL_SAFE, 28),
    "Hugging Face token": _key("hf_", string.ascii_letters, 34),
    "npm token": _key("npm_", ALNUM, 36),
    "PyPI token": _key("pypi-AgEIcHlwaS5vcmc", URL_SAFE, 150),
    "SendGrid key": lambda rng: f"SG.{_random(rng, URL_SAFE, 22)}.{_random(rng, URL_SAFE, 43)}",
    "Twilio key": lambda rng: f"SK{_random(rng, HEX, 32)}",
    "Shopify token": lambda rng: f"shpat_{_random(rng, HEX, 32)}",
    "DigitalOcean token": lambda rng: f"dop_v1_{_random(rng, HEX, 64)}",
    "Databricks token": lambda rng: f"dapi{_random(rng, HEX, 32)}",
    "Telegram bot token": lambda rng: f"{_random(rng, '123456789', 10)}:AA{_random(rng, URL_SAFE, 33)}",
    "Azure storage key": lambda rng: f"AccountKey={_random(rng, ALNUM + '+/', 86)}==",
    "private key": _private_key,
    "JSON web token": _web_token,
    "password in an address": _address,
    "password assigned": _assigned,
    "key assigned by name": _named_key,
    "bearer token": lambda rng: f"Authorization: Bearer {_random(rng, URL_SAFE, 40)}",
}


def _luhn(body: str) -> str:
    total = 0
    for place, digit in enumerate(reversed(body)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return body + str(-total % 10)


def _card(rng: random.Random) -> str:
    start, length = rng.choice((("4", 16), ("51", 16), ("55", 16), ("2223", 16), ("37", 15), ("6011", 16)))
    digits = _luhn(start + _random(rng, string.digits, length - 1 - len(start)))
    if length == 15:
        return rng.choice((digits, f"{digits[:4]} {digits[4:10]} {digits[10:]}"))
    return rng.choice(("", " ", "-")).join(digits[at : at + 4] for at in range(0, 16, 4))


_IBANS = {
    **{"DE": "n18", "FR": "n10a11n2", "GB": "A4n14", "ES": "n20", "IT": "A1n22", "NL": "A4n10", "AT": "n16"},
    **{
        "BE": "n12",
        "CH": "n5a12",
        "PL": "n24",
        "SE": "n20",
        "NO": "n11",
        "PT": "n21",
        "IE": "A4n14",
        "DK": "n14",
    },
}


def _iban(rng: random.Random) -> str:
    country = rng.choice(sorted(_IBANS))
    body = ""
    for part in _IBANS[country].replace("n", " n").replace("a", " a").replace("A", " A").split():
        alphabet = {"n": string.digits, "a": UPPER, "A": string.ascii_uppercase}[part[0]]
        body += _random(rng, alphabet, int(part[1:]))
    number = "".join(str(int(c, 36)) for c in body + country + "00")
    whole = f"{country}{98 - int(number) % 97:02d}{body}"
    return rng.choice((whole, " ".join(whole[at : at + 4] for at in range(0, len(whole), 4))))


def _fill(form: str, rng: random.Random) -> str:
    return "".join(
        rng.choice("23456789") if c == "N" else rng.choice(string.digits) if c == "n" else c for c in form
    )


def _forms(*forms: str) -> Maker:
    return lambda rng: _fill(rng.choice(forms), rng)


def _mail(rng: random.Random) -> str:
    first = rng.choice(("ann", "j.smith", "Maria_Lopez", "o'hara", "k.mueller+shop", "lee99", "x-ray"))
    hosts = ("example.org", "mail.example.co.uk", "uni-bonn.example.de", "corp.example.io")
    return f"{first}@{rng.choice(hosts)}"


PERSONAL: dict[str, Maker] = {
    "mail": _mail,
    "card": _card,
    "IBAN": _iban,
    "phone, E.164": _forms(
        "+1Nnnnnnnnnn", "+4479nnnnnnnn", "+4915nnnnnnnnn", "+336nnnnnnnn", "+9198nnnnnnnn"
    ),
    "phone, international": _forms(
        *(
            "+44 20 79nn nnnn",
            "+49 (0)30 Nnnnnnn",
            "+49 170 Nnnnnnn",
            "+33 6 nn nn nn nn",
            "+1 (N12) Nnn-nnnn",
        ),
        *("+1-N15-Nnn-nnnn", "+34 6nn nnn nnn", "+39 06 Nnnn nnnn", "+91 98nnn nnnnn", "+86 138 nnnn nnnn"),
        *("+41 44 Nnn nn nn", "0049 170 Nnnnnnn", "0044 20 79nn nnnn"),
    ),
    "phone, United States": _forms(
        "(N12) Nnn-nnnn", "N12-Nnn-nnnn", "N12.Nnn.nnnn", "1-N12-Nnn-nnnn", "N12 Nnn nnnn"
    ),
    "phone, Europe": _forms(
        *("030 Nnnnnnn", "0170/Nnnnnnn", "0171-Nnnnnnn", "(089) Nnnnnn", "06 nn nn nn nn", "01.nn.nn.nn.nn"),
        *(
            "020 79nn nnnn",
            "07nnn nnnnnn",
            "(020) 79nn nnnn",
            "044 Nnn nn nn",
            "06-nnnnnnnn",
            "0171 Nnn nn nn",
        ),
    ),
    "phone, Spain, India, bare": _forms("call me at 6nn nnn nnn", "tel. 98nnn nnnnn", "mobile 9nn nn nn nn"),
    "IP address": lambda rng: ".".join(
        [rng.choice(("23", "45", "81", "91", "151", "185")), *(str(rng.randint(1, 250)) for _ in range(3))]
    ),
}


def _isbn(rng: random.Random) -> str:
    parts = (_random(rng, string.digits, length) for length in (1, 2, 6, 1))
    return "ISBN 978-" + "-".join(parts)


LOOKALIKES: dict[str, Maker] = {
    "ISBN": _isbn,
    "hash": lambda rng: (
        rng.choice(("commit ", "sha256 ", "md5 ", "")) + _random(rng, HEX, rng.choice((32, 40, 64)))
    ),
    "UUID": lambda rng: "-".join(_random(rng, HEX, n) for n in (8, 4, 4, 4, 12)),
    "date and time": _forms(
        "2024-0N-1n 1n:3n:2n", "1n.0N.2023", "0N/1n/2023 at 1n:3n", "2024-0N-1nT1n:3n:2nZ", "1718nnnnnn"
    ),
    "order number": _forms(
        "order 4nnnnnnnnnnnnnnn",
        "order no. Nnn-nnnnnnn-nnnnnnn",
        "invoice 2024-00nnnnnn",
        "ticket #Nnnnnnnnn",
        "tracking number 1Z999AA1nnnnnnnnnn",
        "PO 45nnnnnnnn",
        "ref: 00nnnnnnnn",
    ),
    "version": _forms(
        "version 1N.n.nn", "v2.1n.n-rc1", "python 3.1n.N", "build 10.0.2nnnn.1nnn", "numpy==1.2n.n"
    ),
    "amount": _forms(
        "$1,Nnn,nnn.nn", "1 Nnn nnn nnn people", "Nnnnnnnnnn dollars", "3.1415926nnnnnn", "0.0000nnnnnn"
    ),
    "placeholder": lambda rng: rng.choice(
        (
            *("api_key = YOUR_API_KEY_GOES_HERE", "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxx", "password: ********"),
            *(
                "token: <your-token>",
                "export API_KEY=$MY_SECRET_KEY_FROM_VAULT",
                "password = os.environ['DB_PASSWORD']",
            ),
            *(
                "AKIAIOSFODNN7EXAMPLE",
                "postgres://user:password@localhost/db",
                "Authorization: Bearer <token>",
            ),
        )
    ),
    "talk of secrets": lambda rng: rng.choice(
        (
            *(
                "my password is not working since yesterday",
                "the secret of good bread is time",
                "reset the password: how?",
            ),
            *(
                "password: must be 12 characters long",
                "the key to success: perseverance",
                "which access token do I need?",
            ),
            *("the token expired and the api key was revoked", "password=required, name=optional"),
        )
    ),
}


def plant(
    makers: Mapping[str, Maker], texts: Sequence[str], each: int, seed: int
) -> Iterator[tuple[str, str]]:
    """(kind, a real text with one of that kind put between two of its words)."""
    rng = random.Random(seed)
    for kind, make in makers.items():
        for _ in range(each):
            words = rng.choice(texts).split(" ")
            places = [n for n in range(len(words) + 1) if not _has_digits(words[max(0, n - 1) : n + 1])]
            if not places:  # between two numbers nobody writes a third
                continue
            at = rng.choice(places)
            yield kind, " ".join([*words[:at], make(rng), *words[at:]])


def _has_digits(words: Sequence[str]) -> bool:
    return any(c.isdigit() for word in words for c in word)


def measure(
    detect: Detector, makers: Mapping[str, Maker], texts: Sequence[str], each: int, seed: int
) -> list[Tally]:
    """Recall by kind; how often look-alikes are taken for one.

    The texts are free of findings: what was found in them as they are is measured apart.
    """
    clean = [text for text in texts if not list(detect(text))]
    found = []
    for faults, source in ((True, makers), (False, LOOKALIKES)):
        hits: dict[str, list[bool]] = {}
        for kind, text in plant(source, clean, each, seed):
            hits.setdefault(kind, []).append(bool(list(detect(text))))
        found += [Tally(kind, sum(own), len(own), faults) for kind, own in hits.items()]
    return found


def natural(detect: Detector, texts: Sequence[str]) -> list[tuple[str, str, str]]:
    """What is found in real texts as they are: kind, what it is, and the text."""
    return [(kind, hit, text) for text in texts for kind, hit in detect(text)]


def secret_tallies(texts: Sequence[str], each: int, seed: int) -> list[Tally]:
    """Keys and passwords."""
    return measure(secrets, SECRETS, texts, each, seed)


def personal_tallies(texts: Sequence[str], each: int, seed: int) -> list[Tally]:
    """Mails, numbers of cards, accounts and phones, addresses of machines."""
    return measure(personal_data, PERSONAL, texts, each, seed)
