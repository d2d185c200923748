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


def with_probe(page, target):
    """A copy that shows in its title whether a payload ran: the policy hash stays, so the probe is
    the DOM itself. The copy drops the policy, so that escaping alone must hold."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    probe = ("<script>setTimeout(()=>{document.title='PROBE '+(window.pwned===undefined)},1500)"
             "</script></body>")
    head, _, tail = text.rpartition("</body>")
    target.write_text(head + probe + tail, encoding="utf-8")


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
        for what in ("demo", "hostile"):
            subprocess.run([arguments.render, what, str(base / what)], check=True,
                           stdout=subprocess.DEVNULL)
        for file in ("demo/report.html", "demo/one.html", "hostile/report.html"):
            expected = ['aria-pressed="true"', 'tabindex="0"']
            if file != "demo/one.html":
                expected.append("<button type=\"button\">Rank</button>")
            found, dom = check(browser, base / file, base, expected)
            print(f"{file}: {len(dom)} bytes of DOM, {len(found)} faults")
            faults += found
        bare = base / "hostile/bare.html"
        with_probe(base / "hostile/report.html", bare)
        dom, _ = browse(browser, bare, base / "profile", "--dump-dom")
        title = html.unescape(re.search(r"<title>(.*?)</title>", dom, re.S).group(1))
        print(f"hostile page without its policy: {title}")
        if title != "PROBE true":
            faults.append("a payload ran, or the probe did not")
    for fault in faults[:20]:
        print("  " + fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
