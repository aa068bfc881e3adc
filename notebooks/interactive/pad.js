// The pad as a browser shows it. `model` holds what it shares with Python: `strokes`, `temperature`
// and `centred` go there, `seen` (the image's pixels and the logits) and `problem` come back.

const STEP = 0.02; // how far an arrow key moves the pen; the pad is 1 wide
const NEAR = 0.004; // points nearer to each other than this are one
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const QUIET = 700; // milliseconds without a change before a screen reader is told
let pads = 0; // to number the ids on a page

export function softmax(logits, temperature) {
  const most = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp((logit - most) / temperature));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

function html(collecting, id) {
  const rows = Array.from({ length: 10 }, (_, digit) => `
    <tr data-digit="${digit}">
      <th scope="row">${digit}</th>
      <td class="logit"><span class="number">–</span><span class="track"><i></i></span></td>
      <td class="score"><span class="track"><i></i></span><span class="number">–</span></td>
    </tr>`).join("");
  return `<div class="board">
    <div class="draw">
      <p class="title"><span class="ask">Draw a digit</span></p>
      <div class="sheet">
      <svg class="paper" viewBox="0 0 1 1" tabindex="0" role="application"
          aria-label="Drawing pad" aria-describedby="${id}-how">
        <path class="ink"></path>
        <circle class="pen" r="0.035" cx="0.5" cy="0.5"></circle>
      </svg>
      <span class="hint"></span>
      </div>
      <p class="buttons">
        ${collecting ? '<button type="button" class="save">Save this digit</button>' : ""}
        <button type="button" class="clear">Clear</button>
        ${collecting ? '<button type="button" class="undo"></button>' : ""}
      </p>
      <p class="how" id="${id}-how">Use a mouse, a finger, or the keyboard: arrow keys move the pen,
        <kbd>Space</kbd> puts it down and lifts it, <kbd>C</kbd> clears${
          collecting ? ", <kbd>Enter</kbd> saves" : ""}.</p>
    </div>
    <div class="see">
      <p class="title">The model sees</p>
      <div class="pixels">
        <canvas width="28" height="28" role="img" aria-label="Your drawing in 28 by 28 pixels"></canvas>
        <svg viewBox="0 0 28 28" aria-hidden="true">
          <rect width="20" height="20"></rect>
          <path d="M14.5 12.5v4M12.5 14.5h4"></path>
          <circle r="0.9"></circle>
        </svg>
      </div>
      <label class="switch"><input type="checkbox" role="switch" class="centred"><span>
        Centre my digit like MNIST’s</span></label>
      <p class="why"></p>
    </div>
    <div class="say">
      <p class="title">The model says</p>
      <p class="answer" aria-hidden="true"><b>–</b><span></span></p>
      <table>
        <caption class="unseen">The model’s logits and softmax scores</caption>
        <thead><tr><th scope="col"><span class="unseen">digit</span></th>
          <th scope="col" class="logit">logits</th>
          <th scope="col" class="score">softmax scores</th></tr></thead>
        <tbody>${rows}</tbody>
      </table>
      <label class="heat"><span>Temperature <span class="now">1.00</span></span>
        <input type="range" class="temperature" aria-label="Temperature" min="-1" max="1" step="0.02"></label>
    </div>
    <p class="note"></p>
    <p class="problem" role="alert"></p>
    <p class="unseen told" role="status"></p>
  </div>`;
}

