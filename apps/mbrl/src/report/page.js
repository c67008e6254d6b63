"use strict";
(() => {
  // What a chart tells under the pointer.
  for (const svg of document.querySelectorAll("svg[data-hover]")) {
    const places = JSON.parse(svg.dataset.hover);
    const [top, bottom] = svg.dataset.plot.split(" ");
    const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
    line.setAttribute("class", "pointer");
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;
    svg.after(tip);
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const scale = svg.viewBox.baseVal.width / box.width;
      const x = (event.clientX - box.left) * scale;
      const nearest = places.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
      line.setAttribute("d", `M${nearest[0]} ${top}V${bottom}`);
      svg.append(line);
      tip.textContent = nearest[1];
      tip.hidden = false;
      const frame = tip.offsetParent.getBoundingClientRect();
      const right = nearest[0] / scale + 12;
      const left = right + tip.offsetWidth < box.width ? right : Math.max(0, right - tip.offsetWidth - 24);
      tip.style.left = `${box.left - frame.left + left}px`;
      tip.style.top = `${box.top - frame.top + top / scale}px`;
    });
    svg.addEventListener("pointerleave", () => {
      line.remove();
      tip.hidden = true;
    });
  }

  // Episodes that play.
  for (const player of document.querySelectorAll(".player")) {
    const episode = JSON.parse(document.getElementById(player.dataset.source).textContent);
    const [button, range, speed, output] = ["button", "input", "select", "output"].map((tag) => player.querySelector(tag));
    const canvas = player.querySelector("canvas");
    const image = player.querySelector("img");
    const cursors = [...player.querySelectorAll(".cursor")];
    const steps = episode.returns.length;
    const pause = 1; // at the end (s)
    let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    let time = 0;
    let before = null;

    const draw = (frame) => {
      const style = getComputedStyle(player);
      const colours = { body: "--c0", goal: "--c2", obstacle: "--c7", ground: "--muted" };
      const ratio = window.devicePixelRatio || 1;
      const [x0, y0, x1, y1] = episode.view;
      const width = Math.round(canvas.clientWidth * ratio);
      const height = Math.round(canvas.clientHeight * ratio);
      if (canvas.width !== width || canvas.height !== height) {
        canvas.width = width;
        canvas.height = height;
      }
      const scale = Math.min(width / (x1 - x0), height / (y1 - y0));
      const at = ([x, y]) => [width / 2 + (x - (x0 + x1) / 2) * scale, height / 2 - (y - (y0 + y1) / 2) * scale];
      const pen = canvas.getContext("2d");
      pen.clearRect(0, 0, width, height);
      pen.lineCap = pen.lineJoin = "round";
      for (const [kind, role, points, size] of episode.frames[frame]) {
        pen.fillStyle = pen.strokeStyle = style.getPropertyValue(colours[role]);
        pen.beginPath();
        if (kind === "disc") {
          pen.arc(...at(points[0]), Math.max(size * scale, ratio), 0, 2 * Math.PI);
        } else {
          points.forEach((point, i) => (i ? pen.lineTo(...at(point)) : pen.moveTo(...at(point))));
        }
        if (kind === "line") {
          pen.lineWidth = Math.max(size * scale, 1.5 * ratio);
          pen.stroke();
        } else {
          pen.fill();
        }
      }
    };
    const show = () => {
      const frame = Math.min(steps, Math.floor(time / episode.dt + 1e-6));
      player.dataset.frame = frame;
      range.value = frame;
      const paid = frame > 0 ? episode.returns[frame - 1] : 0;
      output.textContent = `${(frame * episode.dt).toFixed(2)} s, return so far ${paid.toFixed(2).replace("-", "\u2212")}`;
      button.textContent = playing ? "Pause" : "Play";
      for (const cursor of cursors) {
        const [from, to] = [Number(cursor.dataset.from), Number(cursor.dataset.to)];
        cursor.setAttribute("transform", `translate(${from + ((to - from) * frame) / steps} 0)`);
      }
      if (canvas) draw(frame);
      if (image) image.src = episode.pictures[Math.floor((frame * (episode.pictures.length - 1)) / steps)];
    };
    const tick = (now) => {
      if (playing) {
        if (before !== null) time += Math.min(now - before, 100) * 1e-3 * Number(speed.value);
        if (time > steps * episode.dt + pause * Number(speed.value)) time = 0;
        show();
      }
      before = now;
      requestAnimationFrame(tick);
    };
    button.addEventListener("click", () => {
      playing = !playing;
      show();
    });
    range.addEventListener("input", () => {
      playing = false;
      time = Number(range.value) * episode.dt;
      show();
    });
    addEventListener("resize", show);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
    show();
    requestAnimationFrame(tick);
  }
})();
