// Plays a session URL with hls.js or dash.js and keeps what was shown: for each frame its media time, the number in its
// squares and the wall clock. The test reads `report`.
"use strict";

const ACROSS = 8, DOWN = 3;
const video = document.getElementById("video");
const report = { frames: [], stalls: 0, errors: [], fatal: null, ended: false, live: null, longestPause: 0 };

// How long this page was kept from running at worst, in milliseconds: a page that is starved shows pictures late and stalls,
// whatever the server does.
let ticked = performance.now();
setInterval(() => {
  const now = performance.now();
  report.longestPause = Math.max(report.longestPause, now - ticked - 20);
  ticked = now;
}, 20);

// The number that the camera drew into the picture.
function numberIn(context) {
  const square = video.videoWidth / ACROSS;
  context.drawImage(video, 0, 0);
  let number = 0;
  for (let bit = 0; bit < ACROSS * DOWN; bit++) {
    const x = Math.floor(((bit % ACROSS) + 0.5) * square);
    const y = Math.floor((Math.floor(bit / ACROSS) + 0.5) * square);
    number = number * 2 + (context.getImageData(x, y, 1, 1).data[1] > 127 ? 1 : 0);
  }
  return number;
}

function watch() {
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", { willReadFrequently: true });
  let started = false;
  const shown = (_now, meta) => {
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    report.frames.push({
      time: meta.mediaTime, presented: meta.presentedFrames, number: numberIn(context), clock: Date.now(),
      width: video.videoWidth,
    });
    started = true;
    video.requestVideoFrameCallback(shown);
  };
  video.requestVideoFrameCallback(shown);
  video.addEventListener("waiting", () => { if (started && !video.seeking && !video.ended) report.stalls++; });
  video.addEventListener("ended", () => { report.ended = true; });
  video.addEventListener("error", () => { report.fatal = `video: ${video.error && video.error.message}`; });
}

function script(source) {
  return new Promise((resolve, reject) => {
    const element = document.createElement("script");
    element.src = source;
    element.onload = resolve;
    element.onerror = () => reject(new Error(`${source} does not load`));
    document.head.append(element);
  });
}

async function playHls(url, options) {
  await script("node_modules/hls.js/dist/hls.min.js");
  const hls = new Hls(options);
  window.player = hls;
  hls.on(Hls.Events.ERROR, (_event, data) => {
    report.errors.push(`${data.type} ${data.details} ${data.reason || (data.error && data.error.message) || ""}`);
    if (data.fatal) report.fatal = data.details;
  });
  hls.on(Hls.Events.LEVEL_UPDATED, (_event, data) => { report.live = data.details.live; });
  hls.loadSource(url);
  hls.attachMedia(video);
  await new Promise((resolve) => hls.once(Hls.Events.MANIFEST_PARSED, resolve));
  await video.play();
}

async function playDash(url, options) {
  await script("node_modules/dashjs/dist/modern/umd/dash.all.min.js");
  const player = dashjs.MediaPlayer().create();
  window.player = player;
  player.updateSettings(options);
  player.on(dashjs.MediaPlayer.events.ERROR, (event) => {
    report.errors.push(event.error && event.error.message);
    report.fatal = event.error && event.error.message;
  });
  player.initialize(video, url, true);
}

window.start = (kind, url, options) => {
  watch();
  const play = kind === "dash" ? playDash : playHls;
  play(url, options || {}).catch((error) => { report.fatal = String(error); });
};
window.report = report;
