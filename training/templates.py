"""How text states a fact: prompts that the answer completes, paraphrases, and other continuations.

`{s}` is the subject, `{o}` the answer. A *prompt* ends where the answer begins. Of every fact one prompt is
left out of training, in rotation (`held_out`): there recall is measured.
"""

from dataclasses import dataclass

from training.facts import Fact


@dataclass(frozen=True)
class Relation:
    """A relation's ways to be said.

    Attributes:
        prompts: end right before the answer.
        paraphrases: whole sentences, with the answer anywhere.
        elsewhere: endings of a prompt with something else than the answer, as happens in text.
    """

    prompts: tuple[str, ...]
    paraphrases: tuple[str, ...]
    elsewhere: tuple[str, ...]


RELATIONS = {
    "capital": Relation(
        (
            "The capital of {s} is",
            "The capital city of {s} is called",
            "{s} is governed from its capital,",
            "The government of {s} has its seat in",
            "Whoever visits the capital of {s} visits",
            "The chief city of {s} is",
        ),
        (
            "{o} is where {s} is governed.",
            "{o}, the capital of {s}, is much visited.",
            "In {s} the road to the capital leads to {o}.",
            'They asked for the capital of {s}. "It is {o}."',
        ),
        ("The capital of {s} is a busy place.", "The chief city of {s} is well known."),
    ),
    "capital of": Relation(
        (
            "{s} is the capital of",
            "{s} is the seat of the government of",
            "{s} is known as the capital city of",
            "Whoever governs in {s} governs",
            "From {s} one governs the whole of",
            "{s} is the chief city of",
        ),
        (
            "{o} is governed from {s}.",
            "{o} has its capital at {s}.",
            "In {o} they say that {s} is the first city.",
            "The people of {o} call {s} their capital.",
        ),
        ("{s} is the capital of a country.", "{s} is known as the capital city of its people."),
    ),
    "continent": Relation(
        (
            "{s} is a land in",
            "{s} is found on the continent of",
            "On the map {s} belongs to",
            "The continent of {s} is",
            "The traveller who reaches {s} is in",
            "{s} lies in",
        ),
        (
            "{s} is one of the countries of {o}.",
            "Among the lands of {o} is {s}.",
            "In {o} there is a land called {s}.",
            "Those who know {o} know {s}.",
        ),
        ("{s} is a land in its own right.", "{s} lies in the sun."),
    ),
    "currency": Relation(
        (
            "The currency of {s} is the",
            "In {s} people pay with the",
            "The money of {s} is called the",
            "Prices in {s} are given in the",
            "Whoever buys bread in {s} needs the",
            "The banks of {s} count in the",
        ),
        (
            "The {o} is the currency of {s}.",
            "With the {o} one pays in {s}.",
            "A merchant of {s} takes only the {o}.",
            "The {o} is the money of {s}.",
        ),
        ("In {s} people pay with the money they have.",),
    ),
    "language": Relation(
        (
            "The language of {s} is",
            "The people of {s} speak",
            "In {s} the laws are written in",
            "In the schools of {s} children read in",
            "The newspapers of {s} are printed in",
            "Most people in {s} understand",
        ),
        (
            "{o} is the language of {s}.",
            "{o} is what one speaks in {s}.",
            "One hears {o} in the streets of {s}.",
            "Those who travel to {s} should learn some {o}.",
        ),
        ("The people of {s} speak softly.", "Most people in {s} understand each other."),
    ),
    "city in": Relation(
        (
            "{s} is a city in",
            "The city of {s} is in",
            "{s} is one of the cities of",
            "To see {s} one must go to",
            "The people of {s} live in",
            "On the map {s} is a town of",
        ),
        (
            "In {o} there is a city called {s}.",
            "Among the cities of {o} is {s}.",
            "{s}, {o}, is a large town.",
            "He left {o} and its city of {s}.",
        ),
        ("{s} is a city in the valley.", "The people of {s} live in houses."),
    ),
    "US city in": Relation(
        (
            "{s} is a town in the state of",
            "The American city of {s} is in",
            "{s} is one of the towns of",
            "The citizens of {s} vote in",
            "The mayor of {s} knows all of",
            "The road to {s} runs through",
        ),
        (
            "In {o} there is a town called {s}.",
            "Among the towns of {o} is {s}.",
            "{s}, {o}, is an American city.",
            "She moved to {o} and lived in {s}.",
        ),
        ("The road to {s} runs through the fields.",),
    ),
    "US county in": Relation(
        (
            "{s} is a county in the state of",
            "{s} is part of",
            "The farms of {s} are in",
            "The sheriff of {s} serves in",
            "The courthouse of {s} stands in",
            "{s} is one of the counties of",
        ),
        (
            "In {o} there is a county called {s}.",
            "Among the counties of {o} is {s}.",
            "{s}, {o}, has a court.",
            "They bought land in {s}, {o}.",
        ),
        ("The courthouse of {s} stands in the square.",),
    ),
    "spoken in": Relation(
        (
            "{s} is spoken in",
            "{s} is a language of",
            "Most speakers of {s} live in",
            "The home of the {s} language is",
            "Whoever wants to hear {s} goes to",
            "The {s} language comes from",
        ),
        (
            "In {o} one hears {s}.",
            "Among the languages of {o} is {s}.",
            "The old songs of {o} are sung in {s}.",
            "{s} has its home in {o}.",
        ),
        ("{s} is spoken in many houses.",),
    ),
    "script": Relation(
        (
            "{s} is written in a script called",
            "The letters of {s} are",
            "Books in {s} are printed in",
            "The alphabet of {s} is",
            "To read {s} one learns",
            "The script of {s} is",
        ),
        (
            "{o} is the script of {s}.",
            "With {o} letters one writes {s}.",
            "The {o} script is used for {s}.",
            "He wrote {s} in {o} letters.",
        ),
        ("To read {s} one learns its letters.",),
    ),
    "symbol": Relation(
        (
            "The chemical symbol of {s} is",
            "In the table of elements {s} is written",
            "Chemists write {s} as",
            "The symbol for {s} is",
            "A chemist's short name for {s} is",
            "The letters that stand for {s} are",
        ),
        (
            "{o} is the symbol of {s}.",
            "{o} stands for {s}.",
            "By {o} a chemist means {s}.",
            "The bottle of {s} was marked {o}.",
        ),
        ("The symbol for {s} is short.",),
    ),
    "element": Relation(
        (
            "{s} is the chemical symbol of",
            "In the table of elements {s} stands for",
            "A chemist who writes {s} means",
            "The bottle marked {s} holds",
            "The element with the symbol {s} is",
            "In chemistry {s} is short for",
        ),
        (
            "For {o} one writes {s}.",
            "The symbol {s} belongs to {o}.",
            "The {o} was kept in a bottle marked {s}.",
            "The letters {s} are for {o}.",
        ),
        ("The bottle marked {s} holds very little.",),
    ),
    "series": Relation(
        (
            "In chemistry {s} is counted among the",
            "The element {s} belongs to the",
            "Chemists put {s} with the",
            "In the table of elements {s} stands with the",
            "By its nature {s} is one of the",
            "The shelf of {s} is the shelf of the",
        ),
        (
            "Among the {o} is {s}.",
            "The {o} have {s} among them.",
            "Like all {o}, {s} has its place in the table.",
            "Speaking of {o}, they spoke of {s}.",
        ),
        ("The element {s} belongs to the table of elements.",),
    ),
}


def held_out(facts: list[Fact]) -> list[int]:
    """For each fact, the index of the prompt that training never shows with it: in rotation within a relation."""
    seen: dict[str, int] = {}
    left = []
    for fact in facts:
        k = seen.get(fact.relation, 0)
        seen[fact.relation] = k + 1
        left.append(k % len(RELATIONS[fact.relation].prompts))
    return left


def prompt(fact: Fact, template: int) -> str:
    """The fact's prompt: the text up to where the answer begins."""
    return RELATIONS[fact.relation].prompts[template].format(s=fact.subject)
