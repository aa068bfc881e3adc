"""Use the drawing pad and the film (a step-through animation) in a browser, as a learner would."""

from __future__ import annotations

from playwright.sync_api import Locator, expect

NOTHING, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
SEVEN = [(0.28, 0.2), (0.72, 0.18), (0.62, 0.4), (0.52, 0.62), (0.44, 0.88)]
PIXELS = """canvas => Array.from(
  canvas.getContext("2d").getImageData(0, 0, 28, 28).data.filter((_, place) => place % 4 === 3))"""
ROWS = """(cells, what) => cells.map(cell => what === "bar"
  ? cell.querySelector("i").style.width : cell.querySelector(".number").textContent)"""

RECORD = """film => {
  film.seen = [];
  const caption = film.querySelector(".caption");
  const note = () => film.seen.push(caption.textContent);
  new MutationObserver(note).observe(caption, { childList: true });
}"""
# This function computes the WCAG 2 contrast ratio between each text and its background.
CONTRASTS = """root => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = colour => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const luminance = colour => rgba(colour).slice(0, 3).map(value => value / 255)
    .map(value => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (rgba(colour)[3] === 255) return colour;
    }
  };
  const found = [];
  const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  for (let text; (text = texts.nextNode());) {
    const parent = text.parentElement, range = document.createRange();
    range.selectNodeContents(text);
    parent.scrollIntoView({ block: "center" });
    const { x, y, width, height } = range.getBoundingClientRect();
    if (!text.data.trim() || !width || parent.closest(".unseen, :disabled")) continue;
    const lit = [getComputedStyle(parent).color,
      behind(document.elementFromPoint(x + width / 2, y + height / 2))].map(luminance);
    found.push([text.data.trim(), (Math.max(...lit) + 0.05) / (Math.min(...lit) + 0.05)]);
  }
  return found;
}"""


class Pad:
    """The drawing pad in a given page element."""

    def __init__(self, root: Locator):
        self.root, self.page = root, root.page
        self.paper = root.get_by_label("Drawing pad")
        self.answer = root.locator(".answer b")

    def places(self, points: list[tuple]) -> list[tuple]:
        """Convert pad coordinates, which range from 0 to 1, to window coordinates."""
        self.paper.hover()  # scrolls the paper into view and waits until it stops moving
        box = self.paper.bounding_box()
        return [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]

    def draw(self, points: list[tuple]) -> None:
        """Draw a stroke with the mouse."""
        start, *others = self.places(points)
        self.page.mouse.move(*start)
        self.page.mouse.down()
        for place in others:
            self.page.mouse.move(*place, steps=6)
        self.page.mouse.up()

    def touch(self, points: list[tuple]) -> None:
        """Draw a stroke with touch events."""
        places = [[{"x": x, "y": y}] for x, y in self.places(points)]
        kinds = ["touchStart", *["touchMove"] * (len(places) - 1), "touchEnd"]
        browser = self.page.context.new_cdp_session(self.page)
        for kind, place in zip(kinds, [*places, []], strict=True):
            browser.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": place})
        browser.detach()

    def press(self, key: str, times: int = 1) -> None:
        """Press a key the given number of times."""
        for _ in range(times):
            self.page.keyboard.press(key)

    def type_seven(self) -> None:
        """Draw a 7 with the keyboard, starting at the upper left. The pad must have focus."""
        expect(self.paper).to_be_focused()
        self.press("Shift+ArrowLeft", 17)
        self.press("Shift+ArrowUp", 17)
        self.press("Space")  # the pen goes down
        self.press("Shift+ArrowRight", 8)
        self.page.keyboard.down("ArrowLeft")  # holding two arrow keys draws a diagonal line
        self.press("ArrowDown", 16)
        self.page.keyboard.up("ArrowLeft")
        self.press("Shift+ArrowDown", 6)
        self.press("Space")

    def has_focus(self) -> bool:
        """Return whether the paper has keyboard focus."""
        return self.paper.evaluate("paper => paper === document.activeElement")

    def shows_focus(self) -> bool:
        """Return whether the paper has focus and a visible focus outline."""
        line = self.paper.evaluate(
            "paper => { const { outlineStyle: style, outlineWidth: width } ="
            " getComputedStyle(paper); return [style, parseFloat(width)]; }"
        )
        return self.has_focus() and line[0] == "solid" and line[1] >= 2

    def strokes(self) -> list[list[list[float]]]:
        """Return the strokes on the paper."""
        drawn = self.root.locator(".ink").get_attribute("d")
        strokes = [stroke.removesuffix("h0").split("L") for stroke in drawn.split("M")[1:]]
        return [[[float(number) for number in point.split()] for point in s] for s in strokes]

    def pixels(self) -> list[int]:
        """Return the displayed pixels of the model's input: 0 for paper, 255 for ink."""
        return self.root.locator("canvas").evaluate(PIXELS)

    def ink_in_the_middle(self) -> bool:
        """Return whether the marker for the ink's centre is in the middle of the picture."""
        circle = self.root.locator(".pixels circle")
        return all(abs(float(circle.get_attribute(axis)) - 14.5) < 0.06 for axis in ("cx", "cy"))

    def numbers(self, column: str) -> list[float] | None:
        """Return the numbers in the `logit` or `score` column, or None if the column is empty."""
        texts = self.root.locator(f"tbody .{column}").evaluate_all(ROWS, "number")
        return None if NOTHING in texts else [float(text.replace(MINUS, "-")) for text in texts]

    def bars(self) -> list[float]:
        """Return the lengths of the score bars, as fractions from 0 to 1."""
        widths = self.root.locator("tbody .score").evaluate_all(ROWS, "bar")
        return [float(width.removesuffix("%")) / 100 for width in widths]


def watch(film: Locator, captions: list[str]) -> None:
    """Check a film: play it to the end, then step through it with buttons and keys."""
    caption, picture = film.locator(".caption"), film.locator("img")
    play, back, forth = (film.get_by_role("button", name=n) for n in ("Play", "back", "forward"))
    first = picture.get_attribute("src")
    expect(caption).to_have_text(captions[0])  # the film does not start automatically
    expect(back).to_be_disabled()
    twice = play.evaluate("play => [1, 2].map(() => (play.click(), play.textContent))")
    assert [text.split()[-1] for text in twice] == ["Pause", "Play"]
    film.evaluate(RECORD)
    play.click()
    expect(caption).to_have_text(captions[-1])
    expect(play).to_be_visible()  # the film has stopped
    assert film.evaluate("film => film.seen") == captions[1:]
    expect(forth).to_be_disabled()
    expect(picture).not_to_have_attribute("src", first)
    back.click()
    expect(caption).to_have_text(captions[-2])
    forth.press("Enter")
    expect(caption).to_have_text(captions[-1])
    slider = film.get_by_role("slider", name="Frame")
    slider.press("Home")
    expect(picture).to_have_attribute("src", first)
    slider.press("ArrowRight")
    expect(slider).to_be_focused()
    expect(caption).to_have_text(captions[1])
    assert picture.evaluate("picture => picture.complete && picture.naturalWidth > 0")
    assert captions[1] in picture.get_attribute("alt")


def too_faint(root: Locator) -> list[tuple[str, float]]:
    """Return the low-contrast texts in an element, each with its contrast ratio."""
    root.hover()  # scrolls the element into view
    contrasts = root.evaluate(CONTRASTS)
    assert contrasts
    return [(text, contrast) for text, contrast in contrasts if contrast < 4.5]
