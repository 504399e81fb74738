"""The leaderboard's page as people use it, in Chromium: by mouse and keys, in light and dark, wide and narrow."""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.benchmark.browser import Browser, browser
from tests.benchmark.page_tables import HOSTILE, make_board, spoil
from wellkit.benchmark.page import write_page
from wellkit.benchmark.standings import Table

BOARD = make_board()
# Shown rows of a table, by name.
NAMES = "[...document.querySelectorAll('article')[{0}].querySelectorAll('table.board tbody tr:not([hidden]) th bdi')]"
NAMES += ".map((cell) => cell.textContent)"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(BOARD, tmp_path_factory.mktemp("page") / "board.html", title="A board", made="today")


@pytest.fixture
def page(tab: Browser, file: Path) -> Iterator[Browser]:
    """The board, open; at its end nothing may have been complained about or asked for from elsewhere."""
    tab.look()
    tab.open(file)
    yield tab
    assert tab.complaints == []
    assert {address.partition("#")[0] for address in tab.requested} <= {file.as_uri(), "data:,"}


def names(tab: Browser, table: int = 0) -> list[str]:
    found: list[str] = tab.run(NAMES.format(table))
    return found


def press_head(tab: Browser, label: str, table: int = 0) -> None:
    """Strike Enter on the head of a column."""
    tab.run(
        f"[...document.querySelectorAll('table.board')[{table}].querySelectorAll('thead button')]"
        f".find((button) => button.textContent.replace(/\\u00a0/g, ' ').includes({label!r})).focus()"
    )
    tab.press("Enter")


def table_rows(tab: Browser, box: str) -> list[list[str]]:
    """Open what says "Show as table" in a box, and read it; a toggle is told a moment later."""
    tab.run(f"document.querySelector({box + ' details'!r}).open = true")
    rows: list[list[str]] = tab.run(
        f"new Promise((done) => setTimeout(() => done([...document.querySelectorAll({box + ' .small tbody tr'!r})]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent))), 50))"
    )
    return rows


def choose(tab: Browser, name: str, value: str) -> None:
    tab.run(
        f"(() => {{ const field = document.getElementById('filter-{name}'); field.value = {value!r};"
        f"field.dispatchEvent(new Event({'input' if name == 'text' else 'change'!r}, {{bubbles: true}})) }})()"
    )


def open_cell(tab: Browser, table: int, row: int, kind: str) -> str:
    """Strike Enter on a number; the dialog's text."""
    tab.run(
        f"document.querySelectorAll('article')[{table}].querySelectorAll('table.board tbody tr')[{row}]"
        f".querySelector('td.{kind} .value').focus()"
    )
    tab.press("Enter")
    assert tab.run("document.getElementById('provenance').open")
    text: str = tab.run("document.getElementById('provenance').textContent")
    return text


def test_the_order_is_that_of_the_tables(page: Browser) -> None:
    for number, table in enumerate(BOARD):
        assert names(page, number) == [row.name for row in table.rows]
    ranks = page.run(
        "[...document.querySelectorAll('table.board')[0].querySelectorAll('td.rank')].map((c) => c.textContent)"
    )
    assert ranks[:3] == ["1", "2=", "2="]
    assert ranks[3] == "–no rank: self-reported, and only recomputed rows are ranked"
    assert page.run("document.querySelectorAll('td.rank[title]').length") == 3 * 3 + 2


def test_columns_sort_and_what_is_infinite_or_missing_is_last(page: Browser) -> None:
    given = [row.name for row in BOARD[0].rows]
    headline = {row.name: float(row.headline) for row in BOARD[0].rows}
    rising = sorted(given, key=lambda name: headline[name])
    assert rising[-1] == "unet_classic"
    assert math.isinf(headline["unet_classic"])
    sort = "[...document.querySelectorAll('table.board')[0].querySelectorAll('th[aria-sort]')]"
    sort += ".map((th) => [th.dataset.key, th.ariaSort])"
    press_head(page, "VRMSE")
    assert names(page) == rising
    assert page.run(sort) == [["headline", "ascending"]]
    press_head(page, "VRMSE")
    assert names(page) == [*rising[-2::-1], "unet_classic"]
    assert page.run(sort) == [["headline", "descending"]]
    assert "descending" in page.run("document.getElementById('count').textContent")
    press_head(page, "VRMSE")
    assert names(page) == given
    assert page.run(sort) == []
    for _ in range(2):
        press_head(page, "Times better")
        assert names(page)[-1] == "persistence"
    press_head(page, "Model")
    assert names(page) == sorted(given)


