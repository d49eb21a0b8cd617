"""ISO 3166: which codes there are, what people write instead, and what lies in what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import pycountry

_MEANT = {"UK": "GB", "EL": "GR"}
"""Codes that people and institutions use and ISO 3166-1 reserves, with the ones it assigned."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A code as ISO 3166 has it (empty where it has none); what to say of it, or what to write instead."""

    code: str = ""
    note: str = ""
    remedy: str = ""


@cache
def read(written: str) -> Reading:
    """`UK` and `EL` are read as what they mean and said so; withdrawn and unknown codes come with a remedy."""
    country = country_of(written)
    meant = _MEANT.get(country, country)
    code = meant + written.removeprefix(country)
    if remedy := _remedy(code, meant):
        return Reading(remedy=remedy)
    return Reading(code, f"{written} is read as {code}: ISO 3166 has no {country}" if code != written else "")


def exists(code: str) -> bool:
    """Whether ISO 3166 has it, or has it under another code."""
    return bool(read(code).code)


@cache
def is_code(written: str) -> bool:
    """Whether ISO 3166 has it just as it is written, in capitals."""
    return written != "" and written == written.upper() == read(written).code


def named(written: str) -> str:
    """The code that somebody meant by a country's name, by alpha-3, or in small letters; empty for none."""
    if exists(written.upper()):
        return read(written.upper()).code
    try:
        return str(pycountry.countries.lookup(written).alpha_2)
    except LookupError:
        return ""


def country_of(subdivision: str) -> str:
    """The country of an ISO 3166-2 code: `DE` for `DE-HE`."""
    return subdivision.partition("-")[0]


def is_subdivision(code: str) -> bool:
    return "-" in code


@cache
def countries() -> frozenset[str]:
    """Every code of ISO 3166-1 alpha-2."""
    return frozenset(one.alpha_2 for one in pycountry.countries)


def within(codes: Iterable[str]) -> frozenset[str]:
    """These subdivisions and all that lie in them, as `FR-75C` does in `FR-IDF`: a narrower place is in the wider."""
    return frozenset(part for code in codes for part in (code, *_parts(code)))


def touching(codes: Iterable[str]) -> frozenset[str]:
    """These subdivisions, all in them, and all that they are in: who knows no more may be in the part that is meant."""
    named = tuple(codes)
    return within(named) | {whole for code in named for whole in _wholes(code)}


def outermost(codes: Iterable[str]) -> frozenset[str]:
    """Without those that lie in another one of them, and without wholes that are there for a part of them alone."""
    found = frozenset(codes)
    entire = {code for code in found if found.issuperset(_parts(code)) or found.isdisjoint(_parts(code))}
    return frozenset(code for code in entire if not entire.intersection((*_wholes(code), *_country(code))))


def _country(code: str) -> tuple[str, ...]:
    return (country_of(code),) if is_subdivision(code) else ()


@cache
def _parts(code: str) -> frozenset[str]:
    inner = _inner().get(code, ())
    return frozenset(part for one in inner for part in (one, *_parts(one)))


@cache
def _wholes(code: str) -> tuple[str, ...]:
    found = pycountry.subdivisions.get(code=code)
    outer = found.parent_code if found else None
    return (outer, *_wholes(outer)) if outer else ()


@cache
def _inner() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for one in pycountry.subdivisions:
        if one.parent_code:
            found[one.parent_code] = (*found.get(one.parent_code, ()), one.code)
    return found


def _remedy(code: str, country: str) -> str:
    """What to write instead of a code that ISO 3166 does not have; empty for one that it has."""
    if pycountry.countries.get(alpha_2=country) is None:
        return _no_country(country)
    if code == country or pycountry.subdivisions.get(code=code) is not None:
        return ""
    known = sorted(part.code for part in pycountry.subdivisions.get(country_code=country) or ())
    return f"ISO 3166-2 has no {code}: write {country}" + (f" or a part of it such as {known[0]}" if known else "")


def _no_country(country: str) -> str:
    gone = pycountry.historic_countries.get(alpha_2=country)
    if gone is not None:
        when = f" in {gone.withdrawal_date[:4]}" if getattr(gone, "withdrawal_date", "") else ""
        return f"ISO 3166-1 withdrew {country} ({gone.name}){when}: write the code of what stands there today"
    return f"ISO 3166-1 has no country {country}: write the alpha-2 code of each country, such as DE"
