"use strict";
(() => {
  // A scene of solids, painted back to front: a camera about a point, faces in one light.
  const rings = (profile, sides) => {
    // Faces of what turns about z: rings of points at [radius, height], pole to pole.
    const at = (r, z, k) => [r * Math.cos((2 * Math.PI * k) / sides), r * Math.sin((2 * Math.PI * k) / sides), z];
    const faces = [];
    for (let i = 0; i + 1 < profile.length; i++) {
      const [[r0, z0], [r1, z1]] = [profile[i], profile[i + 1]];
      for (let k = 0; k < sides; k++) {
        const face = [at(r0, z0, k), at(r0, z0, k + 1)];
        if (r0 === 0) face.pop();
        face.push(at(r1, z1, k + 1));
        if (r1 > 0) face.push(at(r1, z1, k));
        faces.push(face);
      }
    }
    return faces;
  };
  const arc = (from, to, n) => Array.from({ length: n + 1 }, (_, i) => {
    const angle = from + ((to - from) * i) / n;
    return [Math.abs(Math.cos(angle)) < 1e-9 ? 0 : Math.cos(angle), Math.sin(angle)];
  });
  const facesOf = (form, [x, y, z]) => {
    const half = Math.PI / 2;
    switch (form) {
      case "ellipsoid":
        return rings(arc(-half, half, 8), 12).map((face) => face.map(([a, b, c]) => [a * x, b * y, c * z]));
      case "capsule": {
        const end = (angles, shift) => angles.map(([r, h]) => [r * x, h * x + shift]);
        return rings([...end(arc(-half, 0, 3), -z), ...end(arc(0, half, 3), z)], 10);
      }
      case "cylinder":
        return rings([[0, -z], [x, -z], [x, z], [0, z]], 14);
      case "plane": {
        const faces = [];
        for (let i = -5; i < 5; i++) {
          for (let j = -5; j < 5; j++) {
            const corner = (a, b) => [((i + a) * x) / 5, ((j + b) * y) / 5, 0];
            faces.push([corner(0, 0), corner(1, 0), corner(1, 1), corner(0, 1)]);
          }
        }
        return faces;
      }
      default: {
        const faces = [];
        for (let axis = 0; axis < 3; axis++) {
          for (const side of [-1, 1]) {
            const corner = (a, b) => {
              const point = [];
              point[axis] = side;
              point[(axis + 1) % 3] = a;
              point[(axis + 2) % 3] = b * side;
              return [point[0] * x, point[1] * y, point[2] * z];
            };
            faces.push([corner(-1, -1), corner(1, -1), corner(1, 1), corner(-1, 1)]);
          }
        }
        return faces;
      }
    }
  };
  const minus = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  const unit = (a) => {
    const length = Math.sqrt(dot(a, a)) || 1;
    return a.map((v) => v / length);
  };
  const sceneOf = (scene, canvas, changed) => {
    const solids = scene.solids.map(([form, size, colour, place]) => {
      const shapes = facesOf(form, size);
      return { shapes, colour, place, flat: form === "plane" };
    });
    let { azimuth, elevation, distance } = scene;
    const turn = (da, de) => {
      azimuth += da;
      elevation = Math.max(-89, Math.min(89, elevation + de));
      canvas.dataset.azimuth = azimuth.toFixed(1);
      changed();
    };
    const closer = (factor) => {
      distance = Math.max(scene.distance / 20, Math.min(scene.distance * 20, distance * factor));
      changed();
    };
    let held = null;
    canvas.addEventListener("pointerdown", (event) => {
      held = [event.clientX, event.clientY];
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!held) return;
      turn((held[0] - event.clientX) * 0.4, (held[1] - event.clientY) * 0.4);
      held = [event.clientX, event.clientY];
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => (held = null));
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      closer(Math.exp(event.deltaY * 1e-3));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const turns = { ArrowLeft: [5, 0], ArrowRight: [-5, 0], ArrowUp: [0, -5], ArrowDown: [0, 5] }[event.key];
      const near = { "+": 0.9, "-": 1 / 0.9 }[event.key];
      if (turns) turn(...turns);
      if (near) closer(near);
      if (turns || near) event.preventDefault();
    });
    return (moment) => {
      const ratio = window.devicePixelRatio || 1;
      const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.round(side * ratio));
      if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
      const frame = Math.min(moment, scene.places.length - 1);
      scene.moving.forEach((solid, i) => (solids[solid].place = scene.places[frame][i]));
      const [a, e] = [azimuth, elevation].map((degrees) => (degrees * Math.PI) / 180);
      const forward = [Math.cos(e) * Math.cos(a), Math.cos(e) * Math.sin(a), Math.sin(e)];
      const right = [Math.sin(a), -Math.cos(a), 0];
      const up = cross(right, forward);
      const eye = scene.lookat[frame].map((v, i) => v - distance * forward[i]);
      const light = unit([0.3 * right[0] - forward[0], 0.3 * right[1] - forward[1], 1.2 - forward[2]]);
      const zoom = height / (2 * Math.tan(Math.PI / 8));
      const painted = [];
      for (const { shapes, colour, place, flat } of solids) {
        const toWorld = (p) => [0, 1, 2].map((r) => place[r] + dot(place.slice(3 + 3 * r, 6 + 3 * r), p));
        for (const shape of shapes) {
          const face = shape.map(toWorld);
          const normal = unit(cross(minus(face[1], face[0]), minus(face[face.length - 1], face[0])));
          const towards = dot(normal, minus(eye, face[0]));
          if (towards <= 0 && !flat) continue;
          let depth = 0;
          const points = [];
          for (const corner of face) {
            const seen = minus(corner, eye);
            const z = dot(seen, forward);
            if (z < 1e-3 * distance) break;
            depth += z / face.length;
            points.push([width / 2 + (zoom * dot(seen, right)) / z, height / 2 - (zoom * dot(seen, up)) / z]);
          }
          if (points.length < face.length) continue;
          const shade = 0.45 + 0.55 * Math.max(0, towards < 0 ? -dot(normal, light) : dot(normal, light));
          // What lies flat is painted before what stands on it.
          painted.push([flat ? depth + 1e3 * distance : depth, points, colour, shade]);
        }
      }
      painted.sort((one, other) => other[0] - one[0]);
      const pen = canvas.getContext("2d");
      pen.clearRect(0, 0, width, height);
      pen.lineJoin = "round";
      pen.lineWidth = 0.75 * ratio;
      for (const [, points, [r, g, b, opacity], shade] of painted) {
        const tone = [r, g, b].map((v) => Math.round(255 * Math.min(1, v * shade)));
        pen.fillStyle = pen.strokeStyle = `rgba(${tone.join(",")},${opacity})`;
        pen.beginPath();
        points.forEach((point, i) => (i ? pen.lineTo(...point) : pen.moveTo(...point)));
        pen.closePath();
        pen.fill();
        // Hides the gaps between faces.
        if (opacity === 1) pen.stroke();
      }
    };
  };

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

    const space = episode.scene && sceneOf(episode.scene, canvas, () => show());
    const draw = (frame) => {
      if (space) {
        space(Math.floor((frame * (episode.scene.places.length - 1)) / steps + 1e-6));
        return;
      }
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
