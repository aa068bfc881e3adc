// This extension shows in the status bar how many exercises of the open notebook are done, such as
// "Lesson 05 · 2 of 3". The checks record that in a file beside the notebook. On a hub, the text is a
// link to the learner's page.

const FILE = "progress.json";
const CHECK = "-check"; // the end of the id of a cell that checks an exercise

// The parameter holds JupyterLab's own modules.
export function extension({ notebook, statusbar, widgets, coreutils }) {
  return {
    id: "tensorflow-course:progress",
    description: "Shows how many exercises of a notebook are done.",
    autoStart: true,
    requires: [notebook.INotebookTracker, statusbar.IStatusBar],
    activate({ serviceManager }, tracker, statusBar) {
      const widget = new widgets.Widget({ node: document.createElement("a") });
      const badge = widget.node;
      badge.className = "course-progress";
      badge.style.cssText = "color: inherit; text-decoration: none; padding: 0 0.5em;";
      const hub = coreutils.PageConfig.getOption("hubPrefix");
      if (hub) {
        Object.assign(badge, { href: `${hub}progress`, target: "_blank", title: "Show your progress" });
      }

      async function done(path) {
        const folder = coreutils.PathExt.dirname(path);
        try {
          const file = coreutils.PathExt.join(folder, FILE);
          const options = { type: "file", format: "text", content: true };
          const { content } = await serviceManager.contents.get(file, options);
          const lesson = coreutils.PathExt.basename(path, ".ipynb");
          return JSON.parse(content)[lesson]?.length ?? 0;
        } catch {
          return 0; // there is no such file until the first exercise is done
        }
      }

      async function show() {
        const panel = tracker.currentWidget;
        await panel?.context.ready;
        const cells = [...(panel?.content.model?.cells ?? [])];
        const total = cells.filter(({ id }) => id.endsWith(CHECK)).length;
        const path = panel?.context.path ?? "";
        const text = total ? `Lesson ${coreutils.PathExt.basename(path).slice(0, 2)} · ` +
          `${await done(path)} of ${total}` : "";
        if (panel === tracker.currentWidget) {
          badge.textContent = text;
          badge.style.display = text ? "" : "none";
        }
      }

      statusBar.registerStatusItem("tensorflow-course:progress", { item: widget, align: "middle" });
      tracker.currentChanged.connect(show);
      notebook.NotebookActions.executed.connect((_, { cell }) => {
        if (cell.model.id.endsWith(CHECK)) show();
      });
      show();
    },
  };
}
