// Search in pages that are opened from a folder: browsers start no worker from a disk, so a hidden frame of this page
// runs its script. Served pages keep the browser's own workers.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      const inside = frame.contentWindow
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.inside = new Promise(started => {
        const script = frame.contentDocument.createElement("script")
        script.src = new URL(address, location)
        script.onload = () => started(inside)
        frame.contentDocument.body.append(script)
      })
    }

    postMessage(data) {
      this.inside.then(inside => inside.dispatchEvent(new MessageEvent("message", { data })))
    }
  }
}
