// This extension shows a notice for each message that jupyter_server_config.py adds to the page about
// the learner's server. A notice stays open until the learner closes it.

const READ = "tensorflow-course:read-notice";
const LONGEST = 140; // characters; JupyterLab cuts off the rest

// The parameter holds JupyterLab's own modules.
export function extension({ apputils }) {
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
          const { Dialog, showDialog } = apputils;
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