def test_a_published_bound_sorts_behind_the_number_it_names(tab: Browser, file: Path) -> None:
    tab.look()
    tab.open(file, f"#sort={BOARD[1].comparable_id}+ascending+window+13:30")
    shown = names(tab, 1)
    assert [name for name in shown if "Ohana" in name] == [
        "UNetConvNext (Ohana et al. 2024)",
        "FNO (Ohana et al. 2024)",
    ]
    assert shown.index("mean") < shown.index("FNO (Ohana et al. 2024)") < shown.index("unet_classic")
    assert names(tab, 0) == [row.name for row in BOARD[0].rows]


def test_filters_count_aloud_and_keep_their_state_in_the_address(page: Browser, file: Path) -> None:
    total = sum(len(table.rows) for table in BOARD)
    told = "document.getElementById('count').textContent"
    shown = "[...document.querySelectorAll('article')].map((one) => !one.hidden)"
    assert page.run("document.getElementById('count').ariaLive") == "polite"
    assert page.run(told) == f"{total} of {total} rows in 3 of 3 tables"
    choose(page, "protocol", "well-2024")
    assert page.run(shown) == [False, True, False]
    choose(page, "protocol", "")
    choose(page, "dataset", "gray_scott_reaction_diffusion")
    assert page.run(shown) == [False, False, True]
    choose(page, "model", "fno")
    assert names(page, 2) == ["fno"]
    assert page.run(told) == f"1 of {total} rows in 1 of 3 tables"
    legend = "[...document.querySelectorAll('article')[2].querySelectorAll('.legend button:not([hidden])')].length"
    assert page.run(legend) == 1
    choose(page, "dataset", "")
    choose(page, "model", "")
    choose(page, "text", "WRAPPER that")
    assert names(page, 1) == ["FNO (Ohana et al. 2024)"]
    press_head(page, "Model", 1)
    fragment = page.run("location.hash")
    choose(page, "text", "no such thing")
    assert page.run(told) == "No row fits these filters."
    page.open(file, fragment)
    assert page.run("document.getElementById('filter-text').value") == "WRAPPER that"
    assert names(page, 1) == ["FNO (Ohana et al. 2024)"]
    assert page.run("document.querySelector('th[aria-sort]').dataset.key") == "model"
    page.open(file, "#dataset=none&protocol=%00&sort=a&sort=%3Cb%3E+c+d&text=")
    assert page.run(told) == f"{total} of {total} rows in 3 of 3 tables"


def test_a_number_tells_where_it_comes_from(page: Browser) -> None:
    row = BOARD[0].rows[0]
    text = open_cell(page, 0, 0, "score")
    assert page.run("document.activeElement.closest('dialog').id") == "provenance"
    for words in (
        "One-step VRMSE",
        "eps = 1e-07",
        "computed again, from predictions",
        BOARD[0].protocol.definition_sha256,
    ):
        assert words in text
    result = row.results[0]
    hashes = (result.id, result.sha256, result.data.content_sha256, result.data.manifest_sha256)
    for told in (*hashes, result.model.weights_sha256, result.run.created):
        assert told is not None
        assert told in text
    for words in ("width = 32", "2 CPU cores", "1 x H200", "tcool"):
        assert words in text
    assert "/home/someone" not in text
    assert f"{result.one_step.per_field['density']:.4}"[:6] in text
    for other in row.results:
        assert other.id in text
    page.press("Escape")
    assert not page.run("document.getElementById('provenance').open")
    assert page.run("document.activeElement.textContent") == page.run(
        "document.querySelector('td.score .value').textContent"
    )
    open_cell(page, 0, 0, "score")
    page.run("document.querySelector('.close').click()")
    assert page.run("document.activeElement.className") == "value"


def test_published_figures_tell_what_is_wrong_with_them(page: Browser) -> None:
    row = next(n for n, one in enumerate(BOARD[1].rows) if one.kind == "reference")
    text = open_cell(page, 1, row, "score")
    assert "discarded the Fourier blocks' output" in text
    assert "arXiv 2412.00568" in text
    assert "no rank: a published figure" in text
    assert "†" in page.run(f"document.querySelectorAll('article')[1].querySelectorAll('tbody tr')[{row}].textContent")
    assert "discarded the Fourier" in page.run(
        "document.querySelectorAll('article')[1].querySelector('.taints').textContent"
    )


def test_no_interval_is_said(page: Browser) -> None:
    assert "no interval" in page.run("document.querySelectorAll('article')[2].querySelector('td.ratio').textContent")
    assert "Δ −0.12" in page.run("document.querySelectorAll('article')[0].querySelector('td.ratio').textContent")
    assert "fewer than 10 independent trajectories (5)" in open_cell(page, 2, 0, "ratio")


