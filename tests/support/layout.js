// What is wrong with a page, as a list of sentences; nothing if it can be read as it is.
// Evaluated by tests/support/browser.py. Knows nothing of what the page shows.
(() => {
  const TINY = 1.01; // pixels by which glyph boxes may meet without any ink doing so
  const WORD = 16; // characters; longer words may be broken
  const CONTRAST = 4.5; // WCAG 2.2, AA
  const PIXELS = 11; // of the smallest text
  const wrong = [];
  const width = document.documentElement.clientWidth || innerWidth;

  const said = (node) => `"${node.textContent.trim().slice(0, 60)}"`;
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((each) => {
      const part = each / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const contrast = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  // The colour behind an element: that of the nearest one around it which has one.
  const behind = (element) => {
    const back = document.querySelector("svg > .back");
    if (back && element.ownerSVGElement) return rgb(getComputedStyle(back).fill);
    for (let each = element; each; each = each.parentElement) {
      const colour = rgb(getComputedStyle(each).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };

  // Whether a word is a part of a longer one, which may be broken before or behind it.
  const isPart = (node, found) => {
    const end = found.index + found[0].length;
    return (
      (found.index === 0 && node.previousSibling?.nodeName === "WBR") ||
      (end === node.length && node.nextSibling?.nodeName === "WBR")
    );
  };

  if (document.documentElement.scrollWidth > width) {
    wrong.push(`the page is ${document.documentElement.scrollWidth} wide, the window ${width}`);
  }
  for (const element of document.querySelectorAll("body *, svg *")) {
    const box = element.getBoundingClientRect();
    if (box.width && (box.left < -0.5 || box.right > width + 0.5)) {
      wrong.push(`<${element.tagName}> ${said(element)} is from ${box.left} to ${box.right}`);
    }
    const style = getComputedStyle(element);
    if (style.overflowX !== "visible" && element.scrollWidth > element.clientWidth) {
      wrong.push(`<${element.tagName}> ${said(element)} is cut, or has to be scrolled`);
    }
  }

  const texts = [];
  const walker = document.createTreeWalker(document.documentElement, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const element = node.parentElement;
    if (!node.data.trim() || element.closest("style,title,head")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const boxes = [...range.getClientRects()].filter((box) => box.width > 0);
    if (!boxes.length) {
      wrong.push(`${said(node)} is not shown`);
      continue;
    }
    texts.push({ node, boxes });
    for (const found of node.data.matchAll(/\S+/g)) {
      if (found[0].length > WORD || isPart(node, found)) continue;
      range.setStart(node, found.index);
      range.setEnd(node, found.index + found[0].length);
      const lines = new Set([...range.getClientRects()].map((box) => Math.round(box.top)));
      if (lines.size > 1) wrong.push(`"${found[0]}" in ${said(node)} is broken`);
    }
    const style = getComputedStyle(element);
    if (parseFloat(style.fontSize) < PIXELS) wrong.push(`${said(node)} is ${style.fontSize} high`);
    const ink = rgb(element.ownerSVGElement ? style.fill : style.color);
    const by = contrast(ink, behind(element));
    if (by < CONTRAST) wrong.push(`${said(node)} has a contrast of ${by.toFixed(2)}`);
  }

  for (const [index, one] of texts.entries()) {
    for (const other of texts.slice(index + 1)) {
      const meet = one.boxes.some((a) =>
        other.boxes.some(
          (b) =>
            Math.min(a.right, b.right) - Math.max(a.left, b.left) > TINY &&
            Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > TINY,
        ),
      );
      if (meet) wrong.push(`${said(one.node)} lies over ${said(other.node)}`);
    }
  }
  return wrong;
})();
