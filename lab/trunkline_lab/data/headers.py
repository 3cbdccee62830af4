"""Concept names out of table headers: the one place that says which headers name a kind of thing.

The rule of `normalise_header`, in this order:

1. Lower case. Footnotes (`[2]`) and plural endings in brackets (`driver(s)`) go; an apostrophe inside a word goes
   (`men's` is `mens`); whatever else is no letter, digit or blank becomes a blank.
2. A counter at the end goes (`team 1` is `team`), and so do the letters of a navigation box (`v t e`).
3. What is left is no concept if it is empty, shorter than three characters, longer than four words, or has a digit.
4. It is noise if it is one of `NOISE_HEADERS`, has one of `NOISE_WORDS`, or begins with `list of`.
5. With `strict` it is also noise if it is one of `MEASURE_HEADERS` or has one of `MEASURE_WORDS`.

Noise is kept small on purpose: a header is on a list only where its cells do not say what kind of thing they are
(`rank`, `points`, `home`, `lost`). Narrow and odd headers (`vacator`, `ihsaa class`) stay.
"""

from __future__ import annotations

import re


def _phrases(listed: str) -> frozenset[str]:
    return frozenset(" ".join(phrase.split()) for phrase in listed.split(",") if phrase.strip())


# Headers that say what a cell is for in its table, not what kind of thing it names.
NOISE_HEADERS = _phrases("""
rank, points, point, year, years, date, dates, notes, note, result, results, score, scores, no, number, nr, total,
name, names, title, titles, description, descriptions, details, information, info, comments, comment, remarks, remark,
summary, significance, short description, type, types, category, status, other, others, loss, win, wins, losses, winner,
winners, loser, gold, silver, bronze, first, third, home, against, from, to, via, between, and, for, of, at, in, on,
record, report, round, time, times, pos, position, place, season, week, day, month, age, height, weight, attendance,
points for, ref, refs, reference, references, source, sources, notable as, reason, reasons, meaning, etymology, cause,
fate, outcome, value, values, data, fact, facts, feature, features, example, examples, item, items, list, link, links,
text, page, pages, save, saves, decision, margin, final, finals, group, stage, leg, legs, match, matches, game, games,
set, sets, name of place, name on the register, runner up, runners up, moving from, moving to, court note, nat, conf,
visitor, other information, first place, fastest lap, pole position, issue title, appointed by, drafted by,
seasons and teams, years and teams, teams and years
""")

# A header with one of these words says how cells relate to their row.
NOISE_WORDS = _phrases("""
opponent, opponents, etc, away, second, third, fourth, fifth, under, represented, inducted
""")

# Headers of measures, of outcomes, and of columns that are one answer of several.
MEASURE_HEADERS = _phrases("""
lost, won, win loss, drawn, draw, draws, played, overall, pick, picks, grid, laps, lap, lane, heat, start, starts,
finish, qual, qualifying, react, extra, part, parts, long, top, lead, to par, crowd, time retired, regular season,
playoffs, playoff, open cup, fa cup, league cup, superlative, combined, manner, manner of departure, reason for change,
reason for vacancy, replaced by, eliminated by, eliminated, returning, mens, womens, index, nominated, completed,
released, launched, joined, built, founded, established, elected, poll, attribute, reverse, content, earnings, money,
winnings, goals, goals for, races, runs, runs allowed, podiums, poles, tries, assists, wickets, innings, minutes, sacks,
yards, touchdowns, apps, average, ends, ties, team a, team b, block a, block b, group a, group b, yes, none, totals
""")

# A header with one of these words holds a count, a rank or a share.
MEASURE_WORDS = _phrases("""
points, pts, rank, ranks, ranking, rankings, score, scores, total, totals, no, percentage, percent, pct, avg, average,
viewers, viewership, votes, bonus, against, wins, losses, apps, runs, goals, attempts, yards
""")

_FOOTNOTE = re.compile(r"\[[^\]]*\]")
_PLURAL = re.compile(r"\((?:e?s|ies)\)")
_APOSTROPHE = re.compile(r"(?<=\w)['’](?=\w)")
_NOT_WORD = re.compile(r"[^\w ]|_")
_MAX_WORDS = 4
_MIN_CHARACTERS = 3


def normalise_header(header: str, *, strict: bool = False) -> str:
    """The concept's name that a table header stands for, or nothing if the header is noise.

    Args:
        header: The header as it stands in the table.
        strict: Whether headers of measures are noise, too (point 5 of the rule at the top of this module).

    Returns:
        Lower-case words with single blanks between them, without digits.
    """
    plain = _PLURAL.sub("", _FOOTNOTE.sub(" ", header.lower()))
    words = _NOT_WORD.sub(" ", _APOSTROPHE.sub("", plain)).split()
    if words[-3:] == ["v", "t", "e"]:  # the view-talk-edit links of a navigation box
        words = words[:-3]
    if len(words) > 1 and words[-1].isdigit():
        words.pop()
    joined = " ".join(words)
    if not 1 <= len(words) <= _MAX_WORDS or len(joined) < _MIN_CHARACTERS or any(c.isdigit() for c in joined):
        return ""
    noise = joined in NOISE_HEADERS or not NOISE_WORDS.isdisjoint(words) or words[:2] == ["list", "of"]
    if strict:
        noise = noise or joined in MEASURE_HEADERS or not MEASURE_WORDS.isdisjoint(words)
    return "" if noise else joined
