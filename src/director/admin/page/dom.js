// Elements that are made once and updated in place, so that focus, selection and scrolling stay.

export const $ = (id) => document.getElementById(id);

/** Returns an element with its attributes and children. Strings become text nodes, never markup. */
export function make(name, attributes = {}, ...children) {
  const isSvg = /^(svg|path)$/.test(name);
  const node = isSvg
    ? document.createElementNS("http://www.w3.org/2000/svg", name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "act") node.addEventListener("click", value);
    else if (value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== undefined && child !== null));
  return node;
}

/** Sets the text of an element, which has no other children, if it differs. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Sets an attribute if it differs; `null` and `undefined` remove it. */
export function setAttribute(node, name, value) {
  if (value === null || value === undefined) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** Shows an element with a text, or hides it without one. */
export function showText(node, text) {
  setText(node, text || "");
  node.hidden = !text;
}

/** Returns whether the user points at, types in, or selects something in an element. */
function isInUse(node) {
  const selection = getSelection();
  const isSelected = selection && !selection.isCollapsed && node.contains(selection.anchorNode);
  return node.matches(":hover") || node.contains(document.activeElement) || isSelected;
}

/** Keeps the children of an element in step with a list: one row for each key. */
export class KeyedList {
  /** `create(item)` returns a row: `{ node, update(item) }`. */
  constructor(parent, create) {
    this.parent = parent;
    this.create = create;
    this.rows = new Map();
  }

  /**
   * Updates the rows to a list of `[key, item]`. Rows change places only while nobody uses the list,
   * or if `isAsked`: the user has chosen another order, or other rows.
   */
  update(entries, isAsked = false) {
    const keys = new Set(entries.map(([key]) => key));
    for (const [key, row] of this.rows) {
      if (keys.has(key)) continue;
      row.node.remove();
      this.rows.delete(key);
    }
    for (const [key, item] of entries) {
      let row = this.rows.get(key);
      if (!row) {
        row = this.create(item);
        this.rows.set(key, row);
        this.parent.append(row.node);
      }
      row.update(item);
    }
    if (!isAsked && isInUse(this.parent)) return;
    let place = this.parent.firstElementChild;
    for (const [key] of entries) {
      const { node } = this.rows.get(key);
      if (node === place) place = place.nextElementSibling;
      else this.parent.insertBefore(node, place);
    }
  }

  /** Removes all rows. */
  clear() {
    this.rows.clear();
    this.parent.replaceChildren();
  }
}
