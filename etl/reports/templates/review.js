// The page of suspected label errors: one suspect at a time, answers kept in the browser, given as a file or sent to Airflow.
const element = (id) => document.getElementById(id);
const content = JSON.parse(element("content").textContent);
const shown = content.suspects.filter((suspect) => suspect.picture);
const groupOf = (suspect) => `${suspect.kind}/${suspect.lookalike ?? suspect.suspect_id}`;
const groups = new Map();
for (const suspect of content.suspects) groups.set(groupOf(suspect), [...(groups.get(groupOf(suspect)) || []), suspect]);
const key = `speck-review/${content.dataset}/${content.snapshot}`;
let imported = {}; // in Airflow: the answers that the dataset has, by suspect_id: {answer, new_category}
let answers = {}; // those and the ones given here
let current = 0; // in the list of the chosen kind

const say = (text, failed = false) => {
  element("status").textContent = text;
  element("status").classList.toggle("failed", failed);
};
const isNew = (id) => {
  const [given, known] = [answers[id], imported[id]];
  return !!given && !(known && given.answer === known.answer && given.new_category === known.new_category);
};
const newAnswers = () => Object.fromEntries(Object.entries(answers).filter(([id]) => isNew(id)));
const load = () => {
  answers = { ...imported };
  try {
    Object.assign(answers, JSON.parse(window.localStorage.getItem(key)));
  } catch {
    say("This browser keeps no data for this page: download the answers before you close it.", true);
  }
};
const save = () => {
  try {
    window.localStorage.setItem(key, JSON.stringify(newAnswers()));
  } catch {
    say("This browser keeps no data for this page: download the answers before you close it.", true);
  }
};

const listed = () => shown.filter((suspect) => !element("kind").value || suspect.kind === element("kind").value);
const membersOf = (suspect) => (element("together").checked ? groups.get(groupOf(suspect)) : [suspect]);
const texts = {
  missing: (s) => [`Is there an object without a label?`, "Error: add the box", "Correct: nothing is missing"],
  swapped: (s) => [`Labelled ${s.category}. Is the class wrong?`, "Error: change the class", `Correct: keep ${s.category}`],
  misplaced: (s) => [`Labelled ${s.category}. Does the suggested box fit the object better?`, "Error: take the suggested box", "Correct: keep the label"],
  spurious: (s) => [`Labelled ${s.category}. Is it no such object?`, "Error: remove the label", "Correct: keep the label"],
};

const rectangle = (box, window, name) => {
  const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  const [x0, y0, x1, y1] = box;
  const values = { x: x0 - window[0], y: y0 - window[1], width: x1 - x0, height: y1 - y0, class: name };
  for (const [attribute, value] of Object.entries(values)) rect.setAttribute(attribute, value);
  return rect;
};
const drawBoxes = (suspect) => {
  const svg = element("boxes"), window = suspect.window;
  svg.setAttribute("viewBox", `0 0 ${window[2] - window[0]} ${window[3] - window[1]}`);
  const isMissing = suspect.annotation_id === null;
  const suggested = isMissing ? suspect.box : suspect.suggested_box;
  svg.replaceChildren(
    ...suspect.labels.map(([, box]) => rectangle(box, window, "other")),
    ...(isMissing ? [] : [rectangle(suspect.box, window, "label")]),
    ...(suggested ? [rectangle(suggested, window, "suggested")] : []),
  );
  element("own").hidden = isMissing;
  element("suggestion").hidden = !suggested;
  element("other").hidden = !suspect.labels.length;
};
const needsClass = (suspect) => suspect.kind === "missing" || suspect.kind === "swapped";
const fillCategories = (suspect) => {
  const select = element("category");
  element("change").hidden = !needsClass(suspect);
  element("change-label").textContent = suspect.kind === "missing" ? "Class of the new box" : "Right class";
  const names = content.categories.filter((name) => suspect.kind === "missing" || name !== suspect.category);
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  const given = answers[suspect.suspect_id];
  select.value = (given && given.new_category) || suspect.suggested_category;
};
const percent = (share) => {
  const whole = Math.round(100 * share);
  if (whole === 0 && share > 0) return "< 1 %";
  return whole === 100 && share < 1 ? "> 99 %" : `${whole} %`;
};
const describe = (suspect) => {
  const rows = {
    Kind: suspect.kind,
    "Chance of an error": percent(suspect.chance),
    ...(needsClass(suspect) ? { "Detector sees": suspect.suggested_category } : {}),
    Score: suspect.score.toFixed(2),
    Size: suspect.size,
    Image: suspect.path,
    Split: suspect.split,
    Rank: suspect.rank,
  };
  element("about").replaceChildren(
    ...Object.entries(rows).flatMap(([name, value]) => {
      const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
      [dt.textContent, dd.textContent] = [name, value];
      return [dt, dd];
    }),
  );
};
const showGroup = (suspect) => {
  const members = groups.get(groupOf(suspect));
  element("group").hidden = members.length < 2;
  if (members.length < 2) return;
  const others = members.filter((member) => member.picture && member !== suspect);
  const unseen = members.length - 1 - others.length;
  const more = unseen ? ` (${unseen} of them without a picture)` : "";
  element("alike").textContent = `Answer all ${members.length} suspects that look like this at once${more}`;
  element("strip").replaceChildren(
    ...others.slice(0, 12).map((member) => {
      const image = document.createElement("img");
      [image.src, image.alt, image.title] = [member.picture, member.path, member.path];
      image.addEventListener("click", () => goTo(listed().indexOf(member)));
      return image;
    }),
  );
};
const showProgress = () => {
  const all = content.suspects.filter((suspect) => suspect.suspect_id in answers);
  const visible = shown.filter((suspect) => suspect.suspect_id in answers).length;
  const errors = all.filter((suspect) => answers[suspect.suspect_id].answer === "error").length;
  element("progress").value = visible;
  element("done").textContent =
    `${visible} of ${shown.length} answered; errors: ${errors}, correct: ${all.length - errors}`;
  element("download").disabled = !all.length;
  element("send").disabled = !all.some((suspect) => isNew(suspect.suspect_id));
};
const show = () => {
  const list = listed(), suspect = list[current];
  showProgress();
  element("picture").src = suspect.picture;
  element("picture").alt = `${suspect.kind} in ${suspect.path}`;
  drawBoxes(suspect);
  fillCategories(suspect);
  describe(suspect);
  showGroup(suspect);
  const [question, error, correct] = texts[suspect.kind](suspect);
  element("question").textContent = `${current + 1} of ${list.length}: ${question}`;
  element("error-text").textContent = error;
  element("correct-text").textContent = correct;
  const given = answers[suspect.suspect_id];
  for (const name of ["error", "correct"]) element(name).classList.toggle("chosen", !!given && given.answer === name);
  element("back").disabled = current === 0;
  element("skip").disabled = current === list.length - 1;
  element("undo").disabled = !isNew(suspect.suspect_id);
};
const goTo = (place) => {
  current = Math.max(0, Math.min(place, listed().length - 1));
  show();
};
const nextOpen = () => {
  const list = listed();
  const next = list.findIndex((suspect, place) => place > current && !(suspect.suspect_id in answers));
  const open = next < 0 ? list.findIndex((suspect) => !(suspect.suspect_id in answers)) : next;
  if (open < 0) say("Every suspect of this list has an answer.");
  goTo(open < 0 ? current : open);
};
const give = (answer) => {
  const suspect = listed()[current];
  const category = answer === "error" && needsClass(suspect) ? element("category").value : null;
  if (category === "") return say("Choose a class first.", true);
  for (const member of membersOf(suspect)) {
    const isError = answer === "error" && member.category !== category; // a look-alike may have the class already
    answers[member.suspect_id] = { answer: isError ? "error" : "correct", new_category: isError ? category : null };
  }
  say("");
  save();
  nextOpen();
};
const takeBack = () => {
  for (const { suspect_id } of membersOf(listed()[current])) {
    if (suspect_id in imported) answers[suspect_id] = imported[suspect_id];
    else delete answers[suspect_id];
  }
  save();
  show();
};