def test_every_number_opens_its_dialog(page: Browser) -> None:
    opened = page.run(
        "(() => { const dialog = document.getElementById('provenance'); let opened = 0;"
        "for (const button of document.querySelectorAll('.value')) { button.click();"
        "for (const box of dialog.querySelectorAll('details')) box.open = true;"
        "const name = button.closest('tr').querySelector('bdi').textContent;"
        "opened += dialog.open && dialog.querySelector('h2').textContent.includes(name);"
        "dialog.close(); } return [opened, document.querySelectorAll('.value').length] })()"
    )
    assert opened[0] == opened[1] > 150


def test_rollouts_are_read_by_keys_and_as_a_table(page: Browser) -> None:
    first = "document.querySelector('.curves')."
    page.run(first + "querySelector('svg.plot').focus()")
    page.press("ArrowRight")
    rows = {row.name: row for row in BOARD[0].rows}
    value = rows["persistence"].results[0].rollout.per_step[1]
    spoken = page.run(first + "querySelector('[role=status]').textContent")
    assert spoken.startswith("Step 2: unet_convnext ")
    assert f"persistence {value:.4g}" in spoken
    page.press("End")
    assert "∞" in page.run(first + "querySelector('.readout').textContent")
    assert page.run(first + "querySelectorAll('svg.plot .level').length") == 1
    assert page.run(first + "querySelectorAll('svg.plot > .line-bold').length") == 1
    looks = "[...new Set([...document.querySelectorAll('.curves')[0].querySelectorAll('svg.plot > .line')]"
    looks += ".map((line) => line.getAttribute('stroke-dasharray')))].length"
    assert page.run(looks) == 6
    lines = first + "querySelectorAll('svg.plot > .line').length"
    assert page.run(lines) == 7
    page.run(first + "querySelector('.legend button').focus()")
    page.press("Enter")
    assert page.run(lines) == 6
    assert page.run(first + "querySelector('.legend button').ariaPressed") == "false"
    cells = table_rows(page, ".curves")[96]
    last = rows["persistence"].results[0].rollout.per_step[96]
    assert cells[0] == "97"
    assert f"{last:.3f}" in [cell[:5] for cell in cells]
    assert "∞" in cells


def test_pictures_show_the_bytes_the_right_way_up(page: Browser) -> None:
    example = BOARD[0].rows[0].results[0].example
    assert example is not None
    nx, ny = example.shape
    shown = page.run(
        "[...document.querySelectorAll('article')[0].querySelectorAll('.pictures canvas')].map((c) => "
        "({width: c.width, height: c.height, name: c.getAttribute('aria-label'),"
        "pixels: [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]}))"
    )
    assert len(shown) == 9
    assert [(one["width"], one["height"]) for one in shown] == [(ny, nx)] * 9  # the longer axis lies flat

    truth, prediction = (base64.b64decode(text) for text in (example.pictures[2].truth, example.pictures[2].prediction))

    def pixel(canvas: dict[str, Any], x: int, y: int) -> tuple[int, ...]:
        at = 4 * ((nx - 1 - x) * ny + y)
        return tuple(canvas["pixels"][at : at + 3])

    by_value: dict[int, set[tuple[int, ...]]] = {}
    for x in range(nx):
        for y in range(ny):
            by_value.setdefault(truth[x * ny + y], set()).add(pixel(shown[6], x, y))
            by_value.setdefault(prediction[x * ny + y], set()).add(pixel(shown[7], x, y))
            red, _, blue = pixel(shown[8], x, y)
            difference = prediction[x * ny + y] - truth[x * ny + y]
            if abs(difference) > 20:
                assert (red > blue) == (difference > 0)
    assert all(len(colours) == 1 for colours in by_value.values())
    luminance = [
        sum(c * w for c, w in zip(next(iter(by_value[v])), (0.2126, 0.7152, 0.0722), strict=True))
        for v in sorted(by_value)
    ]
    assert luminance == sorted(luminance)  # brighter is more
    assert shown[7]["name"] == "prediction of density, trajectory 3, step 40, by unet_convnext"
    text = page.run("document.querySelector('.examples').textContent")
    assert "0.9300" in text
    assert "11.20" in text


def test_spectra_of_the_model_that_is_chosen(page: Browser) -> None:
    box = "document.querySelectorAll('.examples')[0]."
    assert page.run(box + "querySelectorAll('.spectra svg').length") == 3
    page.run(f"(() => {{ const choice = {box}querySelector('select'); choice.value = '3'; choice.onchange?.();"
             "choice.dispatchEvent(new Event('change')) })()")  # fmt: skip
    assert "by tfno" in page.run(box + "querySelectorAll('canvas')[1].getAttribute('aria-label')")
    cells = table_rows(page, ".examples")
    example = BOARD[0].rows[3].results[0].example
    assert example is not None
    assert len(cells) == 3 * len(example.spectra[0].wavenumber)
    assert float(cells[0][3]) == pytest.approx(example.spectra[0].prediction[0], rel=1e-3)