function render({ model, el }) {
  const root = document.createElement("div");
  const find = (selector) => root.querySelector(selector);
  const collecting = () => model.get("collecting");
  root.className = "course-pad";
  root.innerHTML = html(Boolean(collecting()), `course-pad-${(pads += 1)}`);
  root.classList.toggle("collecting", Boolean(collecting()));
  el.append(root);

  const paper = find(".paper");
  const [canvas, ink, pen, told] = ["canvas", ".ink", ".pen", ".told"].map(find);
  const rows = [...root.querySelectorAll("tbody tr")];
  const pressed = new Set();
  let strokes = model.get("strokes");
  let pointer = null; // the finger or the mouse that draws
  let down = false; // whether the keyboard's pen is on the paper
  let at = [0.5, 0.5]; // where it is
  let frame = 0;
  let timer = 0;

  // What was drawn, at most once for each picture on the screen.
  function share() {
    paint();
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      model.set("strokes", strokes);
      model.save_changes();
    });
  }

  function begin(point) {
    if (model.get("example")) {
      model.set("example", false);
      strokes = [];
    }
    strokes = [...strokes, [point]];
    share();
  }

  function go(point) {
    const last = strokes[strokes.length - 1];
    if (!last) return begin(point);
    const [x, y] = last[last.length - 1];
    if (Math.hypot(point[0] - x, point[1] - y) < NEAR) return;
    strokes = [...strokes.slice(0, -1), [...last, point]];
    share();
  }

  function clear() {
    if (model.get("example")) model.set("example", false);
    strokes = [];
    down = false;
    share();
    tell("The pad is empty.");
  }

  function paint() {
    ink.setAttribute("d", strokes.map((stroke) =>
      `M${stroke.map((point) => point.join(" ")).join("L")}${stroke.length > 1 ? "" : "h0"}`).join(""));
    pen.setAttribute("cx", at[0]);
    pen.setAttribute("cy", at[1]);
    pen.classList.toggle("down", down);
    const example = strokes.length > 0 && Boolean(model.get("example"));
    root.classList.toggle("empty", !strokes.length);
    root.classList.toggle("example", example);
    find(".hint").textContent = example ? "An example. Draw your own over it." : strokes.length ? "" : "Draw here.";
    for (const button of root.querySelectorAll(".clear, .save")) button.disabled = !strokes.length;
  }

  function tell(text) {
    clearTimeout(timer);
    timer = setTimeout(() => { told.textContent = text; }, QUIET);
  }

  const short = (number) => Math.round(Math.min(1, Math.max(0, number)) * 1000) / 1000;
  function place(event) {
    const box = paper.getBoundingClientRect();
    return [short((event.clientX - box.left) / box.width), short((event.clientY - box.top) / box.height)];
  }

  paper.addEventListener("pointerdown", (event) => {
    if (pointer !== null || event.button > 0) return;
    pointer = event.pointerId;
    paper.setPointerCapture(pointer);
    paper.classList.add("by-pointer");
    down = false;
    begin(place(event));
  });
  paper.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pointer) return;
    const passed = event.getCoalescedEvents?.() ?? [];
    for (const each of passed.length ? passed : [event]) go(place(each));
    at = place(event);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    paper.addEventListener(end, (event) => {
      if (event.pointerId === pointer) pointer = null;
    });
  }

  paper.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    paper.classList.remove("by-pointer");
    if (event.key in ARROWS) {
      pressed.add(event.key); // two at once draw a slanting line
      const far = event.shiftKey ? 3 * STEP : STEP;
      for (const key of pressed) {
        at = [short(at[0] + far * ARROWS[key][0]), short(at[1] + far * ARROWS[key][1])];
      }
      down ? go(at) : paint();
    } else if (event.key === " ") {
      down = !down;
      down ? begin(at) : paint();
      if (!down) say();
      else tell("Pen down.");
    } else if (["Delete", "Backspace", "c", "C"].includes(event.key)) {
      clear();
    } else if (event.key === "Enter" && collecting()) {
      save();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  });
  paper.addEventListener("keyup", (event) => pressed.delete(event.key));
  paper.addEventListener("blur", () => {
    pressed.clear();
    paper.classList.remove("by-pointer");
  });

  function save() {
    if (!strokes.length || !collecting().ask) return;
    model.send({ do: "save", strokes });
    strokes = [];
    down = false;
    paint();
  }

  find(".clear").addEventListener("click", clear);
  find(".save")?.addEventListener("click", save);
  find(".undo")?.addEventListener("click", () => model.send({ do: "undo" }));
  find(".centred").addEventListener("change", (event) => {
    model.set("centred", event.target.checked);
    model.save_changes();
    settings();
  });
  find(".temperature").addEventListener("input", (event) => {
    model.set("temperature", Number((10 ** event.target.value).toPrecision(3)));
    model.save_changes();
    settings();
    say();
  });

  function settings() {
    const centred = model.get("centred");
    const temperature = model.get("temperature");
    find(".centred").checked = centred;
    root.classList.toggle("as-it-lies", !centred);
    find(".why").textContent = centred
      ? "Each MNIST digit fits a box of 20×20 pixels, and the centre of its ink (○) is in the middle (+)."
      : "Your drawing is only shrunk. Draw a small digit in a corner: the model has never seen one there.";
    find(".now").textContent = temperature.toFixed(2);
    const slider = find(".temperature");
    slider.value = Math.log10(temperature);
    slider.setAttribute("aria-valuetext", temperature.toFixed(2));
  }

  // The image and the bars.
  function say() {
    const { pixels, logits } = model.get("seen");
    const drawn = strokes.length > 0;
    if (pixels) look(pixels);
    root.classList.toggle("silent", !logits);
    if (!logits) return;
    const scores = softmax(logits, model.get("temperature"));
    const best = scores.indexOf(Math.max(...scores));
    const most = Math.max(10, ...logits.map(Math.abs)); // where the bars end
    const low = logits.some((logit) => logit < 0) ? -most : 0;
    const high = logits.some((logit) => logit > 0) ? most : 0;
    const share_of = (logit) => (100 * (logit - low)) / (high - low || 1);
    rows.forEach((row, digit) => {
      row.classList.toggle("best", drawn && digit === best);
      const [logit, score] = row.querySelectorAll("td");
      const from = Math.min(share_of(0), share_of(logits[digit]));
      const wide = Math.abs(share_of(logits[digit]) - share_of(0));
      bar(logit, drawn ? from : share_of(0), drawn ? wide : 0, drawn && minus(logits[digit].toFixed(1)));
      logit.style.setProperty("--zero", `${share_of(0)}%`);
      bar(score, 0, drawn ? 100 * scores[digit] : 0, drawn && scores[digit].toFixed(3));
    });
    const [answer, score] = find(".answer").children;
    answer.textContent = drawn ? best : "–";
    score.textContent = drawn ? `with a score of ${scores[best].toFixed(3)}` : "nothing yet";
    if (drawn) tell(`The model says ${best}, with a score of ${scores[best].toFixed(2)}.`);
  }

  const minus = (text) => text.replace("-", "−");
  function bar(cell, from, wide, text) {
    const line = cell.querySelector("i");
    line.style.left = `${from}%`;
    line.style.width = `${wide}%`;
    cell.querySelector(".number").textContent = text || "–";
  }

  function look(pixels) {
    const context = canvas.getContext("2d");
    const image = context.createImageData(28, 28);
    const mass = { ink: 0, x: 0, y: 0 };
    const [xs, ys] = [[], []];
    pixels.forEach((value, place) => {
      const [x, y] = [place % 28, Math.floor(place / 28)];
      image.data.set([0, 0, 0, value], 4 * place);
      mass.ink += value;
      mass.x += value * x;
      mass.y += value * y;
      if (value) xs.push(x), ys.push(y);
    });
    context.putImageData(image, 0, 0);
    const [box, circle] = ["rect", "circle"].map((name) => find(`.pixels ${name}`));
    circle.style.display = box.style.display = mass.ink ? "" : "none";
    if (!mass.ink) return;
    circle.setAttribute("cx", mass.x / mass.ink + 0.5);
    circle.setAttribute("cy", mass.y / mass.ink + 0.5);
    const middle = (places) => (Math.min(...places) + Math.max(...places) + 1) / 2;
    box.setAttribute("x", middle(xs) - 10);
    box.setAttribute("y", middle(ys) - 10);
  }

  function collect() {
    const now = collecting();
    if (!now) return;
    const { ask, done, total, last } = now;
    const article = ask === "8" ? "an" : "a";
    find(".ask").textContent = ask ? `Draw ${article} ${ask}` : `All ${total} digits are saved`;
    let progress = find(".progress");
    if (!progress) {
      progress = document.createElement("span");
      progress.className = "progress";
      find(".title").append(progress);
    }
    progress.textContent = `${done} of ${total} saved`;
    progress.style.setProperty("--done", `${(100 * done) / total}%`);
    const undo = find(".undo");
    undo.textContent = `Undo the last ${last}`.trim();
    undo.hidden = !last;
    tell(`${find(".ask").textContent}. ${progress.textContent}.`);
  }

  function trouble() {
    find(".problem").textContent = model.get("problem") ?? "";
    find(".note").textContent = model.get("note") ?? "";
  }

  // JupyterLab would take the arrow keys, and C; Ctrl+S and its like stay JupyterLab's.
  const shortcuts = (event) => {
    if (!root.contains(event.target)) return;
    event.target.toggleAttribute("data-lm-suppress-shortcuts", !(event.ctrlKey || event.metaKey));
  };
  window.addEventListener("keydown", shortcuts, true); // it comes before JupyterLab's own

  const heard = {
    "change:strokes": () => {
      if (pointer === null && !frame) strokes = model.get("strokes");
      paint();
      say();
    },
    "change:seen": say,
    "change:centred": settings,
    "change:temperature": () => { settings(); say(); },
    "change:example": paint,
    "change:collecting": collect,
    "change:problem": trouble,
  };
  for (const [name, does] of Object.entries(heard)) model.on(name, does);
  paint();
  settings();
  say();
  collect();
  trouble();
  return () => {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
    window.removeEventListener("keydown", shortcuts, true);
    for (const [name, does] of Object.entries(heard)) model.off(name, does);
  };
}

export default { render };
