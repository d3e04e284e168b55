"""The HTML report: its structure, what it says, and how it behaves in a real browser."""

from __future__ import annotations

import base64
import io
import json
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from test_report import TWO_TARGETS, frame, row

from toolkit.cli import main
from toolkit.data.datasets import load_dataset
from toolkit.report import gap_table
from toolkit.report.html import write_html
from toolkit.report.html_curves import SYMBOLS, curve_panels
from toolkit.report.html_samples import sample_verdicts, verdict_reason
from toolkit.report.styles import LOOKS, OTHER_LOOKS
from toolkit.report.tables import margin_gaps
from toolkit.runs.provenance import read_provenance
from toolkit.runs.sweep.run import run_sweep
from toolkit.runs.sweep.spec import parse_spec

pytest.importorskip("plotly", reason="the HTML report needs the extra html")
VOID = {"meta", "link", "input", "br", "img"}
SPEC = {
    "name": "tiny & small", "samples": [0, 3], "eps": [0.02, 0.08], "domain": [0, 1], "rungs": ["dual", "lp", "pgd"],
    "networks": [{"source": "zoo:digits-standard", "dataset": "digits"}],
}  # fmt: skip


class Page(HTMLParser):
    """Elements of a page with attributes, the tags around them and their text; refuses tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[dict[str, Any]] = []
        self.elements: list[dict[str, Any]] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {[element['tag'] for element in self.open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        parents = [element["tag"] for element in self.open]
        element = {"tag": tag, "attrs": dict(attrs), "parents": parents, "within": list(self.open), "text": ""}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element["text"] += data

    def all(self, tag: str, **attrs: str) -> list[dict[str, Any]]:
        found = [element for element in self.elements if element["tag"] == tag]
        return [element for element in found if attrs.items() <= element["attrs"].items()]

    def inside(self, name: str, tag: str) -> list[dict[str, Any]]:
        """Elements `tag` somewhere in the element with this id."""
        return [one for one in self.all(tag) if any(outer["attrs"].get("id") == name for outer in one["within"])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small real sweep."""
    out = tmp_path_factory.mktemp("sweep")
    run_sweep(parse_spec(SPEC), out, workers=1, progress=False)
    return out


