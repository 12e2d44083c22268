// The page: hands requests on to its worker, where the model is. Threads of wasm wait for one another there; in the page
// itself one of them would spin, on a core that the others may need.

const worker = new Worker("page_worker.mjs", { type: "module" });

window.ask = (name, request) =>
  new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => ("error" in data ? reject(new Error(data.error)) : resolve(data.reply));
    worker.onerror = ({ message }) => reject(new Error(message));
    worker.postMessage({ name, request });
  });
