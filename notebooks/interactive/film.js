// A film as a browser shows it: one picture after the other, with buttons. It never starts alone.

const PAUSE = 350; // milliseconds from one frame to the next

function render({ model, el }) {
  const frames = model.get("frames");
  const captions = model.get("captions");
  const last = frames.length - 1;
  const root = document.createElement("div");
  const find = (selector) => root.querySelector(selector);
  root.className = "course-film";
  root.innerHTML = `<div class="board">
    <p class="title"></p>
    <img>
    <p class="caption" role="status"></p>
    <div class="buttons">
      <button type="button" class="play"></button>
      <button type="button" class="back" aria-label="One frame back">◀</button>
      <button type="button" class="forth" aria-label="One frame forward">▶</button>
      <input type="range" min="0" max="${last}" step="1" aria-label="Frame">
      <span class="count"></span>
    </div>
  </div>`;
  el.append(root);
  const picture = find("img");
  picture.style.width = `${model.get("width")}px`;
  picture.classList.toggle("pixelated", model.get("pixelated"));
  find(".title").textContent = model.get("title");
  let at = Math.min(model.get("at") ?? 0, last);
  let timer = 0;

  function show(number) {
    at = Math.min(last, Math.max(0, number));
    picture.src = frames[at];
    picture.alt = `${model.get("title")} ${captions[at]}`.trim();
    find(".caption").textContent = captions[at];
    find(".count").textContent = `${at + 1} / ${frames.length}`;
    const slider = find("input");
    slider.value = at;
    slider.setAttribute("aria-valuetext", captions[at]);
    find(".back").disabled = at === 0;
    find(".forth").disabled = at === last;
  }

  function stop() {
    clearInterval(timer);
    timer = 0;
    label();
  }

  function label() {
    find(".play").textContent = timer ? "❚❚ Pause" : "▶ Play";
    // Each frame would be read aloud.
    find(".caption").setAttribute("aria-live", timer ? "off" : "polite");
  }

  function play() {
    if (timer) return stop();
    if (at === last) show(0);
    timer = setInterval(() => {
      show(at + 1);
      if (at === last) stop();
    }, PAUSE);
    label();
  }

  function step(by) {
    stop();
    show(at + by);
  }

  find(".play").addEventListener("click", play);
  find(".back").addEventListener("click", () => step(-1));
  find(".forth").addEventListener("click", () => step(1));
  find("input").addEventListener("input", (event) => {
    stop();
    show(Number(event.target.value));
  });
  // JupyterLab would take the slider's arrow keys; Ctrl+S and its like stay JupyterLab's.
  const shortcuts = (event) => {
    if (!root.contains(event.target)) return;
    event.target.toggleAttribute("data-lm-suppress-shortcuts", !(event.ctrlKey || event.metaKey));
  };
  window.addEventListener("keydown", shortcuts, true); // it comes before JupyterLab's own
  show(at);
  label();
  return () => {
    clearInterval(timer);
    window.removeEventListener("keydown", shortcuts, true);
  };
}

export default { render };
