"use strict";
// Where a page is opened from the disk, a browser starts no worker. The search then runs in a frame of its own.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "search";
      document.body.append(frame);
      const inner = frame.contentWindow;
      inner.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }));
      // Returns what to wait for: the scripts one after another.
      inner.importScripts = (...urls) => urls.reduce((before, next) => before.then(() => new Promise((done, failed) => {
        const script = inner.document.createElement("script");
        script.src = next;
        script.onload = done;
        script.onerror = failed;
        inner.document.body.append(script);
      })), Promise.resolve());
      inner.importScripts(url).then(() => {
        this.send = data => inner.dispatchEvent(new inner.MessageEvent("message", { data }));
        this.waiting.splice(0).forEach(this.send);
      }, () => this.dispatchEvent(new Event("error")));
    }

    postMessage(data) {
      if (this.send) this.send(data); else this.waiting.push(data);
    }

    set onmessage(listener) {
      this.addEventListener("message", listener);
    }
  };
}
