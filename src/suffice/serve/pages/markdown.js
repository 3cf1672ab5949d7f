// The part of Markdown that models write, as DOM nodes. Text only ever becomes text nodes, so nothing in it can run.

const INLINE = /(`+)([\s\S]*?[^`])\1(?!`)|\*\*([^*\n]+)\*\*|\*([^*\s][^*\n]*)\*|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)/;

function element(tag, ...children) {
  const made = document.createElement(tag);
  made.append(...children);
  return made;
}

function inline(text) {
  const nodes = [];
  for (let match; (match = INLINE.exec(text)); text = text.slice(match.index + match[0].length)) {
    nodes.push(text.slice(0, match.index));
    if (match[1]) nodes.push(element("code", match[2].trim()));
    else if (match[3]) nodes.push(element("strong", ...inline(match[3])));
    else if (match[4]) nodes.push(element("em", ...inline(match[4])));
    else {
      const link = element("a", match[5]);
      Object.assign(link, { href: match[6], rel: "noopener noreferrer nofollow", target: "_blank" });
      nodes.push(link);
    }
  }
  return [...nodes, text];
}

function lines(list) {
  return list.flatMap((line, i) => (i ? [element("br"), ...inline(line)] : inline(line)));
}

const RULES = [
  [/^```/, (rest) => {
    rest.shift();
    const code = [];
    while (rest.length && !/^```/.test(rest[0])) code.push(rest.shift());
    rest.shift();
    return element("pre", element("code", code.join("\n")));
  }],
  [/^#{1,6} /, (rest) => {
    const [, marks, text] = /^(#+) (.*)/.exec(rest.shift());
    return element("h" + Math.min(marks.length + 2, 6), ...inline(text));
  }],
  [/^> ?/, (rest) => element("blockquote", ...lines(take(rest, /^> ?/)))],
  [/^\s*[-*+] /, (rest) => element("ul", ...items(rest, /^\s*[-*+] /))],
  [/^\s*\d+[.)] /, (rest) => {
    const list = element("ol");
    list.start = parseInt(rest[0], 10);
    list.append(...items(rest, /^\s*\d+[.)] /));
    return list;
  }],
];

function take(rest, mark) {
  const taken = [];
  while (rest.length && mark.test(rest[0])) taken.push(rest.shift().replace(mark, ""));
  return taken;
}

function items(rest, mark) {
  return take(rest, mark).map((line) => element("li", ...inline(line)));
}

export function render(text) {
  const rest = text.split("\n");
  const blocks = [];
  while (rest.length) {
    const rule = RULES.find(([mark]) => mark.test(rest[0]));
    if (rule) blocks.push(rule[1](rest));
    else if (!rest[0].trim()) rest.shift();
    else {
      const plain = [rest.shift()];
      while (rest.length && rest[0].trim() && !RULES.some(([mark]) => mark.test(rest[0]))) plain.push(rest.shift());
      blocks.push(element("p", ...lines(plain)));
    }
  }
  return blocks;
}
