"""audit.html: shows what was found and where, hides what is private, runs nothing, and stays small."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_card_report import PAYLOAD, Page

from luthier.audit import Finding, audit_examples
from luthier.audit.overview import add_findings, find_unreadable, overview
from luthier.card.audit_groups import EXAMPLES_SHOWN, group_findings
from luthier.card.audit_masks import FIRST_SHOWN, read_masks
from luthier.card.audit_page import MOST_BYTES, Checked, render_audit_page, write_audit_page
from luthier.card.charts import Mark
from luthier.card.distributions import draw_distributions
from luthier.card.histogram import bin_values, draw_histogram, draw_tally
from luthier.card.masked import Masked, Piece, clip_pieces, show_edges
from luthier.card.templates import content_policy, read_asset
from luthier.card.wording_changes import mark_changes
from luthier.chat import ChatFormat
from luthier.examples.example import Example, Message
from luthier.examples.row import Problem

WORDS = ("lamp", "kettle", "violin", "ladder", "basket", "harbour", "garden", "attic", "bridge", "meadow")
LABELS = ("billing", "delivery", "refund", "account")


def example(asked: str, answer: str, line: int, **options: Any) -> Example:
    turns = (Message("user", asked), Message("assistant", answer))
    return Example(
        f"{line}-{options.get('file', '')}", turns, options.pop("file", "t.jsonl"), line, **options
    )


def clean(n: int = 60, start: int = 1, file: str = "t.jsonl") -> list[Example]:
    dice = random.Random(start)
    texts = [" ".join(dice.choices(WORDS, k=9)) + f" {dice.randrange(10**6)}" for _ in range(n)]
    return [example(text, LABELS[i % 4], start + i, file=file) for i, text in enumerate(texts)]


def check(members: Sequence[Example], chat: ChatFormat | None = None, **options: Any) -> Checked:
    return check_sides({"all": members}, chat, **options)


def check_sides(
    sides: dict[str, Sequence[Example]],
    chat: ChatFormat | None = None,
    problems: Sequence[Problem] = (),
    name: str = "t.jsonl",
    **options: Any,
) -> Checked:
    audit = audit_examples(sides, special_tokens=("<|im_start|>", "<|im_end|>"), **options)
    unreadable = find_unreadable(problems)
    n = sum(map(len, sides.values()))
    read = {"file": f"data/{name}", "format": "messages", "examples": n, "left_out": len(problems)}
    told = add_findings(audit.as_json(), unreadable, len(unreadable)) | overview(
        sides, test_share=0.3, read=[read]
    )
    limit = options.get("max_tokens")
    return Checked(
        name, told, (*unreadable, *audit.findings), sides, chat, "tiny" if chat else "", limit=limit
    )


def show(checked: Checked, **options: Any) -> Page:
    return Page(render_audit_page(checked, **options))


def articles(html: str, name: str) -> str:
    """The section of one check."""
    found = re.search(rf'<section class="group [a-z]+" data-check="{name}".*?</section>', html, re.DOTALL)
    assert found, name
    return found[0]


def plain(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html))


# --- what is found ----------------------------------------------------------------------------------


def test_each_planted_fault_is_told_with_its_place_its_text_and_what_to_do(chat: ChatFormat) -> None:
    planted = [
        example("where is the parcel that I ordered last week", "delivery", 101),
        example("where is the parcel that I ordered last week", "refund", 102),
        example("the bell in the hall rang twice today", "account", 105),
        example("the bell in the hall rang twice today", "account", 106),
        example("end this <|im_end|> now", "billing", 107),
    ]
    problems = [Problem("data/t.jsonl:9", "not valid JSON", "write one object a line"), Problem("odd", "bad")]
    checked = check([*clean(), *planted], chat, problems=problems)
    html = render_audit_page(checked)
    page = Page(html)
    for shown in (
        "4 errors",  # conflict, special token, two rows
        "t.jsonl: 65 examples, read as messages; 2 rows left out.",
        "With 20 test examples after the split you can detect a 26-point difference.",
        "Not valid JSON.",
        "t.jsonl:9",
        "Write one object a line.",
    ):
        assert shown in page.text, shown
    conflict = articles(html, "label_conflict")
    columns = conflict.split('class="answer-column"')[1:]
    assert [plain(column).split()[1:3] for column in columns] == [["delivery", "1"], ["refund", "1"]]
    assert "t.jsonl:101" in columns[0]
    assert "t.jsonl:102" in columns[1]
    assert "What to do. Decide which answer is right" in plain(conflict)
    copies = articles(html, "exact_duplicate")
    assert copies.count("rang twice") == 1  # once, with both places
    assert "t.jsonl:105 t.jsonl:106" in plain(copies)
    assert '<mark class="special">&lt;|im_end|&gt;</mark>' in articles(html, "special_token")


def test_near_duplicates_are_a_group_with_the_differing_words_marked() -> None:
    members = tuple(
        example(f"where is my parcel from last {w}", "delivery", i) for i, w in enumerate(("week", "month"))
    )
    found = Finding("near_duplicate", "info", 0.8, "2 inputs are nearly the same", "keep one", members)
    (group,) = group_findings([found], {}, {}, 10**6)
    (item,) = group.items
    asked = [next(said for said in shown.said if said.role == "user") for shown in item.examples]
    assert [[p.text for p in said.pieces if p.mark == "changed"] for said in asked] == [["week"], ["month"]]
    assert [shown.place for shown in item.examples] == ["t.jsonl:0", "t.jsonl:1"]


def test_leakage_names_the_sides_even_of_a_place_that_is_on_both() -> None:
    leaked = example("where is the parcel that I ordered last week", "delivery", 900)
    sides = {"train": [*clean(40), leaked], "test": [*clean(20, 500, "e.jsonl"), leaked]}
    html = render_audit_page(check_sides(sides))
    assert "t.jsonl:900 train, test" in plain(articles(html, "leakage"))
    apart = {"train": [*clean(40), leaked], "test": [example(leaked.input, "delivery", 7, file="e.jsonl")]}
    shown = plain(articles(render_audit_page(check_sides(apart)), "leakage"))
    assert "t.jsonl:900 train e.jsonl:7 test" in shown


def test_a_bad_and_a_good_answer_stand_side_by_side() -> None:
    asked = "where is the parcel that I ordered last week"
    judged = [
        example(asked, "On its way.", 1, rejected=("No idea.",)),
        example(asked, "No idea.", 2, rejected=("Somewhere.",)),
    ]
    html = articles(render_audit_page(check([*judged, *clean()])), "judgement_conflict")
    columns = [plain(column) for column in html.split('class="answer-column"')[1:]]
    assert [column.split(".")[0].strip("> ") for column in columns[:2]] == ["bad: No idea", "good: No idea"]
    assert "t.jsonl:1" in columns[0]
    assert "t.jsonl:2" in columns[1]


def test_a_clean_file_is_quiet() -> None:
    page = show(check(clean(600)))
    assert "Nothing was found" in page.text
    assert not [attrs for tag, attrs in page.tags if attrs.get("class", "").startswith("item")]
    assert "Not shown: no model was chosen" in page.text


def test_what_did_not_run_is_not_told_as_clean() -> None:
    def broken(_: Example) -> int:
        raise RuntimeError("no <b>template</b>")

    page = show(check(clean(600), tokens=broken, max_tokens=9))
    assert "The checks that ran found nothing" in page.text
    assert "truncation RuntimeError: no <b>template</b>." in page.text
    assert "leakage There is one side" in page.text
    looked = re.search(r"Looked for and not found: ([^.]*)\.", page.text)
    assert looked
    assert "truncation" not in looked[1]
    assert "secret" in looked[1]


# --- what is trained --------------------------------------------------------------------------------


def test_the_mask_is_the_answer_and_its_end(chat: ChatFormat) -> None:
    html = render_audit_page(check(clean(3), chat))
    masks = re.findall(r'<pre dir="auto" class="tokens">(.*?)</pre>', html, re.DOTALL)
    assert len(masks) == 3
    trained = [re.findall(r'<span class="trained( control)?">(.*?)</span>', mask) for mask in masks]
    assert trained[0] == [("", "billing"), (" control", "&lt;|im_end|&gt;")]
    assert plain(masks[0]).startswith("&lt;|im_start|&gt;user ")
    (sequence,) = chat.training(clean(1)[0])
    told = f"{sum(w > 0 for w in sequence.weights)} of {len(sequence.ids)} tokens are trained"
    assert told in Page(html).text


def test_every_turn_that_is_trained_is_marked(chat: ChatFormat) -> None:
    turns = (
        *(Message("user", "one"), Message("assistant", "alpha"), Message("user", "two")),
        *(Message("assistant", "beta", weight=0), Message("user", "three"), Message("assistant", "gamma")),
    )
    ((mask,), left_out) = read_masks([Example("x", turns, "t", 1)], [], chat, None, 10**6)
    assert [s.text for s in mask.stretches if s.trained and not s.control] == ["alpha", "gamma"]
    assert mask.trained == sum(
        sum(w > 0 for w in s.weights) for s in chat.training(Example("x", turns, "t", 1))
    )
    assert left_out == 0


def test_masks_of_the_first_and_of_those_with_a_finding(chat: ChatFormat) -> None:
    members = [*clean(50), example("end <|im_end|> here", "billing", 777)]
    members[4] = Example("no", (Message("user", "a"), Message("assistant", " ")), "t.jsonl", 5)
    checked = check(members, chat, tokens=lambda e: 99 if e.line == 30 else 1, max_tokens=50)
    masks, left_out = read_masks(members, checked.findings, chat, None, 10**6)
    assert [mask.place for mask in masks[FIRST_SHOWN:]] == ["t.jsonl:777", "t.jsonl:30"]
    assert {mask.why for mask in masks[FIRST_SHOWN:]} == {"special_token", "truncation"}
    assert "blank answer" in masks[4].refused
    assert left_out == 0
    spelt = [s for s in masks[FIRST_SHOWN].stretches if "<|im_end|> here" in s.text]
    assert len(spelt) == 1  # what a user spells is no control token
    assert not spelt[0].control
    few, left_out = read_masks(members, checked.findings, chat, None, 3000)
    assert len(few) + left_out == FIRST_SHOWN + 2
    assert 0 < len(few) < FIRST_SHOWN


# --- what is hidden ---------------------------------------------------------------------------------

KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA75abc\nqqzz==\n-----END RSA PRIVATE KEY-----"
PRIVATE = ("ann.smith@example.org", "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00")
SECRET = "sk-abcdEFGH1234ijklMNOP5678qrst"


def test_personal_data_and_secrets_are_masked_everywhere(chat: ChatFormat) -> None:
    asked = f"{KEY} mail {PRIVATE[0]} card {PRIVATE[1]}, IBAN {PRIVATE[2]}, key {SECRET}"
    members = [
        example(asked, SECRET, 1),  # in the mask, in a conflict's head, in the labels
        example(asked, SECRET, 2),
        example(asked, "refund", 3),
        *[example(f"what now {i}", "billing", 10 + i) for i in range(9)],
    ]
    html = render_audit_page(check([*members, *clean(9, 50)], chat))
    for text in (*PRIVATE, SECRET, SECRET[:8], "MIIEpAIB", "qqzz", "ann.smith"):
        assert text not in html, text
    assert html.count('<mark class="hidden">sk…st</mark>') > 2
    assert '<mark class="hidden">an…rg</mark>' in html
    assert '<mark class="hidden">private key</mark>' in html


def test_a_large_conflict_hides_what_its_last_members_hold() -> None:
    asked = "where is the parcel that I ordered last week"
    members = [example(asked, "delivery", line) for line in range(1, 90)]
    html = render_audit_page(check([*members, example(asked, f"mail {PRIVATE[0]}", 90)]))
    assert "ann.smith" not in html
    assert "mail <mark" in articles(html, "label_conflict")


def test_a_secret_that_a_message_quotes_cut_short_is_masked_too() -> None:
    masked = Masked([f"the key is {SECRET} here"])
    assert masked.hide(f"'{SECRET[:20]}…' (3)") == "'sk…' (3)"
    assert masked.hide("sky… and sk-") == "sky… and sk-"


def test_a_key_without_its_end_is_hidden_to_the_end() -> None:
    assert Masked([]).hide("a -----BEGIN PRIVATE KEY-----\nMIIE\n\nMore") == "a private key"


# --- hostile text -----------------------------------------------------------------------------------


def test_hostile_text_is_only_text(chat: ChatFormat) -> None:
    members = [
        example(PAYLOAD, PAYLOAD, 1, file=f"a{PAYLOAD}b"),
        example(f"{PAYLOAD} please", "other", 2, rejected=(PAYLOAD,)),
        example(PAYLOAD, "other", 3),
        example(f"<|im_end|>{PAYLOAD}", f'{{"{PAYLOAD[:20]}": 1}}', 4),
    ]
    problems = [Problem(f"{PAYLOAD}:3", PAYLOAD, PAYLOAD)]
    members = [*members, *clean(20, 50)]
    members = [
        e if i % 5 else Example(e.id, (e.messages[0], Message("assistant", PAYLOAD)), e.file, e.line)
        for i, e in enumerate(members)
    ]
    checked = check(members, chat, problems=problems, name=f"x{PAYLOAD}.jsonl")
    html = render_audit_page(checked)
    page = Page(html)
    kinds = {tag for tag, _ in page.tags}
    assert not kinds & {"img", "iframe", "object", "link", "base", "form"}
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on") or name == "style"]
    assert "{{7*7}}" in page.text
    assert "\ud800" not in html
    assert "\x00" not in html
    assert page.inline["script"] == [read_asset("audit.js")]
    assert page.inline["style"] == [read_asset("report.css") + "\n" + read_asset("audit.css")]


def test_nothing_is_fetched(chat: ChatFormat) -> None:
    page = show(check([*clean(), example("see https://example.org/x", "billing", 99)], chat))
    for _, attrs in page.tags:
        assert not {"src", "srcset", "action", "formaction", "background", "data", "poster"} & attrs.keys()
        assert attrs.get("href", "#").startswith("#")
    (policy,) = [
        a["content"] for t, a in page.tags if t == "meta" and "Content-Security" in a.get("http-equiv", "")
    ]
    (script,), (style,) = page.inline["script"], page.inline["style"]
    assert policy == content_policy(style, script)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "url(" not in style
    assert "@import" not in style


def test_every_link_on_the_page_leads_somewhere(chat: ChatFormat) -> None:
    page = show(check([*clean(), *clean(5)], chat))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {attrs["href"][1:] for tag, attrs in page.tags if tag == "a"}
    assert links <= set(ids)
    assert "mask-0" in links


# --- size -------------------------------------------------------------------------------------------


def test_a_page_of_a_large_file_stays_small_and_counts_what_it_leaves_out() -> None:
    long = "<b> & lamp " * 60
    members = [example(f"{i} a{i}@example.org {long}", f"{i} {long}", i) for i in range(1, 201)]
    checked = check(members)
    most = 200_000
    html = render_audit_page(checked, most_bytes=most)
    assert most / 3 < len(html.encode()) <= most
    shown = articles(html, "personal_data")
    (left_out,) = re.findall(r"(\d+) more findings of this check are left out", shown)
    assert shown.count('<article class="item') + int(left_out) == 200
    assert "200 findings" in plain(shown)
    assert MOST_BYTES < 5_000_000


def test_counts_go_beyond_the_findings_at_hand() -> None:
    checked = check([example("mail ann@example.org", "billing", 1), *clean()])
    (group,) = [
        g
        for g in group_findings(checked.findings, {"personal_data": 70}, {}, 10**6)
        if g.check == "personal_data"
    ]
    assert (group.count, group.left_out, len(group.items)) == (70, 69, 1)


def test_a_large_cluster_shows_some_and_counts_the_rest() -> None:
    members = [example("the bell in the hall rang twice today" + "!" * i, "refund", i) for i in range(9)]
    html = articles(render_audit_page(check([*members, *clean(20, 50)])), "exact_duplicate")
    assert html.count('class="shown"') == EXAMPLES_SHOWN
    assert f"and {9 - EXAMPLES_SHOWN} more examples in audit.json" in plain(html)


def test_the_same_audit_gives_the_same_page(chat: ChatFormat, tmp_path: Path) -> None:
    checked = check([*clean(), *clean(3)], chat)
    path = write_audit_page(tmp_path / "deep/audit.html", checked)
    first = path.read_bytes()
    assert write_audit_page(path, checked).read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["audit.html"]


# --- distributions ----------------------------------------------------------------------------------


def test_bins_by_hand() -> None:
    found = bin_values([0, 1, 1, 5, 9], most_bins=5)
    assert (found.counts, found.start, found.width, found.beyond) == ((3, 0, 1, 0, 1), 0, 2, 0)
    tailed = bin_values([*range(99), 5000], most_bins=10)  # the top 2% are the tail; one is far out
    assert (tailed.counts, tailed.width, tailed.beyond) == ((10,) * 9 + (9,), 10, 1)
    assert bin_values([7]).counts == (1,)
    assert bin_values([1000, 1004]).start == 1000


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=300))
def test_bins_hold_every_value_once(values: list[int]) -> None:
    found = bin_values(values)
    assert sum(found.counts) + found.beyond == len(values)
    assert found.beyond == sum(value >= found.end for value in values)
    assert all(value >= found.start for value in values)
    assert len(found.counts) <= 34
    assert str(found.width).strip("0") in ("1", "2", "5")
    assert found.beyond <= 0.02 * len(values)
    first = sum(found.start <= value < found.start + found.width for value in values)
    assert found.counts[0] == first


def test_the_limit_is_marked() -> None:
    def drawn(limit: int) -> str:
        return draw_histogram(
            bin_values(list(range(100))),
            key="k",
            title="t",
            description="d",
            limit=Mark(limit, f"limit {limit}"),
        )

    inside, outside = drawn(50), drawn(5000)
    assert 'class="mark"' in inside
    assert ">limit 50<" in inside
    assert 'class="mark"' not in outside
    assert ">limit 5000 →<" in outside


def test_distributions_have_the_numbers(chat: ChatFormat) -> None:
    members = clean(40)
    members.append(example("x" * 4000, "billing", 90))
    found = {d.title: d for d in draw_distributions(members, chat, None, 300)}
    assert "longest 4,000 (t.jsonl:90)" in found["Requests, characters"].caption
    assert "Median 7" in found["Answers, characters"].caption
    assert found["Whole examples, tokens"].caption.endswith("The limit is 300; 1 beyond it.")
    tokens = [len(chat.training(e)[0].ids) for e in members]
    assert f"longest {max(tokens):,}" in found["Whole examples, tokens"].caption
    assert re.findall(r">(billing|delivery|refund|account|\d+)</text>", found["Labels"].drawn) == [
        *("billing", "11", "delivery", "10", "refund", "10", "account", "10")
    ]
    assert "Turns" not in found
    assert "Requests, tokens with template" not in {
        d.title for d in draw_distributions(members, None, None, None)
    }


def test_fields_of_json_answers_and_turns() -> None:
    members = [
        example(f"q{i}", f'{{"urgent": {"true" if i % 3 else "false"}, "id": "{i}"}}', i) for i in range(12)
    ]
    more = (Message("user", "a"), Message("assistant", "b"), *members[0].messages)
    found = {
        d.title: d for d in draw_distributions([*members, Example("m", more, "t", 99)], None, None, None)
    }
    assert "true: 8; false: 5" in found["Field urgent"].drawn
    assert "Field id" not in found  # every value is another
    assert "2 turns: 12; 4 turns: 1" in found["Turns"].drawn


def test_texts_have_one_length() -> None:
    texts = [Example(str(i), (Message("assistant", "word " * i),), "t.txt", i) for i in range(1, 9)]
    titles = [d.title for d in draw_distributions(texts, None, None, None)]
    assert titles[:1] == ["Texts, characters"]
    assert "With" not in show(check(texts)).text.split("Findings")[0]  # no power where nothing is asked


def test_a_tally_is_cut_and_escaped() -> None:
    drawn = draw_tally([("<b>" + "x" * 60, 3), ("y", 1)], key="k", title="t", description="d")
    assert "<b>" not in drawn
    assert "&lt;b&gt;xxx" in drawn
    assert "x" * 30 not in drawn.split("</desc>")[1]


# --- texts ------------------------------------------------------------------------------------------


def test_changed_words_by_hand() -> None:
    first, second, third = mark_changes(
        ["Pay the bill by Friday", "pay the bill by Monday noon", "pay a bill by Friday"]
    )
    assert first == [Piece("Pay "), Piece("the", "changed"), Piece(" bill by "), Piece("Friday", "changed")]
    assert second == [Piece("pay the bill by "), Piece("Monday noon", "changed")]
    assert third == [Piece("pay "), Piece("a", "changed"), Piece(" bill by Friday")]


def test_a_long_common_beginning_is_cut() -> None:
    same = "the same long passage " * 40
    first, second = mark_changes([same + "is it dry", "".join((same, "was it dry"))])
    assert first[0] == Piece("… ")
    assert sum(len(piece.text) for piece in first) < 120
    assert [p.text for p in first if p.mark] == ["is"]
    assert [p.text for p in second if p.mark] == ["was"]
    assert mark_changes([same[:400], same[:400]]) == [[Piece(same[:400])]] * 2
    assert mark_changes([same, same])[0][-1] == Piece(" …")  # the rest was not compared


@given(st.lists(st.text("ab cd.\n", max_size=40), min_size=1, max_size=4))
def test_changes_lose_no_text(texts: list[str]) -> None:
    marked = mark_changes(texts)
    assert ["".join(piece.text for piece in pieces) for pieces in marked] == texts
    for text, pieces in zip(texts, marked, strict=True):
        if all(text == other for other in texts):
            assert not [piece for piece in pieces if piece.mark]


@given(
    st.lists(st.tuples(st.text("ab", max_size=30), st.sampled_from(["", "hidden"])), max_size=8),
    st.integers(5, 60),
)
def test_clipping_keeps_the_first_mark_in_sight(parts: list[tuple[str, Any]], most: int) -> None:
    pieces = [Piece(text, mark) for text, mark in parts if text]
    clipped = clip_pieces(pieces, most)
    if sum(len(piece.text) for piece in pieces) <= most:
        assert clipped == pieces
    else:
        assert sum(len(piece.text) for piece in clipped) <= most + 30
        assert any(p.mark for p in clipped) == any(p.mark for p in pieces)


def test_spaces_at_the_ends_are_seen() -> None:
    assert show_edges([Piece(" refund \n")]) == [
        Piece("␣", "special"),
        Piece("refund"),
        Piece("␣⏎", "special"),
    ]
    assert show_edges([Piece("refund")]) == [Piece("refund")]
    assert show_edges([]) == []
    with_space = [example(e.input, f"{e.answer} ", e.line) if e.line == 3 else e for e in clean()]
    html = articles(render_audit_page(check(with_space)), "inconsistent_answers")
    assert 'refund<mark class="special">␣</mark>' in html


@pytest.mark.parametrize("name", ["audit.js", "audit.css"])
def test_assets_need_nothing_from_outside(name: str) -> None:
    text = read_asset(name)
    assert not re.search(r"https?:|//[a-z]+\.|fetch\(|XMLHttp|eval\(|innerHTML|import\b", text)
