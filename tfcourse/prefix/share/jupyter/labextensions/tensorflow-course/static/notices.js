// Notices about the learner's server: one for each message that jupyter_server_config.py puts into
// the page. A notice stays until the learner closes it.

const READ = "tensorflow-course:read-notice";
const LONGEST = 140; // characters; JupyterLab cuts off the rest

// `apputils` is a function that returns JupyterLab's module of that name, which provides dialogs.
export function extension(apputils) {
  return {
    id: "tensorflow-course:notices",
    description: "Shows notices about the learner's server.",
    autoStart: true,
    async activate({ commands, restored }) {
      const { courseNotices = [] } =
        JSON.parse(document.getElementById("jupyter-config-data").textContent);
      if (!courseNotices.length) return;
      commands.addCommand(READ, {
        label: "Read a Notice",
        async execute({ message }) {
          const { Dialog, showDialog } = await apputils();
          const buttons = [Dialog.okButton({ label: "Close" })];
          await showDialog({ title: "About your server", body: message, buttons });
        },
      });
      restored.then(() => courseNotices.forEach((message) => {
        const whole = { label: "Read all", commandId: READ, args: { message } };
        const actions = message.length > LONGEST ? [whole] : [];
        const options = { autoClose: false, actions };
        commands.execute("apputils:notify", { message, type: "warning", options });
      }));
    },
  };
}
