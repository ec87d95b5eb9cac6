"""Draws a picture for each product: a few flat shapes, made from the product's own random numbers.

Everything is text; no imaging library is needed. A motif is a function of (random, ink, accent) that
returns SVG shapes inside a square of 400.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

Motif = Callable[[Random, str, str], str]

# Ground, ink, accent: each trio keeps its contrast when placed on the shop's paper.
PALETTES = [
    ("#f2dfc2", "#3b2a20", "#b8452b"),
    ("#dfe6da", "#1f3b34", "#d98f3d"),
    ("#e9d9d3", "#4a2130", "#7a8c5a"),
    ("#d9e2ea", "#1d3149", "#c7583e"),
    ("#efe6c8", "#463a12", "#2f6b62"),
    ("#e6dcea", "#35264a", "#cf8a3a"),
    ("#f3d8c7", "#54281a", "#33677a"),
    ("#dde4e1", "#26302d", "#a63d40"),
]


def guitar(random: Random, ink: str, accent: str) -> str:
    """A body of two bouts, a sound hole, a neck."""
    lower, upper = random.randint(88, 104), random.randint(64, 80)
    tilt = random.randint(-32, 32)
    frets = "".join(f'<path d="M190 {y}h20"/>' for y in range(60, 140, random.choice([12, 16])))
    hole = random.choice(
        ['<circle cx="200" cy="222" r="{r}"/>', '<ellipse cx="200" cy="222" rx="{r}" ry="16"/>']
    )
    return (
        f'<g transform="rotate({tilt} 200 220)"><g fill="{accent}"><circle cx="200" cy="276" r="{lower}"/>'
        f'<circle cx="200" cy="190" r="{upper}"/></g><g fill="{ink}">{hole.format(r=random.randint(22, 32))}'
        f'<rect x="188" y="36" width="24" height="160" rx="3"/><rect x="180" y="14" width="40" height="34" rx="6"/>'
        f'<rect x="164" y="292" width="72" height="12" rx="5"/></g>'
        f'<g stroke="{accent}" stroke-width="2">{frets}</g></g>'
    )


def violin(random: Random, ink: str, accent: str) -> str:
    """A waisted body with two f-holes and a bow beside it."""
    tilt, hips = random.randint(-24, 24), random.randint(54, 66)
    half = (
        f"M199 132h1c52 0 62 56 34 82c-12 14 {hips - 34} 36 {hips - 34} 92c0 40-{hips // 2} 44-{hips} 44h-1z"
    )
    return (
        f'<g transform="rotate({tilt} 200 210)"><g fill="{accent}"><path d="{half}"/>'
        f'<path d="{half}" transform="matrix(-1 0 0 1 400 0)"/></g><g fill="{ink}">'
        '<rect x="191" y="30" width="18" height="190" rx="6"/><circle cx="200" cy="30" r="15"/>'
        f'<path d="M186 226h28l-8 100h-12z"/></g><g fill="none" stroke="{ink}" stroke-width="5" '
        'stroke-linecap="round"><path d="M166 240c-16 14 8 30-8 48"/><path d="M234 240c16 14-8 30 8 48"/></g></g>'
        f'<path d="M{random.randint(310, 338)} 60L{random.randint(300, 344)} 350" stroke="{ink}" stroke-width="5"/>'
    )


def accordion(random: Random, ink: str, accent: str) -> str:
    """Two cases and the bellows between them."""
    folds, width = random.randint(5, 9), 120
    step = width / folds
    bellows = "".join(
        f'<path d="M{140 + i * step:.0f} {118 + 10 * (i % 2)}v{170 - 20 * (i % 2)}"/>'
        for i in range(folds + 1)
    )
    keys = "".join(f'<rect x="82" y="{y}" width="30" height="9" rx="2"/>' for y in range(122, 276, 17))
    buttons = "".join(
        f'<circle cx="{x}" cy="{y}" r="5"/>'
        for x in (286, 304, 322)
        for y in range(128, 284, random.choice([17, 22]))
    )
    return (
        f'<g transform="rotate({random.randint(-14, 14)} 200 200)"><rect x="140" y="120" width="120" height="166" '
        f'fill="{accent}"/><g stroke="{ink}" stroke-width="5">{bellows}</g><g fill="{ink}">'
        f'<rect x="70" y="100" width="72" height="206" rx="14"/><rect x="260" y="100" width="84" height="206" rx="14"/>'
        f'</g><g fill="#fff8ea">{keys}{buttons}</g></g>'
    )


def record(random: Random, ink: str, accent: str) -> str:
    """A disc half out of its sleeve."""
    out = random.randint(40, 100)
    grooves = "".join(
        f'<circle cx="{200 + out}" cy="200" r="{r}"/>' for r in range(60, 118, random.choice([9, 13]))
    )
    sleeve = random.choice(
        [
            f'<path d="M90 290L290 110" stroke="{ink}" stroke-width="26"/>',
            f'<circle cx="170" cy="220" r="56" fill="{ink}"/>',
            "".join(
                f'<rect x="{x}" y="110" width="12" height="180" fill="{ink}"/>' for x in range(96, 270, 36)
            ),
            f'<path d="M70 290a110 110 0 0 1 220 0z" fill="{ink}"/>',
        ]
    )
    return (
        f'<circle cx="{200 + out}" cy="200" r="122" fill="{ink}"/>'
        f'<g fill="none" stroke="#fff" stroke-opacity=".14" stroke-width="2">{grooves}</g>'
        f'<circle cx="{200 + out}" cy="200" r="38" fill="#fff8ea"/>'
        f'<clipPath id="s"><rect x="60" y="80" width="240" height="240" rx="4"/></clipPath>'
        f'<g clip-path="url(#s)"><rect x="60" y="80" width="240" height="240" fill="{accent}"/>{sleeve}</g>'
    )


def strings(random: Random, ink: str, accent: str) -> str:
    """Coils of wire."""
    shapes = []
    for index in range(random.randint(3, 5)):
        x, y, radius = random.randint(120, 280), random.randint(130, 270), random.randint(60, 110)
        colour = (ink, accent)[index % 2]
        shapes.append(
            f'<g fill="none" stroke="{colour}" stroke-width="4"><circle cx="{x}" cy="{y}" r="{radius}"/>'
            f'<circle cx="{x}" cy="{y}" r="{radius - 9}" stroke-dasharray="{radius * 4} 40"/></g>'
        )
    return "".join(shapes)


def pick(random: Random, ink: str, accent: str) -> str:
    """Three plectrums, thrown."""
    shapes = []
    for colour, x in ((ink, 130), (accent, 265), ("#fff8ea", 195)):
        turn, y, size = random.randint(-70, 70), random.randint(150, 250), random.randint(80, 110) / 100
        shapes.append(
            f'<path fill="{colour}" transform="translate({x} {y}) rotate({turn}) scale({size})" '
            'd="M-70-60c30-26 110-26 140 0c16 14-34 120-70 132c-36-12-86-118-70-132z"/>'
        )
    return "".join(shapes)


def clarinet(random: Random, ink: str, accent: str) -> str:
    """A tube with keys and a bell."""
    keys = "".join(
        f'<circle cx="200" cy="{y}" r="{random.randint(7, 11)}"/>'
        for y in range(120, 300, random.choice([24, 30]))
    )
    return (
        f'<g transform="rotate({random.randint(20, 60)} 200 200)"><rect x="184" y="40" width="32" height="290" rx="8" '
        f'fill="{ink}"/><path fill="{ink}" d="M186 16h28v60h-28zM184 320h32l30 56h-92z"/>'
        f'<g fill="{accent}">{keys}<rect x="178" y="86" width="44" height="10"/><rect x="178" y="312" width="44" '
        f'height="10"/></g></g>'
    )


def sheet(random: Random, ink: str, accent: str) -> str:
    """A page of music."""
    lines, notes = [], []
    for staff in range(3):
        top = 120 + staff * 76
        lines += [f'<path d="M110 {top + i * 9}h180"/>' for i in range(5)]
        for x in range(134, 285, random.choice([26, 32])):
            y = top + random.randint(0, 8) * 4.5
            notes.append(
                f'<ellipse cx="{x}" cy="{y}" rx="8" ry="6" transform="rotate(-18 {x} {y})"/>'
                f'<rect x="{x + 5}" y="{y - 32}" width="3" height="32"/>'
            )
    return (
        f'<g transform="rotate({random.randint(-7, 7)} 200 200)"><rect x="92" y="62" width="216" height="290" '
        f'fill="{accent}" transform="translate(12 12)"/><rect x="92" y="62" width="216" height="290" fill="#fffaf0"/>'
        f'<g stroke="{ink}" stroke-opacity=".45">{"".join(lines)}</g><g fill="{ink}">{"".join(notes)}</g></g>'
    )


def case(random: Random, ink: str, accent: str) -> str:
    """A case with a handle and catches."""
    height = random.randint(120, 160)
    top = 220 - height // 2
    catches = "".join(
        f'<rect x="{x}" y="{top + height // 2 - 14}" width="22" height="28" rx="3"/>' for x in (110, 268)
    )
    return (
        f'<path fill="none" stroke="{ink}" stroke-width="14" d="M160 {top}v-30q0-16 16-16h48q16 0 16 16v30"/>'
        f'<rect x="60" y="{top}" width="280" height="{height}" rx="{random.choice([14, 40, 60])}" fill="{accent}"/>'
        f'<rect x="60" y="{top + height // 2 - 3}" width="280" height="6" fill="{ink}"/><g fill="{ink}">{catches}</g>'
    )


def lamp(random: Random, ink: str, accent: str) -> str:
    """A lamp for the music stand, and its light."""
    x = random.randint(150, 250)
    shade = random.choice(
        [
            f"M{x - 60} 170l30-80h60l30 80z",
            f"M{x - 64} 170a64 64 0 0 1 128 0z",
            f"M{x - 40} 170v-70h80v70z",
        ]
    )
    return (
        f'<path d="M{x - 60} 170h120l{random.randint(50, 90)} 170h-300z" fill="#fffaf0" fill-opacity=".65"/>'
        f'<g fill="{ink}"><rect x="{x - 5}" y="160" width="10" height="180"/><rect x="{x - 62}" y="336" width="124" '
        f'height="14" rx="7"/></g><path d="{shade}" fill="{accent}"/>'
    )


MOTIFS: dict[str, Motif] = {
    "accordion": accordion,
    "case": case,
    "clarinet": clarinet,
    "guitar": guitar,
    "lamp": lamp,
    "pick": pick,
    "record": record,
    "sheet": sheet,
    "strings": strings,
    "violin": violin,
}


def draw(motif: str, random: Random) -> str:
    """A whole SVG document."""
    ground, ink, accent = random.choice(PALETTES)
    sun = f'<circle cx="{random.randint(40, 360)}" cy="{random.randint(30, 370)}" r="{random.randint(50, 130)}" '
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 400">'
        f'<rect width="400" height="400" fill="{ground}"/>{sun}fill="#fff" fill-opacity=".35"/>'
        f"{MOTIFS[motif](random, ink, accent)}</svg>\n"
    )
