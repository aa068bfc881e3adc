// This extension is for notebooks with exercises. The status bar shows how many are done, for example
// "Lesson 05 · 2 of 3", according to a file that the checks write beside the notebook. On a hub, this
// text is a link to the learner's Progress page. If an assignment includes the notebook, a button in its
// toolbar hands it in. A notification leads to new feedback, which our server extension writes to a file.

const FILE = "progress.json";
const CHECK = "-check"; // the ID of a cell that checks an exercise ends in this
const BUTTON = "course-hand-in";

// The parameter holds JupyterLab's own modules.
export function extension({ apputils, coreutils, notebook, services, statusbar, widgets }) {
  const { PageConfig, PathExt, URLExt } = coreutils;
  const hub = PageConfig.getOption("hubPrefix");
  const buttons = new WeakMap(); // each notebook's button

  // Send a request to our server extension (course_server.py).
  async function ask(settings, init = {}) {
    const url = URLExt.join(settings.baseUrl, "course/hand-in");
    const reply = await services.ServerConnection.makeRequest(url, init, settings);
    if (!reply.ok) throw new services.ServerConnection.ResponseError(reply);
    return reply.json();
  }

  async function handIn(panel, settings) {
    const body = JSON.stringify({ path: panel.context.path });
    const lost = "The connection was lost. Your notebook may not have been handed in: try again soon.";
    const { result, problem } = await panel.context.save().then(
      () => ask(settings, { method: "POST", body }).catch(() => ({ problem: lost })),
      (error) => ({ problem: `Nothing was handed in, because the notebook cannot be saved: ${error.message}` }),
    );
    await apputils.showDialog({
      title: problem ? "Hand in" : "Handed in",
      body: problem ?? result,
      buttons: [apputils.Dialog.okButton({ label: "Close" })],
    });
  }

  // Show a notification for feedback that this browser has not shown before. After a learner has handed in
  // again, the comment on the earlier notebook remains, which is nothing new.
  function tell(assignments, settings, commands) {
    for (const { title, lessons } of assignments) {
      for (const { file, digest, feedback, comment } of Object.values(lessons).filter((receipt) => receipt?.file)) {
        const key = `course-feedback:${settings.baseUrl}:${title}:${file}`;
        const [oldGrades, oldComment] = JSON.parse(localStorage.getItem(key) ?? "[]");
        const grades = feedback.length ? [digest, ...feedback].join() : "";
        if (comment === oldComment && ["", oldGrades].includes(grades)) continue;
        localStorage.setItem(key, JSON.stringify([grades, comment]));
        const open = () => commands.execute("docmanager:open", { path: file, factory: "Markdown Preview" });
        apputils.Notification.info(`Your feedback for “${title}” is in ${PathExt.basename(file)}.`, {
          autoClose: false,
          actions: [{ label: "Open", callback: open }],
        });
      }
    }
  }

  // Add a hidden button to a new notebook's toolbar.
  function addButton(panel, settings) {
    const button = new apputils.ToolbarButton({
      label: "Hand in",
      tooltip: "Save this notebook and hand it in",
      onClick: () => handIn(panel, settings),
    });
    button.hide();
    panel.toolbar.insertItem(10, BUTTON, button); // after the type of the cell
    buttons.set(panel, button);
    return button;
  }

  // Show new feedback, and the button if an assignment includes the notebook.
  async function offer(panel, lesson, settings, commands) {
    const { result = [] } = await ask(settings).catch(() => ({}));
    const wanted = result.some(({ lessons }) => Object.keys(lessons).some((name) => lesson.startsWith(name)));
    if (wanted) buttons.get(panel)?.show();
    tell(result, settings, commands);
  }

  return {
    id: "tensorflow-course:exercises",
    description: "Shows new feedback and how many of a notebook's exercises are done, and adds a button to hand it in.",
    autoStart: true,
    requires: [notebook.INotebookTracker, statusbar.IStatusBar],
    activate({ commands, docRegistry, serviceManager }, tracker, statusBar) {
      const settings = serviceManager.serverSettings;
      if (hub) docRegistry.addWidgetExtension("Notebook", { createNew: (panel) => addButton(panel, settings) });
      const badge = document.createElement("a");
      badge.className = "course-progress jp-StatusBar-TextItem";
      badge.style.cssText = "color: inherit; text-decoration: none; padding: 0 0.5em;";
      if (hub && PageConfig.getOption("courseProgress") === "True") {
        Object.assign(badge, { href: `${PageConfig.getOption("hubHost")}${hub}progress`, target: "_blank", title: "Show your progress" });
      }

      async function done(path, lesson) {
        const file = PathExt.join(PathExt.dirname(path), FILE);
        const options = { type: "file", format: "text", content: true };
        try {
          const { content } = await serviceManager.contents.get(file, options);
          return JSON.parse(content)[lesson]?.length ?? 0;
        } catch {
          return 0; // the file does not exist until the first exercise is done
        }
      }

      async function show() {
        const panel = tracker.currentWidget;
        await panel?.context.ready;
        const cells = [...(panel?.content.model?.cells ?? [])];
        const total = cells.filter(({ id }) => id.endsWith(CHECK)).length;
        const path = panel?.context.path ?? "";
        const lesson = PathExt.basename(path, ".ipynb");
        const text = total ? `Lesson ${lesson.slice(0, 2)} · ${await done(path, lesson)} of ${total}` : "";
        if (panel !== tracker.currentWidget) return;
        badge.textContent = text;
        badge.style.display = text ? "" : "none";
        if (total && hub) await offer(panel, lesson, settings, commands);
      }

      const item = new widgets.Widget({ node: badge });
      statusBar.registerStatusItem("tensorflow-course:exercises", { item, align: "middle" });
      tracker.currentChanged.connect(show);
      notebook.NotebookActions.executed.connect((_, { cell }) => {
        if (cell.model.id.endsWith(CHECK)) show();
      });
      show();
    },
  };
}
