"""Opens pages in headless Chromium: no console message, no request, hostile text inert, the script
works. Skips with 77 when no Chromium is found."""

import argparse
import html
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
CONSOLE = re.compile(r"CONSOLE")


def browse(browser, page, profile, *options):
    """The DOM after the script ran, and what the browser said."""
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         "--no-first-run", "--disable-extensions", "--disable-background-networking",
         f"--user-data-dir={profile}", "--enable-logging=stderr", "--v=0",
         "--virtual-time-budget=3000", "--window-size=1280,2000", *options, page.as_uri()],
        capture_output=True, timeout=120, check=False)
    return done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def requests_of(log):
    """URLs in a network log that are not the page itself."""
    urls = re.findall(r'"url":"((?:https?|ftp|wss?):[^"]*)"', log.read_text(errors="replace"))
    return [u for u in urls if "203.0.113" in u or "example" in u]


def check(browser, page, base, expected):
    faults = []
    log = base / (page.stem + ".net.json")
    dom, said = browse(browser, page, base / "profile", "--dump-dom", f"--log-net-log={log}")
    faults += [line for line in said.splitlines() if CONSOLE.search(line)]
    if log.exists():
        faults += [f"request: {u}" for u in requests_of(log)]
    if not dom.rstrip().endswith("</html>"):
        faults.append("no DOM came back")
    # What the script adds proves that it ran under the policy.
    for piece in expected:
        if piece not in dom:
            faults.append(f"the script did not make: {piece}")
    if re.search(r"<[^>]*\son\w+=", re.sub(r'"[^"]*"', '""', dom)):
        faults.append("an event handler is in the DOM")
    return faults, dom


# Works every control once and reports in the title. Runs in a copy without the policy.
DRIVER = """
addEventListener('load', () => setTimeout(() => {
  const said = [];
  const say = (name, holds) => said.push(name + '=' + (holds ? 'yes' : 'NO'));
  const figure = document.querySelector('figure.chart');
  const svg = figure.querySelector('svg');
  const area = svg.getBoundingClientRect();
  svg.dispatchEvent(new PointerEvent('pointermove', {bubbles: true,
    clientX: area.left + area.width / 2, clientY: area.top + 40}));
  const rows = figure.querySelectorAll('.tip-box tr').length;
  say('values', rows >= 1 && /step \\d/.test(figure.querySelector('.tip-box caption').textContent));
  svg.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}));
  say('hidden', figure.querySelector('.tip-box').hidden);
  const lines = () => figure.querySelectorAll('.ln').length;
  const before = lines();
  const toggle = document.querySelector('.legend button');
  toggle.click();
  say('toggle', lines() === before - 1 && toggle.getAttribute('aria-pressed') === 'false');
  toggle.click();
  const axis = () => [...figure.querySelectorAll('.ax text')].map((t) => t.textContent).join(' ');
  const set = (id, key, value) => {
    const input = document.getElementById(id);
    input[key] = value;
    input.dispatchEvent(new Event('input', {bubbles: true}));
  };
  const linear = axis();
  set('cl', 'checked', true);
  say('logarithmic', axis() !== linear);
  set('cx', 'value', 'tok');
  say('tokens', axis().endsWith('tokens'));
  set('cx', 'value', 'sec');
  say('time', axis().endsWith('time since the start'));
  const d = figure.querySelector('.ln').getAttribute('d');
  set('cs', 'value', '0');
  say('smoothing', figure.querySelector('.ln').getAttribute('d') !== d);
  say('finite', !/NaN|Infinity|undefined/.test(document.querySelector('#curves').innerHTML
    .replace(/<t(able|itle|ext)[^]*?<.t(able|itle|ext)>/g, '')));
  const table = document.querySelector('table[data-sort]');
  const head = [...table.querySelectorAll('thead th')].find((h) => /Val loss/.test(h.textContent));
  const values = () => [...table.tBodies[0].rows]
    .map((r) => Number(r.cells[head.cellIndex].dataset.v));
  head.querySelector('button').click();
  say('ascending', head.getAttribute('aria-sort') === 'ascending' &&
    values().every((v, i, all) => i === 0 || !(all[i - 1] > v)));
  head.querySelector('button').click();
  say('descending', values().every((v, i, all) => i === 0 || !(all[i - 1] < v)));
  document.title = 'PROBE ' + said.join(' ');
}, 300));
"""
PAYLOAD_PROBE = """
setTimeout(() => {
  document.title = 'PROBE inert=' + (window.pwned === undefined ? 'yes' : 'NO');
}, 1500);
"""


def probe(browser, page, base, script):
    """What a script put into the title of a copy of the page that has no policy, so that escaping
    alone must hold."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    head, _, tail = text.rpartition("</body>")
    copy = page.with_name("probe.html")
    copy.write_text(f"{head}<script>{script}</script></body>{tail}", encoding="utf-8")
    dom, said = browse(browser, copy, base / "profile", "--dump-dom")
    title = html.unescape(re.search(r"<title>(.*?)</title>", dom, re.S).group(1))
    print(f"{page.parent.name}: {title}")
    faults = [line for line in said.splitlines() if CONSOLE.search(line)]
    if not title.startswith("PROBE ") or "NO" in title:
        faults.append(f"{page}: {title}")
    return faults


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--render", required=True, help="the program report_render")
    arguments = parser.parse_args()
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if not browser:
        print("skipped: no Chromium found (Debian: apt-get install chromium)")
        return 77
    faults = []
    with tempfile.TemporaryDirectory() as name:
        base = pathlib.Path(name)
        for what in ("demo", "stages", "hostile"):
            subprocess.run([arguments.render, what, str(base / what)], check=True,
                           stdout=subprocess.DEVNULL)
        for file in ("demo/report.html", "demo/one.html", "stages/report.html",
                     "hostile/report.html"):
            expected = ['aria-pressed="true"', 'tabindex="0"']
            if file != "demo/one.html":
                expected.append("<button type=\"button\">Rank</button>")
            found, dom = check(browser, base / file, base, expected)
            print(f"{file}: {len(dom)} bytes of DOM, {len(found)} faults")
            faults += found
        faults += probe(browser, base / "hostile/report.html", base, PAYLOAD_PROBE)
        faults += probe(browser, base / "demo/report.html", base, DRIVER)
    for fault in faults[:20]:
        print("  " + fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