def test_of_many_lines_some_are_drawn_until_somebody_chooses(tab: Browser, tmp_path: Path) -> None:
    result = BOARD[0].rows[1].results[0]
    rows = [
        dataclasses.replace(BOARD[0].rows[1], name=f"m {n}", results=(result,), headline=math.nan) for n in range(30)
    ]
    table = dataclasses.replace(BOARD[0], rows=(*rows, BOARD[0].rows[5]))
    tab.look()
    tab.open(write_page([table], tmp_path / "board.html"))
    pressed = "[...document.querySelectorAll('.legend button')].map((one) => one.ariaPressed === 'true')"
    assert tab.run(pressed) == [True] * 8 + [False] * 22 + [True]
    looks = tab.run(
        "[...document.querySelectorAll('.legend .sample')].map((one) => { const line = one.querySelector('.line');"
        "const mark = one.querySelector('.marker'); return [line.getAttribute('stroke-dasharray'),"
        "mark && mark.tagName, mark && (mark.getAttribute('points') || mark.getAttribute('d'))].join('|') })"
    )
    assert len(set(looks)) == 31  # without their colours
    press_head(tab, "VRMSE")
    assert names(tab) == [row.name for row in table.rows if row.name == "persistence"] + [row.name for row in rows]
    assert tab.complaints == []


@pytest.mark.parametrize("text", HOSTILE)
def test_what_others_wrote_is_shown_as_text(tab: Browser, tmp_path: Path, text: str) -> None:
    target = write_page([spoil(text)], tmp_path / "board.html", title=text, made=text)
    tab.look()
    tab.open(target)
    tab.run(
        "(() => { for (const row of [...document.querySelectorAll('.board tbody tr')].slice(-2))"
        "for (const button of row.querySelectorAll('.value')) { button.click();"
        "for (const box of document.querySelectorAll('details')) box.open = true;"
        "document.getElementById('provenance').close(); } })()"
    )
    assert open_cell(tab, 0, 7, "score").count(text) >= 5
    assert names(tab)[-2:] == [text, text]
    assert tab.run("document.title").strip() == " ".join(text.split(" ")).strip()
    assert tab.run("document.querySelector('h1').textContent") == text
    assert tab.run("document.querySelector('.notes').textContent").count(text) >= 3
    assert tab.run("window.hit") is None
    assert tab.run("document.querySelectorAll('img, a, iframe, [onerror], [onmouseover]').length") == 0
    assert tab.run("document.querySelectorAll('script').length") == 2
    assert tab.complaints == []
    assert set(tab.requested) <= {target.as_uri(), "data:,"}


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_on_any_screen(page: Browser, file: Path, width: int, scheme: str) -> None:
    page.look(width=width, scheme=scheme)
    page.open(file)
    assert page.run("document.documentElement.scrollWidth") == width
    open_cell(page, 0, 0, "score")
    assert page.run(
        "(() => { const d = document.getElementById('provenance'); return d.scrollWidth <= d.clientWidth })()"
    )
    luminance = (
        "((text) => { const c = text.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)"
        ".map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);"
        "return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2] })"
    )
    back = page.run(luminance + "(getComputedStyle(document.body).backgroundColor)")
    assert (back < 0.1) == (scheme == "dark")
    for chosen in ("body", ".sub", ".badge.recomputed", ".badge.self-reported", ".badge.reference", ".value small"):
        text = page.run(luminance + f"(getComputedStyle(document.querySelector({chosen!r})).color)")
        assert (max(text, back) + 0.05) / (min(text, back) + 0.05) >= 4.5, chosen


def test_every_control_has_a_name_and_every_table_its_heads(page: Browser) -> None:
    nameless = (
        "[...document.querySelectorAll('button, select, input, svg[role=img], canvas')].filter((one) => "
        "!(one.getAttribute('aria-label') || one.textContent.trim() || (one.labels && one.labels.length))).length"
    )
    assert page.run(nameless) == 0
    assert page.run("[...document.querySelectorAll('th')].filter((th) => !th.scope).length") == 0
    assert page.run("[...document.querySelectorAll('table')].filter((table) => !table.caption).length") == 0
    assert page.run("[...document.querySelectorAll('[aria-labelledby], [aria-describedby]')].flatMap((one) => "
                    "[one.getAttribute('aria-labelledby'), one.getAttribute('aria-describedby')])"
                    ".filter((id) => id && !document.getElementById(id))") == []  # fmt: skip


def test_a_board_without_rows(tab: Browser, tmp_path: Path) -> None:
    empty = (Table("id", "nothing yet", BOARD[0].protocol, ()),)
    for tables, said in (((), "There are no results on this board."), (empty, "No row fits these filters.")):
        tab.open(write_page(tables, tmp_path / "board.html"))
        assert tab.run("document.getElementById('count').textContent") == said
        assert tab.complaints == []