@pytest.fixture(scope="module")
def report(folder: Path) -> Path:
    assert main(["report", str(folder), "--html", "--formats", "svg"]) == 0
    return folder / "report.html"


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page(report.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def rows(folder: Path) -> pd.DataFrame:
    return run_sweep(parse_spec(SPEC), folder, workers=1, progress=False)


def html_of(rows: pd.DataFrame, tmp_path: Path, **options: Any) -> Page:
    return Page(write_html(rows, tmp_path / "page.html", **options).read_text(encoding="utf-8"))


def test_page_loads_nothing_from_outside(report: Path, page: Page) -> None:
    [policy] = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["attrs"]["content"].startswith("default-src 'none'; img-src data: blob:;")
    for element in page.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert (element["attrs"].get(name) or "#").startswith(("#", "data:")), element
    assert "url(" not in (styles := page.all("style")[0]["text"])
    assert "@import" not in styles
    assert "@media print" in styles
    assert sum(script["text"].count("Plotly.newPlot(") for script in page.all("script")) >= 1
    assert report.stat().st_size < 6e6


def test_page_is_accessible_by_structure(page: Page) -> None:
    names = [element["attrs"]["id"] for element in page.elements if "id" in element["attrs"]]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert page.all("html")[0]["attrs"]["lang"] == "en"
    links = [element["attrs"]["href"][1:] for element in page.all("a")]
    assert set(links) == {"summary", "curves", "gaps", "samples", "provenance"} <= set(names)
    labelled = {label["attrs"]["for"] for label in page.all("label")}
    assert {one["attrs"]["id"] for tag in ("input", "select") for one in page.all(tag)} == labelled
    for tag in ("th", "img", "table", "input", "select"):  # what follows is about something
        assert page.all(tag), tag
    assert all("scope" in head["attrs"] for head in page.all("th"))
    heads = page.inside("gap-table", "th")
    assert [head["attrs"]["aria-sort"] for head in heads] == ["none"] * len(heads)
    assert len(page.inside("gap-table", "button")) == len(heads)
    assert all(image["attrs"]["alt"] for image in page.all("img"))
    captioned = [caption["within"][-1] for caption in page.all("caption")]
    assert all(any(table is one for one in captioned) for table in page.all("table"))


def test_gap_table_holds_the_rows_of_the_gap_table(page: Page, rows: pd.DataFrame) -> None:
    table = gap_table(rows)
    lines = [line for line in page.inside("gap-table", "tr") if "data-rung" in line["attrs"]]
    assert [line["attrs"]["data-rung"] for line in lines] == list(table["rung"].astype(str))
    keys = [cell["attrs"]["data-key"] for cell in page.inside("gap-table", "td")]
    heads = [head["text"].strip() for head in page.inside("gap-table", "th")]
    by_column = {name: keys[k :: len(heads)] for k, name in enumerate(heads)}
    assert [float(key) for key in by_column["ε"]] == list(table["eps"])
    assert [float(key) for key in by_column["mean bound"]] == pytest.approx(
        list(table["lower_mean"].fillna(table["upper_mean"]))
    )
    assert by_column["m* − bound"] == [""] * len(table)  # no exact rung ran
    assert f"{len(table)} of {len(table)} rows" in page.all("output", id="gap-count")[0]["text"]


def test_verdicts_follow_from_the_rows(page: Page, rows: pd.DataFrame) -> None:
    wanted = Counter()
    for (sample, eps), part in rows.groupby(["sample", "eps"]):
        best = part.groupby("target").agg(low=("lower", "max"), high=("upper", "min"))
        verdict = "NO" if (best["high"] <= 0).any() else "YES" if (best["low"] > 0).all() else "MAYBE"
        wanted[(f"{eps:g}", verdict)] += 1
        [section] = [one for one in page.all("details") if f"test image {sample}," in one["text"]]
        assert f"{verdict} at ε = {eps:g}:" in " ".join(section["text"].split())
    cells = [cell["text"].strip() for cell in page.inside("verdicts", "td")]
    lines = [cells[k : k + 6] for k in range(0, len(cells), 6)]
    shown = {(line[1], name): int(line[2 + k]) for line in lines for k, name in enumerate(("YES", "NO", "MAYBE"))}
    assert {key: count for key, count in shown.items() if count} == wanted


def test_images_are_the_samples(page: Page) -> None:
    data = load_dataset("digits")
    for index, image in zip(SPEC["samples"], page.all("img"), strict=True):
        head, content = image["attrs"]["src"].split(",")
        assert head == "data:image/png;base64"
        pixels = imread(io.BytesIO(base64.b64decode(content)), format="png")
        np.testing.assert_allclose(pixels[..., 0], data.images[index, 0], atol=1 / 255)


def test_the_command_of_a_section_computes_its_verdict_again(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    section = next(one for one in page.all("details") if one["attrs"].get("class") == "sample")
    commands = [one["text"] for one in page.all("code") if section in one["within"]]
    verdicts = [one["text"].split()[-1] for one in page.all("span") if section in one["within"] and "ε" in one["text"]]
    command = shlex.split(commands[-1])
    assert command[:3] == ["relugap", "certify", "zoo:digits-standard"]
    assert main(command[1:]) == 0
    assert f"{verdicts[-1]}: " in capsys.readouterr().out


def test_provenance_names_the_run(page: Page, folder: Path) -> None:
    [run] = read_provenance(folder)[:1]
    [section] = page.all("section", **{"aria-labelledby": "provenance-title"})
    assert run["run_id"] in section["text"]
    assert run["networks"][0]["digest"][:12] in section["text"]
    assert "tiny & small" in page.all("title")[0]["text"]


def test_curves_hold_the_means(rows: pd.DataFrame) -> None:
    [panel] = curve_panels(margin_gaps(rows))
    lp = next(trace for trace in panel["data"] if trace["name"] == "LP" and trace["yaxis"] == "y")
    means = rows[rows["rung"] == "lp"].groupby("eps")["lower"].mean()
    assert lp["x"] == list(means.index)
    assert lp["y"] == pytest.approx(list(means))
    pgd = next(trace for trace in panel["data"] if trace["name"] == "pgd" and trace["yaxis"] == "y3")
    assert len(pgd["y"]) == len(means)
    assert all(0 <= share <= 1 for share in pgd["y"])
    assert [entry["group"] for entry in panel["legend"]] == ["dual", "lp", "pgd"]  # each rung once
    assert panel["layout"]["showlegend"] is False
    json.dumps(panel, allow_nan=False)


def test_every_look_has_a_plotly_symbol() -> None:
    assert {look.marker for look in (*LOOKS.values(), *OTHER_LOOKS)} <= set(SYMBOLS)


@pytest.mark.parametrize(
    ("rows", "verdict", "reason"),
    [
        (TWO_TARGETS, "YES", "by lp alone"),
        (frame(row("dual", 1.0), row("dual", -1.0, target=2), row("lp", -1.0), row("lp", 1.0, target=2)), "YES",
         "by several rungs together"),
        (frame(row("dual", -1.0), row("lp", -0.5, 0.2)), "MAYBE", "for class 0"),
        (frame(row("dual", -1.0), row("lp", -0.5, -0.2)), "NO", "found by lp, has margin -0.2 to class 0"),
        (frame(row("dual", -2.0, clean_margin=-0.1)), "NO", "the image itself has margin -0.1 to class 0"),
        (frame(row("dual", 0.0)), "MAYBE", "for class 0"),
        (frame(row("lp", np.nan, status="failed")), "MAYBE", "for class 0"),
    ],
)  # fmt: skip
def test_verdict_and_reason(rows: pd.DataFrame, verdict: str, reason: str) -> None:
    gaps = margin_gaps(rows)
    [line] = sample_verdicts(gaps).to_dict("records")
    assert line["verdict"] == verdict
    assert reason in verdict_reason(gaps, verdict)


def test_undecided_samples_come_first_and_the_cap_is_said(tmp_path: Path) -> None:
    rows = frame(row("dual", 1.0), row("dual", 1.0, sample=1), row("dual", -1.0, sample=2))
    page = html_of(rows, tmp_path, max_samples=1)
    [section] = [one for one in page.all("details") if one["attrs"].get("class") == "sample"]
    assert section["attrs"]["data-verdicts"] == "MAYBE"
    assert "1 of 3 samples have a section" in page.all("main")[0]["text"]


def test_text_from_rows_stays_text_and_images_may_be_missing(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><b id='gaps'>"
    page = html_of(frame(row("dual", 1.0, network=evil, dataset=evil)), tmp_path)
    assert len(page.all("script")) == 3
    assert page.all("b", id="gaps") == []
    assert page.all("img") == []
    assert "is not on the machine that wrote this report" in page.all("figcaption")[0]["text"]
    assert "relugap certify NETWORK" in page.all("code")[0]["text"]
    assert "No provenance was recorded" in page.all("main")[0]["text"]
    [other] = html_of(frame(row("dual", 1.0, label=7, sample=0)), tmp_path).all("figcaption")
    assert "digits has no test image 0 of class 7 here" in other["text"]


def test_rows_that_break_the_order_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="break the order"):
        write_html(frame(row("dual", 5.0)), tmp_path / "page.html")
    with pytest.raises(ValueError, match="no rows"):
        write_html(TWO_TARGETS.iloc[:0], tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_plotly_is_told_before_anything_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    assert main(["report", str(folder), "--html", "--out", str(tmp_path / "out")]) == 2
    assert 'pip install "relugap[html]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


WATCH = """<script>
window.troubles = [];
const note = (text) => window.troubles.push(String(text));
window.addEventListener("error", (event) => note(event.message));
window.addEventListener("unhandledrejection", (event) => note(event.reason));
document.addEventListener("securitypolicyviolation", (event) => note(event.violatedDirective + event.blockedURI));
console.error = note; console.warn = note;
</script>"""
DRIVE = """<script>
(async () => {
  const result = {};
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  try {
    const curves = [...document.querySelectorAll(".curve")];
    while (!curves.every((one) => one.dataset.ready)) await pause(50);
    await pause(100);
    const plot = curves[0];
    const legend = (name) => [...document.querySelectorAll('.legend[data-curve="0"] button')]
      .find((one) => one.textContent.trim() === name);
    const drawn = () => [...plot.querySelectorAll(".scatterlayer .trace")].length;
    const visible = (group) => plot.data.filter((one) => one.legendgroup === group).map((one) => one.visible ?? true);
    result.before = [visible("lp"), drawn(), legend("LP").getAttribute("aria-pressed")];
    legend("LP").click();
    await pause(300);
    result.clicked = [visible("lp"), drawn(), legend("LP").getAttribute("aria-pressed")];
    legend("LP").focus();
    document.activeElement.click();  // what Enter and Space do to a button that has the focus
    await pause(300);
    result.pressed = [visible("lp"), drawn(), legend("LP").getAttribute("aria-pressed")];
    result.focus = document.activeElement.getAttribute("aria-label");

    const rows = () => [...document.querySelectorAll("#gap-table tbody tr")].filter((one) => one.offsetParent);
    const fill = (id, value) => {
      const field = document.getElementById(id);
      field.value = value;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    };
    result.all = rows().length;
    fill("gap-filter", "LP 0.08");
    result.words = rows().map((one) => one.dataset.rung);
    result.count = document.getElementById("gap-count").value;
    fill("gap-filter", "");
    fill("gap-rung", "pgd");
    result.rung = rows().map((one) => one.dataset.rung);
    document.querySelector("#gap-controls [type=reset]").click();
    await pause(50);
    result.reset = rows().length;
    const heads = [...document.querySelectorAll("#gap-table th")];
    const column = heads.findIndex((one) => one.textContent.trim() === "mean bound");
    const sorted = () => {
      heads[column].querySelector("button").click();
      return [heads[column].getAttribute("aria-sort"), rows().map((one) => Number(one.cells[column].dataset.key))];
    };
    result.ascending = sorted();
    result.descending = sorted();
    const sections = () => [...document.querySelectorAll("details.sample")].filter((one) => one.offsetParent);
    fill("sample-verdict", "NO");
    result.refuted = sections().map((one) => one.dataset.verdicts);
    document.getElementById("open-all").click();
    result.opened = sections().every((one) => one.open);
    result.images = [...document.images].map((one) => one.naturalWidth);
    result.requests = performance.getEntriesByType("resource").map((one) => one.name)
      .filter((name) => !name.startsWith("data:"));
  } catch (error) { result.error = String(error); }
  result.troubles = window.troubles;
  const place = document.createElement("pre");
  place.id = "driven";
  place.textContent = JSON.stringify(result);
  document.body.append(place);
})();
</script>"""


def chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium here; on Debian: apt-get install chromium")
    return found


def browse(page: Path, dark: bool = False) -> Any:
    """What the page's element `driven` holds when it has run in a browser, which prefers a dark page or a light one."""
    command = [
        chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
        f"--user-data-dir={page.parent / 'profile'}", "--window-size=1500,900", "--virtual-time-budget=20000",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    dumped = done.stdout[done.stdout.rindex('<pre id="driven">') :]
    return json.loads(Page(dumped.partition("</pre>")[0] + "</pre>").all("pre")[0]["text"])


def test_page_works_in_a_browser(report: Path, tmp_path: Path) -> None:
    text = report.read_text(encoding="utf-8")
    driven = tmp_path / "driven.html"
    driven.write_text(text.replace("<title>", f"{WATCH}<title>", 1).replace("</body>", f"{DRIVE}</body>"), "utf-8")
    result = browse(driven)
    assert result.get("error") is None
    assert result["troubles"] == []
    assert result["requests"] == []
    shown, curves, _ = result["before"]
    assert result["before"] == [[True] * len(shown), curves, "true"]
    assert result["clicked"] == [[False] * len(shown), curves - len(shown), "false"]
    assert result["pressed"] == result["before"]
    assert result["focus"] == "curve LP"
    assert (result["all"], result["reset"]) == (6, 6)
    assert (result["words"], result["count"]) == (["lp"], "1 of 6 rows")
    assert result["rung"] == ["pgd", "pgd"]
    for direction, sign in (("ascending", 1), ("descending", -1)):
        name, values = result[direction]
        assert name == direction
        assert values == sorted(values, reverse=sign < 0)
    assert result["refuted"]
    assert all("NO" in verdicts.split() for verdicts in result["refuted"])
    assert result["opened"]
    assert result["images"] == [8, 8]


MEASURE = """<!doctype html><meta charset="utf-8"><body><script type="application/json" id="page">PAGE</script><script>
(async () => {
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const found = {};
  try {
    for (const width of [390, 820, 1400]) {
      const frame = document.createElement("iframe");
      frame.width = width; frame.height = 900; frame.style.border = 0;
      frame.srcdoc = JSON.parse(document.getElementById("page").textContent);
      document.body.append(frame);
      const inside = () => frame.contentDocument;
      const plots = () => [...(inside()?.querySelectorAll(".curve") ?? [])];
      while (!plots().length || !plots().every((one) => one.dataset.ready)) await pause(50);
      await pause(200);
      const box = (one) => one.getBoundingClientRect();
      const legends = [...inside().querySelectorAll(".legend")];
      const buttons = [...inside().querySelectorAll(".legend button")];
      const scroll = [...inside().querySelectorAll(".scroll")].filter((one) => one.offsetParent);
      const hint = (one) => frame.contentWindow.getComputedStyle(one, "::before").content;
      const style = frame.contentWindow.getComputedStyle(inside().body);
      found[width] = {
        page: inside().documentElement.scrollWidth,
        apart: legends.every((one, k) => box(one).bottom <= box(plots()[k].querySelector(".main-svg")).top + 1),
        within: [...buttons, ...inside().querySelectorAll(".main-svg")].every((one) => box(one).right <= width + 1),
        entries: legends.map((one) => one.children.length),
        tab: buttons.every((one) => one.tabIndex === 0 && one.tagName === "BUTTON"),
        tall: Math.min(...buttons.map((one) => box(one).height)),
        wide: scroll.map((one) => one.scrollWidth > one.clientWidth + 1),
        told: scroll.map((one) => hint(one).includes("scroll") && one.tabIndex === 0),
        colours: [style.backgroundColor, style.color, plots()[0].layout.paper_bgcolor,
          plots()[0].data.map((one) => one.line.color)],
      };
      frame.remove();
    }
  } catch (error) { found.error = String(error); }
  const place = document.createElement("pre");
  place.id = "driven";
  place.textContent = JSON.stringify(found);
  document.body.append(place);
})();
</script>"""
NINE = ("interval", "lipschitz", "dual", "crown", "alpha", "lp", "ideal", "exact", "pgd")


def luminance(colour: str) -> float:
    """Of rgb(…) or a hexadecimal colour, in [0, 1] and roughly."""
    if colour.startswith("#"):
        return sum(int(colour[k : k + 2], 16) for k in (1, 3, 5)) / 765
    return sum(map(float, colour.partition("(")[2].rstrip(")").split(",")[:3])) / 765


@pytest.mark.parametrize("dark", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_page_fits_phones_and_desks_by_day_and_night(dark: bool, tmp_path: Path) -> None:
    """Nine rungs: the legend lies beside no curve, the page never scrolls sideways, tables that do say so."""
    values = np.linspace(-1.0, 2.0, len(NINE) - 1)
    exact = {"exact": 2.0, "pgd": 2.0}
    rows = frame(*(
        row(name, -np.inf if name == "pgd" else float(low), exact.get(name, np.inf), eps=eps)
        for eps in (0.1, 0.2) for name, low in zip(NINE, [*values, 0.0], strict=True)
    ))  # fmt: skip
    text = write_html(rows, tmp_path / "page.html").read_text(encoding="utf-8")
    page = tmp_path / "frames.html"
    page.write_text(MEASURE.replace("PAGE", json.dumps(text).replace("<", "\\u003c")), "utf-8")
    found = browse(page, dark)
    assert "error" not in found, found["error"]
    for width, seen in found.items():
        assert seen["page"] <= int(width), width
        assert (seen["apart"], seen["within"], seen["tab"]) == (True, True, True), width
        assert seen["entries"] == [len(NINE)]
        assert seen["tall"] >= 24  # WCAG 2.2, 2.5.8
        assert seen["wide"] == seen["told"], width
        paper, ink, plot, curves = seen["colours"]
        assert (luminance(paper) < 0.2, luminance(ink) > 0.8, luminance(plot) < 0.2) == (dark, dark, dark)
        assert all(abs(luminance(curve) - luminance(paper)) > 0.2 for curve in curves)
    assert any(found["390"]["wide"])
