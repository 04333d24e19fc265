// A browser refuses a Worker to a page that was opened as a file. There the search works in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(address) {
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      inside.postMessage = (data) => setTimeout(() => this.onmessage && this.onmessage({ data: structuredClone(data) }));
      const script = inside.document.createElement("script");
      this.ready = new Promise((resolve) => { script.onload = resolve; });
      script.src = new URL(address, document.baseURI).href;
      inside.document.head.append(script);
    }

    async postMessage(data) {
      await this.ready;
      this.frame.contentWindow.onmessage({ data: structuredClone(data) });
    }

    terminate() { this.frame.remove(); }
  };
}
