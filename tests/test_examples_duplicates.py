"""Near-duplicates are those of brute force, and a shared template does not make everything alike."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.examples.duplicates import find_alike, find_near_duplicates
from luthier.examples.groups import Groups
from luthier.examples.rewording import AGREEMENT, Vocabulary, agreement
from luthier.examples.wording import normalise

RNG = random.Random(7)
VOCABULARY = ["".join(RNG.choices("abcdefghijklmnopqrstuvwxyz", k=RNG.randint(3, 9))) for _ in range(500)]


def sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(VOCABULARY, k=words))


def shingles(text: str) -> set[str]:
    padded = f" {text} "
    return {padded[i : i + 4] for i in range(len(padded) - 3)}


def brute_force(texts: list[str]) -> tuple[set[tuple[int, ...]], set[tuple[int, ...]]]:
    """All pairs, in the open: what is near by exact Jaccard similarity or says the same, and the latter."""
    near, same = Groups(len(texts)), Groups(len(texts))
    vocabulary = Vocabulary([text.split() for text in dict.fromkeys(texts)])
    for i, a in enumerate(texts):
        for j, b in enumerate(texts[:i]):
            similarity = len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))
            agreed = similarity >= 0.5 and agreement(b.split(), a.split(), vocabulary) >= AGREEMENT
            if agreed:
                same.join(i, j)
            if agreed or similarity >= 0.7:
                near.join(i, j)
    found = [{tuple(m) for m in groups.clusters() if len(m) > 1} for groups in (near, same)]
    return found[0], found[1]


def edited(rng: random.Random, text: str) -> str:
    words = text.split()
    words[rng.randrange(len(words))] = rng.choice(VOCABULARY)
    return " ".join(words)


@pytest.mark.parametrize("seed", range(3))
def test_clusters_are_those_of_all_pairs(seed: int) -> None:
    rng = random.Random(seed)
    texts = [sentence(rng, rng.randint(6, 25)) for _ in range(60)]
    texts += [edited(rng, rng.choice(texts)) for _ in range(60)]
    found = find_alike(texts)
    near, same = ({cluster.members for cluster in clusters} for clusters in (found.near, found.same))
    assert (near, same) == brute_force(texts)
    assert len(near) > 20
    assert same


def test_similarity_is_the_true_jaccard() -> None:
    a, b = "where is my parcel", "where is my parcel 2"
    (cluster,) = find_near_duplicates([a, "something else entirely", b])
    assert cluster.members == (0, 2)
    # " where is my parcel " has 17 shingles, all of them in the other, which has 2 more.
    assert cluster.similarity == pytest.approx(17 / 19)


def test_copies_are_a_cluster_of_similarity_one() -> None:
    clusters = find_near_duplicates(["a b c", "x", "a b c", "", ""])
    assert [(c.members, c.similarity) for c in clusters] == [((0, 2), 1.0), ((3, 4), 1.0)]
    assert find_near_duplicates([]) == []


def test_shared_instructions_do_not_make_texts_alike() -> None:
    rng = random.Random(1)
    template = "read the customer message below and answer with exactly one of the known categories"
    texts = [f"{template} {sentence(rng, 5)}" for _ in range(100)]
    assert len(shingles(texts[0]) & shingles(texts[1])) / len(shingles(texts[0]) | shingles(texts[1])) > 0.5
    assert find_near_duplicates(texts) == []
    with_copy = [*texts, f"{texts[4]} please"]
    assert [c.members for c in find_near_duplicates(with_copy)] == [(4, 100)]


def test_one_content_under_two_templates_is_two_texts() -> None:
    rng = random.Random(2)
    words = [sentence(rng, 1) for _ in range(60)]
    texts = [f"translate this word to french {w}" for w in dict.fromkeys(words)]
    texts += [f"say how many vowels are in {w}" for w in dict.fromkeys(words)]
    assert find_near_duplicates(texts) == []


def test_scripts_without_spaces() -> None:
    texts = ["我想知道我的包裹现在在哪里", "我想知道我的包裹现在在哪里呢", "请帮我取消昨天的订单谢谢"]
    assert [c.members for c in find_near_duplicates(texts)] == [(0, 1)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(alphabet="ab c", max_size=12), max_size=12))
def test_clusters_are_disjoint_and_hold_all_copies(texts: list[str]) -> None:
    normal = [normalise(text) for text in texts]
    clusters = find_near_duplicates(normal)
    members = [m for cluster in clusters for m in cluster.members]
    assert len(members) == len(set(members))
    for cluster in clusters:
        assert len(cluster.members) >= 2
        assert 0.7 <= cluster.similarity <= 1
    for i, a in enumerate(normal):
        for j in range(i):
            if a == normal[j]:
                assert any({i, j} <= set(cluster.members) for cluster in clusters)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("Where is MY order?", "where is  my order", True),
        ("(Hello), world!", "hello world", True),
        ("e\u0301te\u0301", "été", True),
        ("what is 3-4?", "what is 3+4?", False),
        ("C# or C++", "C or C", False),
        ("1.5", "15", False),
        ("x²", "x2", False),
    ],
)
def test_normalising_keeps_what_has_meaning(a: str, b: str, same: bool) -> None:
    assert (normalise(a) == normalise(b)) is same


SAYS_THE_SAME = [
    ("where is my parcel from last week", "hi could you tell me where is my parcel from last week please"),
    ("what is the best way to learn it", "what's the best way to learn it"),
    ("do not send three parcels to me", "don't send 3 parcels to me"),
    ("where is the parcel that i ordered", "where is the parcle that i ordered"),
    ("can i get a refund if the lamp is broken", "if the lamp is broken can i get a refund"),
]
ASKS_SOMETHING_ELSE = [
    ("what is the capital of france", "what is the capital of spain"),
    ("where is my order 1234 from last week", "where is my order 1235 from last week"),
    ("the movie was good and i liked it", "the movie was not good and i liked it"),
    ("how much is it to change ten dollars to euros", "how much is it to change ten euros to dollars"),
    ("what happened in the town in 1989", "what happened in the town"),
]


@pytest.mark.parametrize(("a", "b"), SAYS_THE_SAME)
def test_slight_rewordings_say_the_same(a: str, b: str) -> None:
    others = [sentence(random.Random(n), 9) for n in range(200)]
    assert [c.members for c in find_alike([*others, a, b]).same] == [(200, 201)]


@pytest.mark.parametrize(("a", "b"), ASKS_SOMETHING_ELSE)
def test_what_looks_alike_may_ask_something_else(a: str, b: str) -> None:
    others = [sentence(random.Random(n), 9) for n in range(200)]
    assert find_alike([*others, a, b]).same == ()


def test_a_crowd_of_look_alikes_does_not_hide_a_copy() -> None:
    """Hundreds of questions of one form share their buckets; the one reworded pair among them is found."""
    names = ["".join(random.Random(n).choices("bcdfglmnprstvz", k=8)) for n in range(400)]
    texts = [f"what are the first symptoms of {name} in adults" for name in names]
    texts += [f"please tell me what are the first symptoms of {names[7]} in adults"]
    assert [c.members for c in find_alike(texts).same] == [(7, 400)]
