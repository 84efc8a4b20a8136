// SPDX-License-Identifier: Apache-2.0
// Tokens as they stand in a text that is read: pieces of a character, white space, writing from right to left.
"use strict";

/// Stands for a piece of a character that is shown with its first piece.
const pieceMark = "\u203f";
const pieceMeaning = `${pieceMark} a further piece of the character before it`;

/// What the tokens of a text show, one after the other: [{shown, of}]. texts: the tokens' own, in which a byte that is no character
/// alone reads \xE4; labels: the same with every character seen. Where the bytes of some tokens make a character, the first
/// of them shows it, and the others a pieceMark; of: the characters that a token has a piece of.
function runningText(texts, labels) {
  const parts = texts.flatMap((text, token) => (text.match(/\\x[89A-F][0-9A-F]|[^]/gu) || []).map((part) =>
    ({ token, text: part, byte: part.length === 4 && part.startsWith("\\x") ? parseInt(part.slice(2), 16) : -1 })));
  const tokens = texts.map(() => ({ shown: "", of: "" }));
  for (let at = 0; at < parts.length; ++at) {
    const { byte } = parts[at], character = parts.slice(at, at + (byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4));
    if (byte < 0xc2 || byte > 0xf4 || character.some((part) => part.byte < 0)) continue;
    let text;
    try {
      text = new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(character, (part) => part.byte));
    } catch {
      continue;  // bytes of several characters, or of none
    }
    character.forEach((part, i) => (part.text = i === 0 ? text : part.token === character[i - 1].token ? "" : pieceMark));
    for (const token of new Set(character.map((part) => part.token))) tokens[token].of += text;
    at += character.length - 1;
  }
  for (const part of parts) tokens[part.token].shown += part.text;
  tokens.forEach((token, i) => {
    const inked = token.shown === " " || /\S/.test(token.shown);
    token.shown = inked ? token.shown.replaceAll("\t", "\u21e5").replaceAll("\n", "\u21b5\n") : labels[i].replaceAll("\u21b5", "\u21b5\n");
  });
  return tokens;
}

/// Puts what a token shows into its element of a text whose lines break as the text's own do: a last line break after it.
function showToken(element, shown) {
  element.textContent = shown.replace(/\n$/, "");
  if (shown.endsWith("\n")) element.after(make("br", {}));
}

/// A label within a line of another language: set by itself where it is written from right to left.
const isolated = (label) => (/[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]/.test(label) ? `\u2068${label}\u2069` : label);
const quoted = (label) => `\u201c${isolated(label)}\u201d`;
/// At most so many characters of a label.
function brief(label, most) {
  const signs = Array.from(label);
  return signs.length > most ? `${signs.slice(0, most - 1).join("")}\u2026` : label;
}
