// What network and frontier share: elements, and a list of facts.
function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function list(entries) {
  const made = element("dl");
  for (const [label, text] of Object.entries(entries)) made.append(element("dt", label), element("dd", text));
  return made;
}
