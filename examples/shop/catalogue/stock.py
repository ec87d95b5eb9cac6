"""The generated stock: which shelves there are, and product number N, always the same for the same N."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from random import Random

from catalogue.art import draw

# All dates are counted back from here, so that the data is the same on any day.
TODAY = date(2026, 1, 31)
ADDED_DAYS_MAX = 1200


@dataclass(frozen=True)
class Shelf:
    """A category, and what its products are made of."""

    slug: str
    name: str
    motto: str
    motif: str
    nouns: tuple[str, ...]
    traits: tuple[str, ...]
    price: tuple[int, int]


SHELVES = (
    Shelf(
        "guitars",
        "Guitars",
        "Light braces, loud tops, for rhythm and for the long solo.",
        "guitar",
        ("Guitar", "Parlour Guitar", "Jazz Guitar", "Travel Guitar", "Tenor Guitar"),
        ("spruce top", "walnut back", "oval hole", "D hole", "bone nut", "zero fret"),
        (190, 2900),
    ),
    Shelf(
        "violins",
        "Violins",
        "From the first lesson to the last encore.",
        "violin",
        ("Violin", "Viola", "Fiddle", "Student Violin"),
        ("oil varnish", "one-piece back", "boxwood pegs", "ebony board", "set up by hand"),
        (160, 2400),
    ),
    Shelf(
        "accordions",
        "Accordions",
        "Reeds, bellows, buttons, and the whole street listening.",
        "accordion",
        ("Accordion", "Concertina", "Bandoneon", "Musette"),
        ("72 bass", "hand-made reeds", "dry tuning", "light frame", "leather straps"),
        (240, 3200),
    ),
    Shelf(
        "clarinets",
        "Clarinets",
        "Grenadilla and silver; warm below, bright above.",
        "clarinet",
        ("Clarinet", "Bass Clarinet", "Oboe", "Soprano Clarinet"),
        ("grenadilla body", "silver keys", "synthetic pads", "two barrels"),
        (180, 2100),
    ),
    Shelf(
        "strings",
        "Strings",
        "Silk and steel, wound slowly.",
        "strings",
        ("Guitar Strings", "Violin Strings", "Bass Strings", "Mandolin Strings"),
        ("silver-plated", "light gauge", "ball end", "loop end", "low tension"),
        (8, 60),
    ),
    Shelf(
        "picks",
        "Picks",
        "Small, and never where you left it.",
        "pick",
        ("Pick", "Pick Set", "Thumb Pick", "Heavy Pick"),
        ("3.5 mm", "polished bevel", "cast by hand", "warm tone", "horn colour"),
        (3, 40),
    ),
    Shelf(
        "records",
        "Records",
        "Pressed thick, played often.",
        "record",
        ("Sessions", "Live Recordings", "Songbook", "Duets", "Suite"),
        ("180 gram", "first pressing", "gatefold", "with booklet", "mono"),
        (12, 70),
    ),
    Shelf(
        "sheet-music",
        "Sheet music",
        "Large notes, good paper, no page turn in the solo.",
        "sheet",
        ("Waltzes", "Études", "Tunes", "Solos", "Method"),
        ("with chords", "for two voices", "intermediate", "spiral bound", "with fingering"),
        (9, 48),
    ),
    Shelf(
        "cases",
        "Cases",
        "For trains, rain, and the stairs of small clubs.",
        "case",
        ("Case", "Gig Bag", "Flight Case", "Soft Case"),
        ("velvet lining", "rain cover", "two straps", "steel catches", "light shell"),
        (35, 420),
    ),
    Shelf(
        "lamps-and-stands",
        "Lamps & stands",
        "Light on the page, and the page in its place.",
        "lamp",
        ("Music Lamp", "Stand Lamp", "Floor Stand", "Desk Lamp"),
        ("warm light", "folds flat", "brass joint", "long cable", "heavy foot"),
        (18, 190),
    ),
)

_PLACES = (
    "Samois", "Montreuil", "Liberchies", "Clignancourt", "Brenta", "Cordoba", "Alfama", "Trastevere", "Cremona",
    "Mittenwald", "Mirecourt", "Castelfidardo", "Belleville", "Ménilmontant", "Lisbon", "Grappa", "Valence", "Tulle",
)  # fmt: skip
_NATURES = (
    "Nuage", "Lune", "Minor", "Swing", "Manoir", "Étoile", "Bolero", "Douce", "Tramontane", "Orient", "Vendôme",
    "Automne", "Bright", "Quiet", "Night", "River", "Morning", "Blue", "Amber", "Northern", "Double", "Little",
)  # fmt: skip
_OPENINGS = (
    "Made for people who play more than they talk about it.",
    "The one our own band takes along.",
    "Simple where it can be, careful where it must be.",
    "Plain to look at; listen, and you will not put it down.",
    "It has been in the window twice and did not stay a week.",
)
_MIDDLES = (
    "It answers at once and forgives a cold hand.",
    "The balance is even from the lowest note to the highest.",
    "Every piece is checked, tuned and played before it leaves the house.",
    "It gets better with the years, if you let it.",
    "The finish is thin, so that nothing stands between you and the sound.",
)
_ENDINGS = (
    "Comes with a letter from the maker.",
    "Parts can be had for at least twenty years.",
    "Bring it by once a year and we look after it.",
    "If it is not yours after a month, send it back.",
    "Packed in paper and wood wool, no plastic.",
)
_VERDICTS = {
    5: ("Exactly what I had hoped for.", "My neighbours asked for the name of it.", "I sold the other two."),
    4: (
        "Very good, and it came quickly.",
        "Nearly perfect; the smell of varnish goes away.",
        "Good for the price.",
    ),
    3: ("Does what it says.", "It took a week to get used to.", "All right for practice."),
    2: ("I had expected more.", "The picture is nicer than the thing.", "Went back, was refunded at once."),
}
REVIEWERS = (
    "Babik",
    "Naguine",
    "Sophie",
    "Hugues",
    "Louis",
    "Coleman",
    "Ida",
    "Rosetta",
    "Emmet",
    "Joséphine",
)


@dataclass(frozen=True)
class Opinion:
    """A generated review."""

    reviewer: str
    stars: int
    text: str
    days_ago: int


def sku(number: int) -> str:
    """MC-00042."""
    return f"MC-{number:05d}"


@dataclass(frozen=True)
class Item:
    """A generated product."""

    number: int
    shelf: Shelf
    name: str
    summary: str
    description: str
    price: Decimal
    stock: int
    popularity: int
    added: date
    picture: str
    opinions: tuple[Opinion, ...]

    @property
    def sku(self) -> str:
        """Its number as printed."""
        return sku(self.number)


def item(number: int) -> Item:
    """Product `number`, counted from 1."""
    random = Random(f"maison-cadence/{number}")
    shelf = SHELVES[(number - 1) % len(SHELVES)]
    low, high = shelf.price
    # Cheap things are more common than dear ones.
    price = Decimal(round(low + (high - low) * random.random() ** 2.2)) - Decimal("0.10")
    traits = random.sample(shelf.traits, 2)
    noun = random.choice(shelf.nouns)
    name = f"{random.choice(_NATURES)} {random.choice(_PLACES)} {noun}"
    middles = random.sample(_MIDDLES, 2)
    return Item(
        number=number,
        shelf=shelf,
        name=f"{name} No. {number}",
        summary=f"{noun}, {traits[0]}, {traits[1]}.",
        description="\n\n".join(
            [
                f"{random.choice(_OPENINGS)} {middles[0]}",
                f"{middles[1]} {random.choice(_ENDINGS)}",
            ]
        ),
        price=price,
        stock=random.choice([0, 1, 2, 3, 5, 8, 13, 21, 34]),
        popularity=int(1000 * random.random() ** 3),
        added=TODAY - timedelta(days=random.randrange(ADDED_DAYS_MAX)),
        picture=draw(shelf.motif, random),
        opinions=tuple(
            _opinion(random, name) for name in random.sample(REVIEWERS, random.choice([0, 0, 1, 2, 4]))
        ),
    )


def _opinion(random: Random, reviewer: str) -> Opinion:
    stars = random.choice([5, 5, 5, 4, 4, 4, 3, 2])
    return Opinion(reviewer, stars, random.choice(_VERDICTS[stars]), random.randrange(1, 400))
