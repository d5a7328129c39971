// Elements of the page.

/** The element with an id. */
export const element = (id) => document.getElementById(id);

/** A new element with properties, a class, a text and children; a property in kebab case is an attribute. */
export function make(tag, { text = "", className = "", ...properties } = {}, ...children) {
  const made = document.createElement(tag);
  made.className = className;
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...(text ? [text] : []), ...children);
  return made;
}
