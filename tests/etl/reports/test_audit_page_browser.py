"""The audit's page in a real Chromium: it shows something, says nothing in the console, and its tables sort."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from etl.config import Config
from etl.execution import cluster
from etl.jobs import build
from etl.reports.audit_page import audit_page
from tests.etl.reports.test_audit_page import many_classes

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
WIDE, PHONE = (1200, 3000), (500, 3000)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The audit of a few generated images, two of whose names and one of whose classes try to break out."""
    folder = tmp_path_factory.mktemp("audited")
    rng = np.random.default_rng(0)
    for number in range(6):
        name = f"<b>img{number}" if number < 2 else f"img{number}"
        picture = cv2.resize(rng.integers(256, size=(12, 16, 3), dtype=np.uint8), (640, 480))
        cv2.imwrite(str(folder / f"{name}.png"), picture)
        rows = [
            f"{n % 2} {x:.4f} {y:.4f} {0.02 + 0.02 * (n % 3):.4f} 0.03"
            for n, (x, y) in enumerate(rng.uniform(0.1, 0.9, (30, 2)))
        ]
        rows += ["0 0.5 0.5 0.004 0.004", "0 0.3 0.3 0.05 0.05", "0 0.3 0.3 0.05 0.05"]
        (folder / f"{name}.txt").write_text("\n".join(rows))
    source = {"format": "yolo", "images": str(folder), "categories": ["<script>alert(1)</script>", "b & c"]}
    config = Config.model_validate({"name": "audited", "store": str(folder / "store"), "source": source})
    with cluster.serial() as here:
        return Path(build.audit_source(config, here).html)


def chromium(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={page.parent / 'profile'}", "--enable-logging=stderr", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


@pytest.mark.parametrize("size", [WIDE, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_shows_its_figures_and_the_console_is_clean(
    page: Path, size: tuple[int, int], scheme: str, tmp_path: Path
) -> None:
    shot = tmp_path / "page.png"
    preferred = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
    ran = chromium(page, f"--window-size={size[0]},{size[1]}", f"--screenshot={shot}", preferred)
    assert "CONSOLE" not in ran.stderr
    pixels = cv2.imread(str(shot), cv2.IMREAD_GRAYSCALE)
    assert pixels.shape == size[::-1]
    background = np.bincount(pixels.ravel()).argmax()
    assert background > 200 if scheme == "light" else background < 60
    for third in np.array_split(pixels, 3):  # top to bottom, text and plots all over
        assert (np.abs(third.astype(int) - background) > 40).mean() > 0.01


def test_names_cannot_break_out_of_the_page(page: Path) -> None:
    dom = chromium(page, "--dump-dom").stdout
    assert "<script>alert(1)" not in dom and "&lt;script&gt;alert(1)" in dom
    assert "<b>img" not in dom and "&lt;b&gt;img" in dom


def test_nothing_on_the_page_comes_from_elsewhere(page: Path) -> None:
    text = page.read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*", text)
    assert "url(" not in text.replace("url(data:", "")


def test_a_table_sorts_by_the_head_that_is_clicked(page: Path, tmp_path: Path) -> None:
    click = """<script>
      const lastHead = (table) => [...table.tHead.rows[0].cells].at(-1);
      const table = [...document.querySelectorAll("table")].find((one) => lastHead(one).textContent === "all");
      const heads = table.tHead.rows[0].cells, last = lastHead(table);
      const values = () => [...table.tBodies[0].rows].map((row) => row.cells[heads.length - 1].textContent).join(",");
      last.click(); const down = values(); last.click();
      document.title = "sorted " + down + " then " + values();
    </script></body>"""
    clicked = page.with_name("clicked.html")
    clicked.write_text(page.read_text().replace("</body>", click))
    title = re.search(r"<title>sorted (.*?) then (.*?)</title>", chromium(clicked, "--dump-dom").stdout)
    assert title is not None
    down, up = ([int(value) for value in part.split(",")] for part in title.groups())
    assert down == sorted(down, reverse=True) and up == down[::-1] and len(set(down)) > 1


@pytest.mark.parametrize(("size", "most"), [(WIDE, 9_000), (PHONE, 12_000)])
def test_a_page_of_a_thousand_classes_is_not_much_longer_than_one_of_two(
    size: tuple[int, int], most: int, tmp_path: Path
) -> None:
    measure = "<script>document.title = 'high ' + document.documentElement.scrollHeight;</script></body>"
    high = []
    for number in (2, 1000):  # 20 boxes of two classes: as many as a statistic needs
        long = tmp_path / f"{number}.html"
        long.write_text(audit_page(many_classes(number, boxes=10), title="species").replace("</body>", measure))
        dom = chromium(long, "--dump-dom", f"--window-size={size[0]},{size[1]}").stdout
        high.append(int(re.search(r"<title>high (\d+)</title>", dom)[1]))
    assert high[1] < most
    assert high[1] < 2 * high[0]


def test_on_a_phone_only_tables_are_wider_than_the_page_and_their_captions_are_not(tmp_path: Path) -> None:
    measure = """<script>
      const widest = (all) => Math.max(...[...all].map((one) => one.getBoundingClientRect().right));
      const shown = [document.documentElement.scrollWidth, widest(document.querySelectorAll("caption span")),
                     widest(document.querySelectorAll("table"))];
      document.title = "wide " + shown.map(Math.round).join(" ");
    </script></body>"""
    audit = many_classes(20)
    name = "photo_jpg.rf." + "0ad28bcf2a5572402f5f763" * 6  # cannot wrap at a blank
    finding = audit.findings[0].model_copy(update={"advice": f"Rejected: {name}.jpg."})
    long = tmp_path / "long.html"
    long.write_text(
        audit_page(audit.model_copy(update={"findings": (finding,)}), title="species").replace("</body>", measure)
    )
    dom = chromium(long, "--dump-dom", f"--window-size={PHONE[0]},{PHONE[1]}").stdout
    page_wide, captions, tables = map(int, re.search(r"<title>wide (\d+) (\d+) (\d+)</title>", dom).groups())
    assert page_wide <= PHONE[0] and captions <= PHONE[0] < tables


@pytest.mark.parametrize(("size", "most"), [(WIDE, 700), (PHONE, 1_150)])
def test_examples_of_twenty_classes_take_little_of_the_page(size: tuple[int, int], most: int, tmp_path: Path) -> None:
    measure = """<script>
      const one = [...document.querySelectorAll("section")].find((one) => one.textContent.includes("Examples of each"));
      document.title = "high " + Math.round(one.getBoundingClientRect().height);
    </script></body>"""
    jpeg = cv2.imencode(".jpg", np.zeros((192, 192, 3), dtype=np.uint8))[1].tobytes()
    audit = many_classes(1000)
    examples = {name: [("smallest, 6.0 px, a.jpg", jpeg)] * 3 for name in list(audit.objects_by_class)[:20]}
    long = tmp_path / "long.html"
    long.write_text(audit_page(audit, title="species", examples=examples).replace("</body>", measure))
    dom = chromium(long, "--dump-dom", f"--window-size={size[0]},{size[1]}").stdout
    assert int(re.search(r"<title>high (\d+)</title>", dom)[1]) < most
