// One deployment: its lanes through its stages, what happens now, why it failed, and the buttons.
import {get, now, post, Stream, text} from "./api.js";
import {ask} from "./dialog.js";
import {eachFrame, h, morph, say} from "./dom.js";
import {clock, duration, when} from "./format.js";
import {badge, change, did, empty, logBox, markOf} from "./parts.js";
import {Run, stateOf} from "./run_model.js";
import {known, stageName, t} from "./text.js";

const LANES = 40;
const strategies = new Set(["blue-green", "rolling", "canary", "recreate"]); // any other name is a flow's
const standing = new Set(["undoing", "observing", "planning", "rolling_back", "closing"]);

// A flow calls its tasks by names of its own: "L4TurnOff · Switch".
function taskName(task) {
  const what = known(`task.${task.kind}`, task.kind);
  return task.step && task.step !== task.kind ? `${task.step} · ${what}` : what;
}

export function run({root, title, app, args: [id]}) {
  const path = `/v1/deployments/${id}`;
  let model = null, error = null, stream = null, picked = null, log = null, allLanes = false, closed = false;
  let asked = 0, told = "", toNow = false;
  title(t("run.title", {id}));

  // ---- buttons

  /** What the run goes back to, in words. */
  function before() {
    const d = model.d;
    return d.old_version ? t("before.release", {service: d.service, version: d.old_version, id: d.old_release}) : t("before.nothing");
  }

  /** The first tasks of the stage after the one that a task is in. */
  function nextWords(task) {
    const stages = model.plans[task.plan]?.stages || [];
    const next = stages[stages.findIndex((s) => s.lanes.some((l) => l.tasks.includes(task))) + 1];
    return next ? next.lanes.slice(0, 3).map((l) => l.tasks[0].words).join("; ") : "";
  }

  function operations() {
    const p = model.phase, baking = p === "running" && model.running.some((x) => x.kind === "Bake");
    const approving = model.running.find((x) => x.kind === "Approve");
    const after = {next: model.running.map((x) => x.words).join("; "), before: before(), service: model.d.service,
      version: model.d.version || ""};
    return [
      approving && {op: "approve", words: t("op.approve.words", {next: nextWords(approving)}), primary: true},
      approving && {op: "reject", words: t("op.reject.words", after), danger: true},
      baking && {op: "promote", words: t("op.promote.words", after), primary: true},
      (p === "running" || standing.has(p)) && {op: "pause", words: t("op.pause.words", after)},
      (p === "paused" || p === "parked") && {op: "resume", words: t(p === "parked" ? "op.retry.words" : "op.resume.words", after),
        label: p === "parked" ? t("op.retry") : t("op.resume"), primary: true},
      p === "parked" && {op: "rollback", words: t("op.rollback.words", after), danger: true},
      p === "parked" && {op: "abort", label: t("op.leave"), words: t("op.leave.words", after), danger: true},
      ["running", "paused"].includes(p) && {op: "abort", words: t("op.abort.words", after), danger: true},
    ].filter(Boolean);
  }

  async function operate(o) {
    await ask({title: `${o.label || t(`op.${o.op}`)}: ${t("run.name", {id, service: model.d.service})}`, words: [o.words],
      yes: o.label || t(`op.${o.op}`), danger: o.danger, why: true, act: ({why}) => post(`${path}/${o.op}`, {why}).then(() => true)});
  }

  // ---- the flow

  function station(task) {
    const [sign, tone] = markOf(task.state);
    const unreached = model.phase === "ended" && task.state === "waiting";
    const took = task.begun ? duration((task.ended ? Date.parse(task.ended) : now()) - Date.parse(task.begun)) : "";
    const state = unreached ? t("state.unreached") : known(`state.${task.state}`, task.state);
    return h("li", {class: `station ${unreached ? "idle" : tone} ${task.state}`, "data-key": `t-${task.id}`},
      h("button", {class: "stop", "aria-pressed": picked === task.id ? "true" : "false", onclick: () => pick(task.id),
        title: task.words, "aria-label": `${taskName(task)}, ${state}${took ? `, ${took}` : ""}`},
      h("span", {class: "dot", "aria-hidden": "true"}, sign),
      h("span", {class: "what"}, task.step && h("span", {class: "step"}, task.step), known(`task.${task.kind}`, task.kind)),
      h("span", {class: "took"}, took || (unreached || task.state === "skipped" ? state : ""))));
  }

  function flow(plan, index) {
    const rows = new Map(); // a host's line: stage → its lanes
    plan.stages.forEach((stage, at) => stage.lanes.forEach((lane) => {
      const host = lane.name.split("/")[0];
      if (!rows.has(host)) rows.set(host, plan.stages.map(() => []));
      rows.get(host)[at].push(lane);
    }));
    let list = [...rows];
    const all = list.length;
    if (all > LANES && !allLanes) { // the lines where something happens first
      const heat = ([, cells]) => cells.flat().flatMap((l) => l.tasks).reduce((n, x) => Math.max(n,
        {failed: 3, undo_failed: 3, unknown: 3, running: 2, undoing: 2, undone: 1}[x.state] || 0), 0);
      list = list.sort((a, b) => heat(b) - heat(a)).slice(0, LANES);
    }
    const doing = (stage) => stage.lanes.some((l) => l.tasks.some((x) => x.state === "running" || x.state === "undoing"));
    return h("section", {class: "flow", "data-key": `plan-${index}`},
      model.plans.length > 1 && h("h2", {}, known(`purpose.${plan.purpose}`, plan.purpose)),
      h("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": t("run.flow")}, h("table", {class: "lanes"},
        h("thead", {}, h("tr", {}, h("td", {}), plan.stages.map((s) => h("th", {scope: "col", title: s.why || "",
          class: doing(s) ? "doing" : ""}, stageName(s.name))))),
        h("tbody", {}, list.map(([host, cells]) => h("tr", {"data-key": `h-${host}`}, h("th", {scope: "row"}, host),
          cells.map((lanes, at) => h("td", {class: lanes.length ? "cell" : "cell through", "data-label": stageName(plan.stages[at].name)},
            lanes.map((lane) => h("div", {class: "lane"},
              h("span", {class: "lane-name"}, lane.label),
              h("ol", {class: "line"}, lane.tasks.map(station))))))))))),
      all > list.length && h("button", {onclick: () => {
        allLanes = true;
        draw();
      }}, t("more.lanes", {n: all - list.length})));
  }

  // ---- one task

  async function pick(taskId) {
    picked = picked === taskId ? null : taskId;
    log = null;
    draw();
    if (picked) await readLog();
  }

  async function readLog() {
    const of = picked;
    const words = await text(`${path}/log?task=${of}`).catch((e) => e.message || t("error.away"));
    if (picked !== of) return;
    log = words;
    draw();
  }

  function details() {
    const task = model.tasks.get(picked);
    if (!task) return null;
    const rows = [["what", task.words], ["where", task.instance || task.host], ["state", badge(task.state)],
      ["attempt", task.attempt > 1 ? String(task.attempt) : ""],
      ["time", task.begun ? `${clock(task.begun)}${task.ended ? ` – ${clock(task.ended)} (${duration(Date.parse(task.ended) - Date.parse(task.begun))})` : ""}` : ""],
      ["why", task.why], ["answer", task.did], ["undo", task.undo], ["retry", task.retry]].filter(([, v]) => v);
    return h("section", {class: "card task", "data-key": "task", "aria-labelledby": "task-title"},
      h("div", {class: "title"}, h("h2", {id: "task-title"}, taskName(task)),
        h("button", {class: "quiet", onclick: () => pick(picked)}, t("close"))),
      h("dl", {class: "facts"}, rows.map(([k, v]) => [h("dt", {}, t(`task-row.${k}`)), h("dd", {}, v)])),
      task.tries.length > 0 && !task.ended && h("div", {}, h("h3", {}, t("run.tries")),
        h("pre", {class: "log small", tabindex: "0", role: "region", "aria-label": t("run.tries")}, task.tries.slice(-12).join("\n"))),
      h("h3", {}, t("run.log")),
      task.state === "waiting" ? h("p", {class: "muted"}, t("log.none"))
        : log === null ? h("p", {class: "muted"}, t("loading"))
          : log ? logBox(log, t("run.log")) : h("p", {class: "muted"}, t(task.ended ? "log.empty" : "log.later")));
  }

  // ---- what happens, and why it failed

  function happening() {
    if (model.phase === "ended") return null;
    const busy = model.running, silent = [...model.agents].filter(([, back]) => !back).map(([host]) => host);
    return h("div", {class: `banner ${model.phase === "parked" ? "bad" : model.phase === "paused" ? "warn" : "busy"}`, "data-key": "now"},
      h("h2", {class: "only-said"}, t("run.now")),
      model.phase === "paused" && h("p", {}, t("run.paused")),
      model.phase === "parked" && h("p", {}, h("strong", {}, t("run.parked")), " ", model.reason),
      busy.slice(0, 4).map((x) => h("p", {"data-key": `b-${x.id}`}, h("span", {class: "turn", "aria-hidden": "true"}),
        h("strong", {}, taskName(x)), ` ${x.instance || x.host || ""} `,
        h("span", {class: "muted"}, x.progress || x.words))),
      busy.length > 4 && h("p", {class: "muted"}, t("more.tasks", {n: busy.length - 4})),
      silent.length > 0 && h("p", {}, t("run.silent", {hosts: silent.slice(0, 5).join(", ")})),
      !busy.length && model.phase !== "parked" && model.phase !== "paused" && h("p", {}, known(`state.${model.phase}`, model.phase)));
  }

  function doneWords() {
    const d = model.d;
    return t(known(`end.done.${d.purpose}`, "") ? `end.done.${d.purpose}` : "end.done",
      {service: d.service, version: d.version || "", flow: d.strategy});
  }

  function outcome() {
    const state = stateOf(model.d);
    if (model.phase !== "ended" && model.phase !== "parked") return null;
    if (model.phase === "ended" && state === "done")
      return h("div", {class: "banner good", "data-key": "end"}, h("p", {}, h("strong", {}, doneWords())),
        model.reason && h("p", {}, model.reason));
    return model.phase === "ended" && h("div", {"data-key": "end", class: `banner ${state === "halted" || state === "parked" ? "bad" : "warn"}`},
      h("p", {}, h("strong", {}, known(`end.${state}`, state))), h("p", {id: "reason"}, model.reason));
  }

  /** What the instances wrote last, of a run that failed. */
  function tails() {
    return Object.entries(model.end?.log_tail || {}).filter(([, lines]) => lines.length).slice(0, 8).map(([where, lines]) =>
      h("section", {class: "card tail", "data-key": `tail-${where}`}, h("h2", {}, t("run.tail", {where})),
        logBox(lines.join("\n"), t("run.tail", {where}))));
  }

  function journal() {
    return h("details", {class: "journal", "data-key": "journal"}, h("summary", {}, t("run.journal", {n: model.lines.length + model.left})),
      model.left > 0 && h("p", {class: "muted"}, t("log.left", {n: model.left})),
      h("ol", {}, model.lines.map((l) => h("li", {"data-key": `l-${l.key}`, class: l.mark},
        h("time", {datetime: l.at}, clock(l.at)), h("span", {class: "where"}, l.where), h("span", {}, l.words)))));
  }

  function facts() {
    const d = model.d, ended = d.ended_at ? Date.parse(d.ended_at) : now();
    return h("dl", {class: "facts line", "data-key": "facts"},
      h("dt", {}, t(strategies.has(d.strategy) ? "run.strategy" : "run.template")), h("dd", {}, d.strategy),
      h("dt", {}, t("run.by")), h("dd", {}, d.by?.name || "–", d.by?.commit ? ` · ${d.by.commit.slice(0, 12)}` : ""),
      d.by?.build_url && [h("dt", {}, t("run.build")), h("dd", {}, /^https?:\/\//.test(d.by.build_url)
        ? h("a", {href: d.by.build_url, rel: "noreferrer noopener"}, d.by.build_url) : d.by.build_url)],
      h("dt", {}, t("run.started")), h("dd", {}, when(d.started_at)),
      h("dt", {}, t("run.elapsed")), h("dd", {id: "elapsed"}, duration(ended - Date.parse(d.started_at))));
  }

  const draw = eachFrame(() => {
    if (closed) return;
    if (!model) {
      morph(root, [h("h1", {}, t("run.title", {id})), h("p", {class: error ? "banner bad" : "muted"}, error || t("loading"))]);
      return;
    }
    const d = model.d, state = stateOf({...d, phase: model.phase});
    title(`${markOf(state)[0]} ${d.service} ${d.version || ""} ${known(`state.${state}`, state)}`);
    if (told !== state + model.stageNow) {
      told = state + model.stageNow;
      toNow = true;
      say(`${d.service} ${d.version || ""}: ${model.phase === "running" ? stageName(model.stageNow || "") : known(`state.${state}`, state)}`);
    }
    const may = app.may("deployer"), ops = model.phase === "ended" ? [] : operations();
    morph(root, [
      h("div", {class: "title"},
        h("div", {}, h("p", {class: "crumb"}, h("a", {href: `#/services/${encodeURIComponent(d.service)}`}, d.service), ` · ${t("run.title", {id})}`),
          h("h1", {}, `${d.service} ${d.purpose === "flow" ? did(d) : change(d)} `, badge(state))),
        h("div", {class: "buttons", id: "operations"}, may && ops.map((o) => h("button", {"data-key": `op-${o.op}`, id: `op-${o.op}`,
          class: o.danger ? "danger" : o.primary ? "primary" : "", onclick: () => operate(o)}, o.label || t(`op.${o.op}`))))),
      facts(),
      ops.length > 0 && !may && h("p", {class: "muted", "data-key": "may"}, t("run.maynot", {role: t(`role.${app.who.role}`)})),
      happening(),
      outcome(),
      model.plans.length ? model.plans.map(flow).reverse() : empty(t("run.noplan"), []),
      details(),
      tails(),
      journal(),
    ]);
    if (toNow) {
      toNow = false;
      showNow();
    }
  });

  /** What happens now comes into view when a stage begins; in between the reader may look elsewhere. */
  function showNow() {
    const station = root.querySelector(".station.busy"), box = station?.closest(".scroll");
    if (!box || box.scrollWidth <= box.clientWidth) return;
    const at = station.getBoundingClientRect().left - box.getBoundingClientRect().left + box.scrollLeft;
    box.scrollLeft = Math.max(0, at - box.clientWidth / 3);
  }

  // ---- data

  async function load() {
    const d = await get(path);
    if (closed) return;
    if (model) model.take(d);
    else model = new Run(d);
    draw();
  }

  function replan() {
    if (Date.now() - asked < 250) return;
    asked = Date.now();
    load().catch(() => {});
  }

  function follow(cursor) {
    stream = new Stream(`${path}/events`, cursor, {
      record(r) {
        model.record(r);
        if (model.wantsPlan) replan();
        if (r.kind === "result" && r.task?.id === picked) readLog();
        draw();
      },
      progress(p) {
        model.progress(p);
        draw();
      },
      end(e) {
        model.over(e);
        load().catch(() => {});
        if (model.phase === "parked") wait(stream.cursor);
        draw();
      },
    });
  }

  // A parked run's stream is over; it goes on when somebody resumes it.
  let waiting = 0;
  function wait(cursor) {
    waiting = setTimeout(async () => {
      const d = await get(path).catch(() => null);
      if (closed) return;
      if (d && (d.end || d.phase !== "parked")) {
        model.end = null;
        model.take(d);
        follow(cursor);
      } else {
        wait(cursor);
      }
      draw();
    }, 1500);
  }

  const tick = setInterval(() => model && model.phase !== "ended" && draw(), 200);
  let begun = false;
  function begin() {
    if (begun) return;
    begun = true;
    load().then(() => closed || follow(0)).catch((e) => {
      begun = false;
      error = e.message || t("error.away");
      draw();
    });
  }
  document.addEventListener("baton-back", begin); // it was opened while the server was away
  draw();
  begin();
  return () => {
    closed = true;
    document.removeEventListener("baton-back", begin);
    clearInterval(tick);
    clearTimeout(waiting);
    stream?.close();
  };
}