const file = (given = answers) => ({
  dataset: content.dataset,
  snapshot: content.snapshot,
  answers: content.suspects
    .filter((suspect) => suspect.suspect_id in given)
    .map((suspect) => {
      const { suspect_id, kind, image_id, path, annotation_id, box, category } = suspect;
      const { answer, new_category } = given[suspect_id];
      const new_box = answer === "error" && kind === "misplaced" ? suspect.suggested_box : null;
      return { suspect_id, kind, image_id, path, annotation_id, box, category, answer, new_category, new_box };
    }),
});
const download = () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(file(), null, 1)], { type: "application/json" }));
  link.download = `${content.dataset}-answers.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};
// Inside Airflow the page can send the answers; elsewhere the address below it does not exist.
const askServer = async () => {
  if (!location.protocol.startsWith("http")) return;
  try {
    const response = await fetch("answers", { headers: { Accept: "application/json" } });
    if (response.status === 404) return; // a server of files
    const server = await response.json();
    if (!response.ok) return say(server.message, true);
    imported = server.answers;
    answers = { ...imported, ...answers };
    element("send").hidden = !server.may_import;
    if (!server.may_import) say("You may look at the suspects, but not import answers: that needs the right to trigger builds.");
    show();
  } catch {
    say("The answers that were imported before cannot be read.", true);
  }
};
const send = async () => {
  const sent = newAnswers();
  element("send").disabled = true;
  try {
    const headers = { "Content-Type": "application/json" };
    const response = await fetch("answers", { method: "POST", headers, body: JSON.stringify(file(sent)) });
    const result = await response.json();
    say(result.message, !response.ok);
    if (response.ok) Object.assign(imported, sent);
    save();
  } catch {
    say("The answers could not be sent; download them instead.", true);
  }
  show();
};

const actions = {
  error: () => give("error"), correct: () => give("correct"), skip: () => goTo(current + 1), back: () => goTo(current - 1),
  hide: () => element("view").classList.toggle("plain"), undo: takeBack, download, send,
};
for (const [id, action] of Object.entries(actions)) element(id).addEventListener("click", action);
const keys = { e: "error", c: "correct", s: "skip", arrowright: "skip", arrowleft: "back", b: "hide", u: "undo" };
document.addEventListener("keydown", (event) => {
  const id = keys[event.key.toLowerCase()];
  if (event.target.tagName === "SELECT") {
    if (event.key === "Enter" || event.key === "Escape") event.target.blur();
    return;
  }
  if (!id || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  if (event.repeat && id !== "skip" && id !== "back") return; // a key that is held answers once
  if (!element(id).disabled) actions[id]();
});
element("kind").addEventListener("change", () => goTo(0));
for (const select of [element("kind"), element("category")]) {
  let byPointer = false;
  select.addEventListener("pointerdown", () => { byPointer = true; });
  select.addEventListener("keydown", () => { byPointer = false; });
  select.addEventListener("change", () => byPointer && select.blur()); // the keys are for answers again
}
window.addEventListener("storage", (event) => {
  if (event.key !== key) return; // the page is open twice
  load();
  show();
});
load();
current = Math.max(0, listed().findIndex((suspect) => !(suspect.suspect_id in answers)));
show();
askServer();
