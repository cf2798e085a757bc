"""Short facts of everyday knowledge, of our own: each a sentence to complete, with four answers of a kind."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from luthier.probes.suites import ChoiceItem

OPTIONS = 4
TABLES: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "capitals": (
        "The capital of {} is",
        (
            ("France", "Paris"), ("Germany", "Berlin"), ("Italy", "Rome"), ("Spain", "Madrid"),
            ("Portugal", "Lisbon"), ("Greece", "Athens"), ("Austria", "Vienna"), ("Poland", "Warsaw"),
            ("Hungary", "Budapest"), ("Norway", "Oslo"), ("Sweden", "Stockholm"), ("Finland", "Helsinki"),
            ("Denmark", "Copenhagen"), ("Ireland", "Dublin"), ("England", "London"), ("Russia", "Moscow"),
            ("Japan", "Tokyo"), ("China", "Beijing"), ("South Korea", "Seoul"), ("Thailand", "Bangkok"),
            ("Egypt", "Cairo"), ("Kenya", "Nairobi"), ("Iran", "Tehran"), ("Iraq", "Baghdad"),
            ("Cuba", "Havana"), ("Peru", "Lima"), ("Chile", "Santiago"), ("Argentina", "Buenos Aires"),
            ("Canada", "Ottawa"), ("Mexico", "Mexico City"), ("Ukraine", "Kyiv"), ("Belgium", "Brussels"),
        ),
    ),
    "languages": (
        "The main language that people speak in {} is",
        (
            ("France", "French"), ("Germany", "German"), ("Italy", "Italian"), ("Mexico", "Spanish"),
            ("Brazil", "Portuguese"), ("Greece", "Greek"), ("Poland", "Polish"), ("Russia", "Russian"),
            ("Japan", "Japanese"), ("China", "Chinese"), ("Egypt", "Arabic"), ("Turkey", "Turkish"),
            ("Sweden", "Swedish"), ("Finland", "Finnish"), ("Hungary", "Hungarian"), ("Korea", "Korean"),
            ("Denmark", "Danish"), ("Norway", "Norwegian"), ("Australia", "English"), ("Israel", "Hebrew"),
        ),
    ),
    "chemical symbols": (
        "In chemistry, the symbol of {} is",
        (
            ("hydrogen", "H"), ("oxygen", "O"), ("carbon", "C"), ("nitrogen", "N"), ("iron", "Fe"),
            ("gold", "Au"), ("silver", "Ag"), ("copper", "Cu"), ("sodium", "Na"), ("helium", "He"),
            ("calcium", "Ca"), ("lead", "Pb"), ("zinc", "Zn"), ("chlorine", "Cl"), ("sulfur", "S"),
            ("aluminium", "Al"),
        ),
    ),
    "continents": (
        "{} is a country in",
        (
            ("Germany", "Europe"), ("Kenya", "Africa"), ("Japan", "Asia"), ("Brazil", "South America"),
            ("Canada", "North America"), ("Nigeria", "Africa"), ("Vietnam", "Asia"), ("Poland", "Europe"),
            ("Peru", "South America"), ("Ethiopia", "Africa"), ("Norway", "Europe"), ("Nepal", "Asia"),
        ),
    ),
    "authors": (
        "The author of {} is",
        (
            ("Hamlet", "William Shakespeare"), ("Oliver Twist", "Charles Dickens"),
            ("Pride and Prejudice", "Jane Austen"), ("War and Peace", "Leo Tolstoy"),
            ("The Odyssey", "Homer"), ("1984", "George Orwell"), ("Frankenstein", "Mary Shelley"),
            ("The Divine Comedy", "Dante Alighieri"), ("Faust", "Johann Wolfgang von Goethe"),
            ("Don Quixote", "Miguel de Cervantes"), ("The Hobbit", "J. R. R. Tolkien"),
            ("The Metamorphosis", "Franz Kafka"), ("Moby-Dick", "Herman Melville"),
            ("The Old Man and the Sea", "Ernest Hemingway"), ("Dracula", "Bram Stoker"),
            ("Crime and Punishment", "Fyodor Dostoevsky"),
        ),
    ),
    "animals": (
        "The young of a {} is called a",
        (
            ("dog", "puppy"), ("cat", "kitten"), ("cow", "calf"), ("horse", "foal"), ("sheep", "lamb"),
            ("goat", "kid"), ("pig", "piglet"), ("duck", "duckling"), ("swan", "cygnet"),
            ("frog", "tadpole"), ("bear", "cub"), ("hen", "chick"),
        ),
    ),
    "currencies": (
        "The currency of {} is the",
        (
            ("Japan", "yen"), ("India", "rupee"), ("China", "yuan"), ("Russia", "ruble"),
            ("the United Kingdom", "pound"), ("the United States", "dollar"), ("Mexico", "peso"),
            ("Germany", "euro"), ("Switzerland", "franc"), ("Sweden", "krona"), ("Poland", "zloty"),
            ("South Korea", "won"),
        ),
    ),
    "what things do": (
        "A person who {} is called a",
        (
            ("bakes bread", "baker"), ("teaches at a school", "teacher"), ("repairs teeth", "dentist"),
            ("flies a plane", "pilot"), ("catches fish", "fisherman"), ("writes books", "writer"),
            ("paints pictures", "painter"), ("cuts hair", "barber"), ("designs buildings", "architect"),
            ("plays the piano", "pianist"), ("treats sick animals", "veterinarian"),
            ("sells meat", "butcher"),
        ),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Fact(ChoiceItem):
    """A sentence without its end; `options` are ends of a kind."""

    @property
    def text(self) -> str:
        """The sentence as it stands."""
        return self.question


def facts() -> list[Fact]:
    """All facts. The three wrong answers are others of the same table, drawn by the hash of the fact."""
    return [
        _fact(table, template, subject, answer, rows)
        for table, (template, rows) in TABLES.items()
        for subject, answer in rows
    ]


def _fact(table: str, template: str, subject: str, answer: str, rows: tuple[tuple[str, str], ...]) -> Fact:
    def order(text: str) -> bytes:
        return hashlib.sha256(f"{table}/{subject}/{text}".encode()).digest()

    others = sorted({other for _, other in rows} - {answer}, key=order)
    options = tuple(sorted([answer, *others[: OPTIONS - 1]], key=lambda text: order(text)[::-1]))
    return Fact(table, "own facts", template.format(subject), options, options.index(answer))
