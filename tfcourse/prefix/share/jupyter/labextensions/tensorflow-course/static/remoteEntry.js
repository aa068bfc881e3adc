// This JupyterLab extension makes a lesson's stored widgets (drawing pads and animations)
// interactive as soon as the lesson is opened, before any cell is run. The extension uses the
// scripts from notebooks/interactive, which are installed beside this file. From a notebook, the
// extension reads only data, which it never runs as code.
//
// The extension also shows notices about the learner's server, for example if the lessons are not
// up to date (see notices.js), and helps with exercises (see exercises.js).
//
// JupyterLab expects an extension to be a module container: `init` receives JupyterLab's shared
// modules, and `get` returns the extension's modules.
(() => {
  const NAME = "tensorflow-course";
  const here = new URL(".", document.currentScript.src);
  const NOTE = "This network was stored with the notebook. Run the cell to draw for your own network.";
  let shared;

  // On a hub, a learner's server sends a module only if the request contains the page's XSRF token.
  // JupyterLab adds the token to its own requests.
  function load(file) {
    const url = new URL(file, here);
    const [, token] = document.cookie.match(/(?:^|; )_xsrf=([^;]*)/) ?? [];
    if (token) url.searchParams.set("_xsrf", decodeURIComponent(token));
    return import(url.href);
  }

  async function jupyterlab(module) {
    const versions = Object.values(shared[module]);
    return (await versions[0].get())();
  }

  async function kinds() {
    const [offline, pad, film] = await Promise.all(["offline.js", "pad.js", "film.js"].map(load));
    return {
      pad: (content, el) => pad.default.render({ model: offline.padModel(content, NOTE), el }),
      film: (content, el) => film.default.render({ model: offline.filmModel(content), el }),
    };
  }

  function addStyle() {
    if (document.getElementById(NAME)) return;
    const link = document.createElement("link");
    Object.assign(link, { id: NAME, rel: "stylesheet", href: new URL("interactive.css", here).href });
    document.head.append(link);
  }

  async function plugins() {
    const files = ["notices.js", "exercises.js"].map(load);
    const modules = {
      apputils: "@jupyterlab/apputils",
      coreutils: "@jupyterlab/coreutils",
      notebook: "@jupyterlab/notebook",
      services: "@jupyterlab/services",
      statusbar: "@jupyterlab/statusbar",
      widgets: "@lumino/widgets",
    };
    for (const [name, module] of Object.entries(modules)) modules[name] = await jupyterlab(module);
    return (await Promise.all(files)).map(({ extension }) => extension(modules));
  }

  async function mimeExtension() {
    const { Widget } = await jupyterlab("@lumino/widgets");

    class Live extends Widget {
      constructor(kind) {
        super();
        this.kind = kind;
      }

      async renderModel(model) {
        addStyle();
        const render = (await kinds())[this.kind];
        this.end?.();
        this.node.replaceChildren();
        this.end = render(model.data[mime(this.kind)], this.node);
      }

      dispose() {
        this.end?.();
        super.dispose();
      }
    }

    const mime = (kind) => `application/vnd.tensorflow-course.${kind}+json`;
    return ["pad", "film"].map((kind) => ({
      id: `${NAME}:${kind}`,
      dataType: "json",
      rank: 10, // after a live widget, before HTML and pictures
      rendererFactory: {
        safe: true,
        mimeTypes: [mime(kind)],
        createRenderer: () => new Live(kind),
      },
    }));
  }

  (window._JUPYTERLAB ??= {})[NAME] = {
    init: (scope) => { shared = scope; },
    get: async (name) => {
      const extensions = name === "./extension" ? await plugins() : await mimeExtension();
      return () => ({ __esModule: true, default: extensions });
    },
  };
})();
