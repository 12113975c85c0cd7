// Loads htmx from its CDN, or from this server when the CDN does not answer in time or when the
// installation asks for local files. Then loads its extension for server-sent events.
(() => {
  "use strict";
  const { cdn, integrity, local, extension, patience } = document.currentScript.dataset;

  function append(source, attributes = {}) {
    return new Promise((resolve, reject) => {
      const script = Object.assign(document.createElement("script"), { src: source, ...attributes });
      script.onload = () => resolve();
      script.onerror = () => reject(new Error(`${source} could not be loaded`));
      document.head.append(script);
      if (attributes.integrity) setTimeout(() => giveUp(script, reject), Number(patience));
    });
  }

  function giveUp(script, reject) {
    if (window.htmx) return;
    // A script that moved to another document is not run when it arrives late (HTML standard,
    // "execute the script element", step 2): htmx must not start twice.
    document.implementation.createHTMLDocument("").head.append(script);
    reject(new Error(`${script.src} did not arrive in ${patience} ms`));
  }

  async function load() {
    let source = "local";
    if (cdn) {
      try {
        await append(cdn, { integrity, crossOrigin: "anonymous" });
        source = "cdn";
      } catch {
        await append(local);
      }
    } else {
      await append(local);
    }
    await append(extension);
    // htmx may have looked at the page before the extension was there.
    window.htmx.process(document.body);
    document.documentElement.dataset.htmx = source;
  }

  load();
})();
