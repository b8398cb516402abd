// A deployment as it is drawn: its plans (stages × lanes × tasks) and, folded into them, the events
// of its journal. Knows nothing of the page.

const LINES = 400, TRIES = 60;

/** What of a lane its host's name does not say: its slot, or the balancer that it is about. */
function laneLabel(plan, lane) {
  const slot = lane.name.split("/").slice(1).join("/");
  const balancer = plan.balancers?.[lane.tasks[0]?.balancer];
  return slot || (balancer ? balancer.name.split("/")[0] : "");
}

/** States: waiting running done failed unknown undoing undone undo_failed skipped. */
export class Run {
  constructor(deployment) {
    this.tasks = new Map();   // id → task
    this.own = [];            // tasks of the engine itself, which no plan has
    this.lines = [];          // what happened, oldest first, the last LINES
    this.left = 0;            // lines that were let go
    this.plansSeen = 0;
    this.stageNow = null;
    this.end = null;          // {end, reason, log_tail} once told
    this.agents = new Map();  // host → false while it is not heard of
    this.take(deployment);
  }

  /** The deployment again, as GET has it: after a rollback plan was made, or after its end. */
  take(d) {
    this.d = d;
    this.phase = d.phase;
    this.reason = d.reason || "";
    const said = new Map(d.tasks.map((x) => [x.id, x]));
    this.plans = (d.plans || []).map((plan, i) => ({
      purpose: plan.purpose,
      stages: plan.stages.map((stage) => ({
        name: stage.name,
        why: stage.why,
        lanes: stage.lanes.map((lane) => ({
          name: lane.name,
          label: laneLabel(plan, lane),
          tasks: lane.tasks.map((task) => this.known(said.get(task.id) || {id: task.id, kind: task.task, step: task.step}, {
            why: task.why, stage: stage.name, lane: lane.name, plan: i, planned: true})),
        })),
      })),
    }));
  }

  known(said, more) {
    let task = this.tasks.get(said.id);
    if (!task) {
      task = {id: said.id, state: "waiting", attempt: 0, tries: [], detail: "", begun: null, ended: null};
      this.tasks.set(said.id, task);
    }
    Object.assign(task, {kind: said.kind || task.kind, step: said.step || task.step, host: said.host || task.host,
      instance: said.instance || task.instance, words: said.words || task.words || said.kind}, more);
    return task;
  }

  /** What a plan may hold that this page has not fetched yet. */
  get wantsPlan() {
    return this.plansSeen > this.plans.length;
  }

  get running() {
    return [...this.tasks.values()].filter((x) => x.state === "running" || x.state === "undoing");
  }

  line(r, where, mark, words) {
    if (!words) return;
    this.lines.push({key: r.cursor, at: r.at, where: where || "", mark, words});
    if (this.lines.length > LINES) this.left += this.lines.splice(0, this.lines.length - LINES).length;
  }

  record(r) {
    const task = r.task?.kind ? this.known(r.task, {}) : r.task ? this.tasks.get(r.task.id) : null;
    if (task && !task.planned && !this.own.includes(task)) {
      this.own.push(task);
      Object.assign(task, {stage: r.stage, lane: r.lane});
    }
    const where = r.lane || task?.instance || task?.host;
    this[`on_${r.kind}`]?.(r, task, where);
  }

  progress(p) {
    const task = p.task && this.tasks.get(p.task.id);
    if (!task || !p.line) return;
    task.tries.push(p.line);
    if (task.tries.length > TRIES) task.tries.shift();
    task.progress = p.line;
  }

  on_plan(r) {
    this.plansSeen++;
    if (r.purpose !== "deploy" || r.text) this.line(r, "", "note", `plan: ${r.purpose}${r.text ? `, ${r.text}` : ""}`);
  }

  on_stage(r) {
    this.stageNow = r.stage;
    this.line(r, "", "stage", r.text ? `${r.stage}: ${r.text}` : r.stage);
  }

  on_sent(r, task, where) {
    if (!task) return;
    const undo = r.verb === "undo";
    Object.assign(task, {state: undo ? "undoing" : "running", attempt: r.attempt, begun: r.at, ended: null,
      progress: "", retry: ""});
    this.line(r, where, "begin", (undo ? "undo: " : "") + task.words + (r.attempt > 1 ? ` (attempt ${r.attempt})` : ""));
  }

  on_result(r, task, where) {
    if (!task) return;
    const undo = r.verb === "undo", good = r.outcome === "done";
    Object.assign(task, {
      state: undo ? (good ? "undone" : "undo_failed") : good ? "done" : r.outcome === "failed" ? "failed" : "unknown",
      ended: r.at, detail: r.detail || "", progress: ""});
    if (undo) task.undo = r.detail || "";
    else task.did = r.detail || "";
    this.line(r, where, good ? "good" : "bad",
      `${undo ? "undo: " : ""}${task.words}: ${good ? "ok" : r.outcome}${r.detail ? `, ${r.detail}` : ""}`);
  }

  on_retry(r, task, where) {
    if (task) task.retry = r.text || "";
    this.line(r, where, "note", r.text);
  }

  on_skipped(r, task) {
    if (task) Object.assign(task, {state: "skipped", ended: r.at, detail: r.text || ""});
  }

  on_lane_failed(r, _task, where) {
    this.reason = this.reason || r.text || "";
    this.line(r, where, "bad", r.text);
  }

  on_lane_undone(r, _task, where) {
    this.line(r, where, "note", r.text);
  }

  on_operator(r) {
    this.line(r, "", "note", r.text || r.op);
  }

  on_agent(r) {
    this.agents.set(r.host, r.back);
    this.line(r, r.host, r.back ? "note" : "bad",
      `the agent of ${r.host} is ${r.back ? "back" : "not heard of"}${r.text ? `: ${r.text}` : ""}`);
  }

  on_phase(r) {
    this.phase = r.phase;
    if (r.text && (r.phase === "parked" || r.phase === "undoing")) this.reason = r.text;
    if (r.phase !== "running" && r.phase !== "ended")
      this.line(r, "", "note", `${r.phase.replace("_", " ")}${r.text ? `: ${r.text}` : ""}`);
  }

  on_end(r) {
    this.phase = "ended";
    this.d = {...this.d, end: r.outcome, ended_at: this.d.ended_at || r.at};
    this.line(r, "", r.outcome === "done" ? "good" : "bad", r.text || r.outcome);
  }

  over(e) {
    this.end = e;
    if (e.reason) this.reason = e.reason;
  }
}

/** One word for a deployment: running done rolled_back refused halted parked, or its phase. */
export function stateOf(d) {
  return d.end || {ended: "done", new: "running"}[d.phase] || d.phase || "running";
}

/** Of every service, the newest few deployments of a list that is newest first. */
export function lastRuns(deployments, count) {
  const out = new Map();
  for (const d of deployments) {
    const list = out.get(d.service) || [];
    if (list.length < count) list.push(d);
    out.set(d.service, list);
  }
  return out;
}
